"""The CIFAR ResNets of He et al. (2016), option-A shortcuts, with public weights from a safetensors file."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut that pads channels with zeros where the size changes."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.extra = stride, outputs - inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1 or self.extra:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.extra // 2, self.extra // 2))
        return F.relu(x + y)


class ResNet(nn.Module):
    """ResNet-(6 n + 2) for 32x32 images and ten classes."""

    def __init__(self, n: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = [16, 16, 32, 64]
        for stage in (1, 2, 3):
            blocks = [
                Block(widths[stage - 1] if i == 0 else widths[stage], widths[stage], 2 if stage > 1 and i == 0 else 1)
                for i in range(n)
            ]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


def path(folder: Path, depth: int) -> Path:
    """Where the weights of ResNet-`depth` are."""
    found = folder / "resnet_cifar10" / f"resnet{depth}_jpeg.safetensors"
    if not found.exists():
        raise FileNotFoundError(f"bench: {found} is missing; give the folder that holds resnet_cifar10/ with --data-dir")
    return found


def load(folder: Path, depth: int) -> ResNet:
    """ResNet-20 or ResNet-56 fine-tuned on the JPEG images, in eval mode."""
    from safetensors.torch import load_file

    net = ResNet((depth - 2) // 6)
    net.load_state_dict(load_file(path(folder, depth)))
    return net.eval()
