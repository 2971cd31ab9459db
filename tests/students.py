"""Small classifiers of digits for tests of sparse students, and what is asked of them."""

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

digits = load_digits()
X = (digits.images / 16)[:, None].astype(np.float32)
Y = digits.target
LEARN, HELD = np.arange(len(Y)) % 5 != 0, np.arange(len(Y)) % 5 == 0


def mlp(seed=0, hidden=24, norm=False):
    """A small classifier of digits; its head is not pruned by default."""
    torch.manual_seed(seed)
    between = [nn.BatchNorm1d(hidden)] if norm else []
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, hidden), *between, nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 10)
    )


def convolutions(seed=0, classes=10):
    torch.manual_seed(seed)
    made = nn.Sequential()
    for inputs, outputs, stride in ((1, 12, 2), (12, 24, 2)):
        made += nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())
    return made + nn.Sequential(nn.Flatten(), nn.Linear(96, classes))


def rows_of(step, size=32):
    return np.random.default_rng(step).integers(0, len(Y), size)


def run(module, sparse, optimizer, steps):
    """So many steps of a loop of one's own."""
    for step in steps:
        rows = rows_of(step)
        optimizer.zero_grad()
        F.cross_entropy(module(torch.tensor(X[rows])), torch.tensor(Y[rows])).backward()
        optimizer.step()
        sparse.step(optimizer)


def hits(called):
    with torch.no_grad():
        return float((np.asarray(called(torch.tensor(X[HELD]))).argmax(1) == Y[HELD]).mean())


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
