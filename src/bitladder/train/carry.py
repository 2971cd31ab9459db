"""Weights as integers in two parts, a code and a finer rest: how the rest reaches the code (S4, S5).

A total of `T` fine units is `(code << finer) + rest`: the network sees codes, the rest remembers what they cannot show. All
of this is integer arithmetic on int64 numpy arrays or torch tensors alike; nothing is lost but what is counted as clipped.
"""

from __future__ import annotations

from typing import Any

from bitladder.formats.tensor import Array, ns
from bitladder.formats.uniform import code_span

Digits = Any  # an int, or integers, one for each element


def toward_zero(x: Array, bits: Digits) -> Array:
    """x / 2^bits without its fraction.

    >>> import numpy as np
    >>> toward_zero(np.array([-9, -8, -7, 7, 8]), 3)
    array([-1, -1,  0,  0,  1])
    """
    sign = x >> (8 * x.dtype.itemsize - 1)  # -1 or 0
    return (x + (sign & ((1 << bits) - 1))) >> bits


def nearest(x: Array, bits: Digits) -> Array:
    """x / 2^bits, half to even.

    >>> import numpy as np
    >>> nearest(np.array([-6, -2, 2, 3, 6]), 2)
    array([-2,  0,  0,  1,  2])
    """
    half = (1 << bits) >> 1
    return (x + half - (1 - ((x >> bits) & 1)) * (half > 0)) >> bits


def settle(codes: Array, memory: Array, *, finer: Digits, bits: int = 8, n: int = 0) -> tuple[Array, Array, Array, Array]:
    """S4: the multiples of each code's n-th bit that its memory has gathered go to the code.

    The answer is codes, memory, how far each code moved, and where it would have left its `bits`. The multiple is taken
    toward zero, so |memory| < 2^(finer + n) afterwards; comparing bits with the sign would leave -q where it is. What a
    full code cannot take is dropped but for that much, so that it does not wind up.
    """
    low, high = code_span(bits, False)
    space = ns(codes)
    due = toward_zero(memory, finer + n) << n
    moved = space.minimum(space.maximum(due, -(((codes - low) >> n) << n)), ((high - codes) >> n) << n)
    most = (1 << (finer + n)) - 1
    return codes + moved, (memory - (moved << finer)).clip(-most, most), moved, moved != due


def carry(
    codes: Array, rest: Array, sums: Array, *, finer: Digits, bits: int = 8, aligned: bool = False
) -> tuple[Array, Array, Array]:
    """S5: the code's digits of code, rest and the sum of the gradients together, the digits below, and where codes clipped.

    aligned: the rest has the total's sign (sign and magnitude), else it is never negative (two's complement, the default).

    >>> import numpy as np
    >>> [int(x[0]) for x in carry(*map(np.array, ([3], [10], [51 + 31 - 2])), finer=6)]
    [4, 26, 0]
    """
    low, high = code_span(bits, False)
    total = (codes << finer) + rest + sums
    wanted = toward_zero(total, finer) if aligned else total >> finer
    made = wanted.clip(low, high)
    most = (1 << finer) - 1
    return made, (total - (made << finer)).clip(-most if aligned else 0 * most, most), made != wanted


def deployed(codes: Array, rest: Array, *, finer: Digits, bits: int = 8) -> Array:
    """The codes to ship: the totals at the nearest code, since a floor alone is half a step low on average."""
    return nearest((codes << finer) + rest, finer).clip(*code_span(bits, False))


def guard_bits(gradients: int) -> int:
    """Bits above those of one gradient in which so many of them add up without overflow.

    >>> [guard_bits(n) for n in (1, 2, 3, 8)]
    [0, 1, 2, 3]
    """
    return (gradients - 1).bit_length()
