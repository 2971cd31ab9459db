"""What planes are worth: measured against a network narrowed by hand."""

import numpy as np
from networks import convnet, images

import bitladder as bl
from bitladder.assign.gains import NOTHING, OCTAVE, by_plane, gains, octaves


def test_gains_are_what_planes_take_off_the_error():
    """Every plane beyond the minimum has a gain, and it is the one that narrowing by hand shows."""
    model = bl.Model(convnet("nested8", "nested6:tree", meta={"min_bits": {"w1": 3}}))
    nested = {n: c.format.bits for n, c in model.whole.constants.items() if hasattr(c, "format") and hasattr(c.format, "at")}
    x = {"image": images(16)[0]}
    found = gains(model, x)
    floors = model.whole.meta["min_bits"]
    assert {n: len(g) for n, g in found.items()} == {n: b - floors.get(n, 1) for n, b in nested.items()}

    def error(bits):
        best, got = model(x["image"]).astype(np.float64), model.at(bits)(x["image"])
        return np.sum((best - got) ** 2) / np.sum(best**2)

    first, second = nested
    low = {n: max(4, floors.get(n, 1)) for n in nested}
    by_hand = error(low) - error({**low, second: 5})
    assert by_hand > 0
    assert found[second][4 - floors.get(second, 1)] == octaves(by_hand)
    shares = by_plane(found, model)
    assert set(shares) == {(n, p) for n, b in nested.items() for p in range(floors.get(n, 1) + 1, b + 1)}
    assert shares[second, 5] == 2.0 ** (octaves(by_hand) / OCTAVE)
    assert found[first][-1] == octaves(error({first: nested[first] - 1, second: nested[second]}))


def test_a_network_without_planes_has_no_gains():
    """Formats that are not nested have none; planes that make things worse are worth next to nothing."""
    model = bl.Model(convnet("int4", "int4"))
    assert gains(model, {"image": images(4)[0]}) == {}
    assert octaves(0.0) == NOTHING
