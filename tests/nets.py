"""Small networks of every family the importers must read; random weights, a few thousand parameters each."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from bitladder.formats import QTensor, fit
from bitladder.ir.graph import CHANNEL_AXIS
from bitladder.ir.rewrite import simplify
from bitladder.runtime.reference import run

torch.set_num_threads(1)  # networks this small only wait for a second thread


class Basic(nn.Module):
    """A residual block with an option-A shortcut."""

    def __init__(self, cin: int, cout: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.stride, self.extra = stride, cout - cin

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride != 1:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))
        return F.relu(y + x)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(Basic(8, 8, 1))
        self.layer2 = nn.Sequential(Basic(8, 12, 2))
        self.linear = nn.Linear(12, 5)

    def forward(self, x):
        y = self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x)))))
        return self.linear(F.avg_pool2d(y, y.shape[3]).view(y.size(0), -1))


class Squeeze(nn.Module):
    def __init__(self, c: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(c, 4, 1), nn.Conv2d(4, c, 1)

    def forward(self, x):
        return x * F.hardsigmoid(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))))


class MobileNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True),
            nn.Conv2d(8, 8, 3, 2, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.Hardswish(inplace=True),
            Squeeze(8), nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6), nn.SiLU(),
        )  # fmt: skip
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(24, 5))

    def forward(self, x):
        return self.head(self.block(x))


class Vgg(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding="same"), nn.ReLU(True), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1),
            nn.LeakyReLU(0.1), nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.GroupNorm(2, 8), nn.PReLU(8),
            nn.InstanceNorm2d(8, affine=True),
        )  # fmt: skip
        self.head = nn.Linear(8 * 9, 5)

    def forward(self, x):
        return F.log_softmax(self.head(torch.flatten(self.features(x), 1)), dim=1)


class Attention(nn.Module):
    """Attention written by hand."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.qkv, self.proj, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        weights = ((q @ k.transpose(-2, -1)) * (c // self.heads) ** -0.5).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, c))


class Vit(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.cls = nn.Parameter(torch.randn(1, 1, 16))
        self.pos = nn.Parameter(torch.randn(1, 10, 16))
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(16), Attention(16, 2), nn.LayerNorm(16)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        y = self.patch(x).flatten(2).transpose(1, 2)
        y = torch.cat([self.cls.expand(x.shape[0], -1, -1), y], dim=1) + self.pos
        y = y + self.attn(self.norm1(y))
        y = y + self.mlp(self.norm2(y))
        return self.head(y[:, 0])


class Encoder(nn.Module):
    """torch's own encoder layer, with scaled_dot_product_attention inside."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)

    def forward(self, x):
        return self.encoder(x).mean(1)


class Bert(nn.Module):
    """Embeddings, a padding mask, attention with the mask, pooling that leaves padding out."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(20, 16), nn.Embedding(12, 16)
        self.register_buffer("ids", torch.arange(12).unsqueeze(0))
        self.norm = nn.LayerNorm(16)
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))

    def heads(self, y):
        return y.view(y.shape[0], -1, 2, 8).transpose(1, 2)

    def forward(self, ids, mask):
        x = self.norm(self.words(ids) + self.places(self.ids[:, : ids.shape[1]]))
        bias = (1.0 - mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        y = F.scaled_dot_product_attention(self.heads(self.q(x)), self.heads(self.k(x)), self.heads(self.v(x)), attn_mask=bias)
        y = self.o(y.transpose(1, 2).contiguous().view(x.shape[0], -1, 16)) + x
        keep = mask.unsqueeze(-1).expand(y.size()).float()
        pooled = torch.sum(y * keep, 1) / torch.clamp(keep.sum(1), min=1e-9)
        return F.normalize(pooled, p=2, dim=1), torch.tanh(y)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(10, 4, batch_first=True)
        self.rnn = nn.RNN(4, 3, batch_first=True)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        y, (h, _) = self.lstm(x)
        y, _ = self.gru(y)
        y, last = self.rnn(y)
        return self.head(y[:, -1]), h, last


class Decoder(nn.Module):
    """Transposed convolution, resizing, pixel shuffle, one and three dimensions."""

    def __init__(self):
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 4, 3, 2, 1, output_padding=1)
        self.c1, self.c3 = nn.Conv1d(4, 4, 3, padding=1), nn.Conv3d(1, 2, 3, padding=1)

    def forward(self, x):
        y = F.softplus(self.up(x))
        a = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
        b = F.interpolate(y, size=(48, 48), mode="nearest")
        c = F.pixel_shuffle(y, 2)
        d = F.mish(self.c1(y.mean(2)))
        e = F.elu(self.c3(y.unsqueeze(1))).amax((2, 3, 4))
        return F.pad(a, (1, 2, 3, 0), mode="reflect"), b.sum(1), c.squeeze(1), d, e


class Windows(nn.Module):
    """Attention inside shifted windows: views of a free batch, rolls, a table of biases read by position."""

    def __init__(self):
        super().__init__()
        self.norm, self.q = nn.LayerNorm(8), nn.Linear(8, 8)
        self.bias = nn.Parameter(torch.randn(9, 2))
        self.register_buffer("places", torch.randint(0, 9, (16,)))

    def forward(self, x):
        b, h, w, c = x.shape
        y = torch.roll(x, (-1, -1), (1, 2)).view(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).contiguous()
        q = self.q(self.norm(y.view(-1, 4, c)))
        q = q.reshape(q.shape[0], 4, 2, 4).transpose(1, 2)
        bias = self.bias[self.places].view(4, 4, 2).permute(2, 0, 1).contiguous().unsqueeze(0)
        y = ((q @ q.transpose(-2, -1) + bias).softmax(-1) @ q).transpose(1, 2).reshape(-1, 4, c)
        y = y.view(b, h // 2, w // 2, 2, 2, -1).permute(0, 1, 3, 2, 4, 5).contiguous().view(b, h, w, -1)
        return torch.roll(y, (1, 1), (1, 2)) + x


class Translator(nn.Module):
    """torch's encoder with a padding mask and decoder with a causal one."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 16, padding_idx=0)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoderLayer(16, 2, 32, batch_first=True)

    def forward(self, ids):
        y = self.encoder(self.embed(ids), src_key_padding_mask=(ids == 0))
        return self.decoder(y, y, tgt_mask=nn.Transformer.generate_square_subsequent_mask(5))


FAMILIES = {
    "resnet": (ResNet, lambda n: (torch.randn(n, 3, 8, 8),)),
    "mobilenet": (MobileNet, lambda n: (torch.randn(n, 3, 8, 8),)),
    "vgg": (Vgg, lambda n: (torch.randn(n, 3, 10, 10),)),
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3), nn.Sigmoid()), lambda n: (torch.randn(n, 6),)),
    "vit": (Vit, lambda n: (torch.randn(n, 3, 12, 12),)),
    "encoder": (Encoder, lambda n: (torch.randn(n, 7, 16),)),
    "bert": (Bert, lambda n: (torch.randint(0, 20, (n, 7)), (torch.arange(7) < torch.randint(2, 8, (n, 1))).long())),
    "windows": (Windows, lambda n: (torch.randn(n, 4, 4, 8),)),
    "translator": (Translator, lambda n: (torch.randint(0, 10, (n, 5)).index_fill(1, torch.tensor(0), 1),)),
    "recurrent": (Recurrent, lambda n: (torch.randn(n, 5, 6),)),
    "decoder": (Decoder, lambda n: (torch.randn(n, 3, 8, 8),)),
}


def family(name: str) -> nn.Module:
    """A network with normalisation statistics that are not the default ones."""
    torch.manual_seed(0)
    net = FAMILIES[name][0]()
    for key, tensor in net.state_dict().items():
        if "running_mean" in key:
            tensor.copy_(torch.randn_like(tensor) * 0.1)
        if "running_var" in key:
            tensor.copy_(torch.rand_like(tensor) * 0.3 + 0.1)
    return net.eval()


def quantized(graph, data, weights, activations):
    """`graph` simplified, each weight in the format `weights`, each activation that is a float in `activations`."""
    graph = simplify(graph)
    values = {v.name: x for v, x in zip(graph.inputs, data, strict=True)}
    run(graph, dict(values), watch=lambda name, value: values.update({name: value}))
    kept = {name: x for name, x in values.items() if x.dtype == np.float32 and x.size > 1}
    encodings = {name: fit(activations, x, cover="max") for name, x in kept.items()}
    coded = {}
    for name, node in graph.weights():
        if node.op in ("conv", "conv_transpose", "linear"):
            w = graph.constants[name]
            coded[name] = QTensor.of(w, fit(weights, w, axis=CHANNEL_AXIS[node.op]))
    return graph.with_(constants={**graph.constants, **coded}, encodings=encodings)
