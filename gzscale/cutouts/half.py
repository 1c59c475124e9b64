"""float32 to IEEE 754 binary16 in integer arithmetic that the compiler turns into SIMD.

Rounds to nearest, ties to even, as ``numpy.astype(numpy.float16)`` does, with one difference: a value beyond
the format's range becomes the largest finite one (65504) instead of infinity.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["to_half"]


@njit(cache=True, nogil=True, inline="always")
def to_half(values, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the binary16 bits of ``values`` (float32, shape (n,)) to ``out`` (uint16, shape (n,))."""
    bits = values.view(np.uint32)
    for i in range(len(bits)):
        word = bits[i]
        sign = (word >> np.uint32(16)) & np.uint32(0x8000)
        magnitude = word & np.uint32(0x7FFFFFFF)
        missing = magnitude > np.uint32(0x7F800000)
        magnitude = min(magnitude, np.uint32(0x477FE000))
        odd = (magnitude >> np.uint32(13)) & np.uint32(1)
        normal = (magnitude + np.uint32(0xC8000FFF) + odd) >> np.uint32(13)
        # Below 2**-14 the unit in the last place is 2**-24, whatever the exponent.
        small = np.uint32(np.int32(np.rint(np.float32(abs(values[i])) * np.float32(16777216.0))))
        half = normal if magnitude >= np.uint32(0x38800000) else small
        half = np.uint32(0x7E00) if missing else half
        out[i] = np.uint16(sign | half)
