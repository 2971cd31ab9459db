"""Graphs from torch modules mean what the modules mean, at every batch size, under the names users know."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from nets import FAMILIES, family  # noqa: E402

from bitladder.convert.from_torch import from_torch  # noqa: E402
from bitladder.runtime.reference import run  # noqa: E402


def outputs(made):
    """What a module returned as a list of numpy arrays."""
    return [t.detach().numpy() for t in (made if isinstance(made, tuple) else (made,))]


@pytest.mark.parametrize("name", FAMILIES)
def test_families_mean_the_same(name):
    """Each family at the example's batch size, at another, and at one."""
    net, make = family(name), FAMILIES[name][1]
    graph = from_torch(net, make(3))
    for batch in (3, 2, 1):
        x = make(batch)
        want = outputs(net(*x))
        assert batch == 1 or np.ptp(want[0], axis=0).max() > 1e-3  # a network that is alive
        got = run(graph, {v.name: t.numpy() for v, t in zip(graph.inputs, x, strict=True)})
        for a, b in zip(want, (got[o] for o in graph.outputs), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)
