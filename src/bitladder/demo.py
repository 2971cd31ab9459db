"""The whole path in about a minute on scikit-learn's digits: train, learn, plan, quantize, pack, run at five widths, report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bitladder.assign.score import accuracy
from bitladder.errors import require
from bitladder.file import sizes
from bitladder.model import Model, load
from bitladder.recipe import quantize
from bitladder.report import write
from bitladder.table import table
from bitladder.threads import one_thread

Progress = Callable[[str, int, int], None]
WIDTHS = (8, 6, 4, 3, 2)
MAX_DROP = 0.01
LOW = 4
EPOCHS = 12
SEED = 0


def run(out: str | os.PathLike[str], progress: Progress | None = None) -> dict[str, Any]:
    """What happened, for people and as JSON: a table, lines, the folder written, accuracies and bytes by width.

    It writes digits.ladder, report.html and, where onnx is installed, digits.onnx into the folder `out`.
    """
    torch = require("torch", "torch", "demo")
    with one_thread(torch):  # 8x8 images are too small to share
        return path_of(Path(out), progress or (lambda stage, done, total: None))


def path_of(folder: Path, tell: Progress) -> dict[str, Any]:
    """The path itself."""
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    digits = Digits.load()
    net = trained(digits, tell)
    model = quantize(
        net,
        {"x": digits.calib[0]},
        labels=digits.calib[1],
        score=accuracy({"x": digits.choose[0]}, digits.choose[1]),
        max_drop=MAX_DROP,
        low=LOW,
        keep=max(WIDTHS),
        progress=tell,
    )
    path = folder / "digits.ladder"
    model.save(path)
    float_accuracy = float((net(tensor(digits.test[0])).argmax(1).numpy() == digits.test[1]).mean())
    rows = [at_width(path, bits, digits, tell) for bits in WIDTHS]
    page = write(model, folder / "report.html", name="digits", place=path)
    result = model.graph.meta["result"]
    low = sum(row["chosen"] for row in result["ranking"])
    lines = [
        f"float accuracy {float_accuracy:.4f} on {len(digits.test[1])} test images that nothing was chosen on",
        f"{low} of {len(result['ranking'])} layers run on {LOW} bits by default, found in {result['evaluations']} evaluations",
        exported(model, folder / "digits.onnx", digits),
        f"look at {page}",
    ]
    cells = [(r["bits"], f"{r['accuracy']:.4f}", r["average_bits"], f"{r['bytes_read']:,}") for r in rows]
    return {
        "table": table(("width", "accuracy", "average bits", "bytes read"), cells),
        "lines": lines,
        "wrote": str(path),
        "float_accuracy": float_accuracy,
        "widths": rows,
        "report": str(page),
        "goal_met": bool(result["goal_met"]),
        "seconds": time.monotonic() - began,
    }


class Digits:
    """Images (n, 1, 8, 8) of 0..1 and labels, in parts that do not overlap: to train, calibrate, choose and test on."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        order = np.random.default_rng(SEED).permutation(len(labels))
        parts = np.split(order, [1000, 1200])
        self.train, self.choose, self.test = ((images[p], labels[p]) for p in parts)
        self.calib = self.train[0][:512], self.train[1][:512]

    @classmethod
    def load(cls) -> Digits:
        """The data that scikit-learn ships."""
        data = require("sklearn.datasets", "torch", "demo").load_digits()
        return cls((data.images[:, None] / 16).astype(np.float32), data.target.astype(np.int64))


def tensor(x: np.ndarray) -> Any:
    return require("torch", "torch", "demo").from_numpy(x)


def network() -> Any:
    """A residual network of ten weighted layers for 8x8 images."""
    torch = require("torch", "torch", "demo")
    nn = torch.nn

    def unit(inputs: int, outputs: int, stride: int = 1) -> list[Any]:
        return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)]

    class Block(nn.Module):  # type: ignore[name-defined,misc]
        def __init__(self, width: int):
            super().__init__()
            self.body = nn.Sequential(*unit(width, width), nn.ReLU(), *unit(width, width))

        def forward(self, x: Any) -> Any:
            return torch.relu(x + self.body(x))

    return nn.Sequential(
        *unit(1, 16),
        nn.ReLU(),
        Block(16),
        *unit(16, 32, 2),
        nn.ReLU(),
        Block(32),
        *unit(32, 48, 2),
        nn.ReLU(),
        Block(48),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, 10),
    )


def trained(digits: Digits, tell: Progress) -> Any:
    """The network after a dozen epochs, in eval mode; images are shifted by up to a pixel so that it does not just memorize."""
    torch = require("torch", "torch", "demo")
    torch.manual_seed(SEED)
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True)
    x, y = tensor(digits.train[0]), tensor(digits.train[1])
    batches = len(y) // 50
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * batches)
    draw = torch.Generator().manual_seed(SEED)
    for epoch in range(EPOCHS):
        for at in torch.randperm(len(y), generator=draw)[: batches * 50].view(batches, 50):
            shift = torch.randint(-1, 2, (2,), generator=draw).tolist()
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x[at].roll(shift, (2, 3))), y[at]).backward()
            optimizer.step()
            schedule.step()
        tell("train", epoch + 1, EPOCHS)
    return net.eval().requires_grad_(False)


def at_width(path: Path, bits: int, digits: Digits, tell: Progress) -> dict[str, Any]:
    """What the file does when it is loaded at one width: only so many planes of it are read."""
    model = load(path, bits=bits)
    tell("run", WIDTHS.index(bits) + 1, len(WIDTHS))
    hits = float((model(digits.test[0]).argmax(1) == digits.test[1]).mean())
    _, prefixes = sizes(path)
    read = prefixes.get(bits, max(prefixes.values(), default=path.stat().st_size))
    return {"bits": bits, "accuracy": hits, "average_bits": model.average_bits, "bytes_read": read}


def exported(model: Model, path: Path, digits: Digits) -> str:
    """A line on the network as ONNX, and how often ONNX Runtime decides as we do."""
    try:
        require("onnx", "onnx", "demo")
        runtime = require("onnxruntime", "onnx", "demo")
        from bitladder.convert.check_onnx import CONFIG
    except ImportError as missing:
        return f"no ONNX file: {missing}"
    model.to_onnx(path)
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    for key, value in CONFIG.items():
        options.add_session_config_entry(key, value)
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (there,) = session.run(None, {session.get_inputs()[0].name: digits.test[0]})
    same = float((there.argmax(1) == model(digits.test[0]).argmax(1)).mean())
    return f"ONNX Runtime decides the same on {same:.2%} of the test images ({path})"
