"""Networks that are timed: ResNet-50 and MobileNetV2 of the usual shapes with seeded random weights, and trained small ones.

Time does not depend on what the weights are, as long as nothing explodes: batch norm takes its statistics from random
images, so that activations keep one scale from the first layer to the last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from bench import minilm, resnet
from bench.options import Options

SEED = 0
TOKENS = 128
STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))  # of ResNet-50: blocks, width, stride
INVERTED = (  # of MobileNetV2: expansion, channels, blocks, stride
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def unit(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: nn.Module | None = None
) -> nn.Sequential:
    """Convolution, batch norm, activation."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), *([act] if act else []))


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up to four times the width; the shortcut is a 1x1 convolution where shapes change."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        outputs = 4 * width
        self.body = nn.Sequential(
            unit(inputs, width, 1, act=nn.ReLU()), unit(width, width, 3, stride, act=nn.ReLU()), unit(width, outputs, 1)
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else unit(inputs, outputs, 1, stride)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.body(x) + self.shortcut(x))


class ResNet50(nn.Module):
    """ResNet-50 with the stride in the 3x3 convolution; 4.1 GMAC at 224x224."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(unit(3, 64, 7, 2, act=nn.ReLU()), nn.MaxPool2d(3, 2, 1))
        blocks, inputs = [], 64
        for count, width, stride in STAGES:
            for i in range(count):
                blocks.append(Bottleneck(inputs, width, stride if i == 0 else 1))
                inputs = 4 * width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)))


class Inverted(nn.Module):
    """1x1 up, depthwise 3x3, 1x1 down without activation; with a shortcut where shapes stay."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int):
        super().__init__()
        wide = inputs * expansion
        up = [unit(inputs, wide, 1, act=nn.ReLU6())] if expansion > 1 else []
        self.body = nn.Sequential(*up, unit(wide, wide, 3, stride, wide, nn.ReLU6()), unit(wide, outputs, 1))
        self.same = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.same else self.body(x)


class MobileNetV2(nn.Module):
    """MobileNetV2 of width 1; 0.30 GMAC at 224x224."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = [unit(3, 32, 3, 2, act=nn.ReLU6())]
        inputs = 32
        for expansion, outputs, count, stride in INVERTED:
            for i in range(count):
                blocks.append(Inverted(inputs, outputs, stride if i == 0 else 1, expansion))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks, unit(inputs, 1280, 1, act=nn.ReLU6()))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(x))


def images(count: int, size: int, seed: int = SEED) -> np.ndarray:
    """Random images (count, 3, size, size) float32, smooth enough to have edges and flat parts."""
    draw = np.random.default_rng(seed)
    coarse = draw.normal(size=(count, 3, size // 8, size // 8)).astype(np.float32)
    fine = draw.normal(size=(count, 3, size, size)).astype(np.float32)
    return coarse.repeat(8, axis=2).repeat(8, axis=3) + np.float32(0.3) * fine


def seeded(make: Callable[[], nn.Module], size: int) -> nn.Module:
    """The network with random weights, batch norm settled on random images, in eval mode."""
    torch.manual_seed(SEED)
    net = make()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # statistics are plain means over the batches seen
    with torch.no_grad():
        net.train()(torch.from_numpy(images(8, size, SEED + 1)))
    return net.eval()


@dataclass(frozen=True)
class Net:
    """A network, calibration inputs by name (samples, ...), and the batch of one that is timed."""

    name: str
    module: nn.Module
    calibration: dict[str, np.ndarray]
    transformer: bool = False

    @property
    def example(self) -> dict[str, np.ndarray]:
        return {name: a[:1] for name, a in self.calibration.items()}


def resnet50(options: Options) -> Net:
    return Net("resnet50", seeded(ResNet50, 224), {"x": images(16, 224)})


def mobilenet_v2(options: Options) -> Net:
    return Net("mobilenet_v2", seeded(MobileNetV2, 224), {"x": images(16, 224)})


def resnet20(options: Options) -> Net:
    """The trained ResNet-20; random images will do where only time is measured."""
    return Net("resnet20", resnet.load(options.data, 20), {"x": images(64, 32)})


def minilm_encoder(options: Options) -> Net:
    """The all-MiniLM-L6-v2 encoder on sentences of 128 tokens."""
    ids, mask = minilm.passages(16, TOKENS)
    return Net("minilm", minilm.load(), {"ids": ids, "mask": mask}, transformer=True)


NETS: dict[str, Callable[[Options], Net]] = {
    "resnet20": resnet20,
    "mobilenet_v2": mobilenet_v2,
    "resnet50": resnet50,
    "minilm": minilm_encoder,
}
