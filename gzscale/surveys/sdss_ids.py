"""SDSS object identifiers, packed and unpacked; DR7's and DR8's kept apart.

Both releases pack the same fields into 64 bits, but give the same object
different numbers: an identifier of DR7 says where an object's image is, and
never which object of DR8 or later it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["ObjIds", "Release", "decode_objid", "encode_objid"]

#: Reruns below this belong to DR7 and earlier; DR8 and later are rerun 301.
FIRST_DR8_RERUN = 300

# (name, lowest bit, number of bits), SDSS "ObjIDs explained".
_FIELDS = (
    ("sky_version", 59, 4),
    ("rerun", 48, 11),
    ("run", 32, 16),
    ("camcol", 29, 3),
    ("first_field", 28, 1),
    ("field", 16, 12),
    ("number", 0, 16),
)


class Release(IntEnum):
    """Which family of data releases an identifier belongs to."""

    UNKNOWN = 0
    DR7 = 7
    """Up to DR7: sky version 0 (TARGET) or 1 (BEST), reruns below 300."""
    DR8 = 8
    """DR8 and later: sky version 2, rerun 301."""


@dataclass(frozen=True, slots=True)
class ObjIds:
    """Unpacked identifiers; every array is int64 with the same shape.

    Attributes
    ----------
    release
        A `Release` each: `Release.UNKNOWN` where the bits fit neither family.
    sky_version, rerun, run, camcol, first_field, field
        Where and how the object was imaged and reduced.
    number
        Of the object within its field, in its own release only.
    """

    release: NDArray[np.int64]
    sky_version: NDArray[np.int64]
    rerun: NDArray[np.int64]
    run: NDArray[np.int64]
    camcol: NDArray[np.int64]
    first_field: NDArray[np.int64]
    field: NDArray[np.int64]
    number: NDArray[np.int64]

    @property
    def locates(self) -> NDArray[np.bool_]:
        """Whether the identifier names an image: a known release, camera column and run."""
        return (self.release != Release.UNKNOWN) & (self.camcol >= 1) & (self.camcol <= 6) & (self.run > 0)


def decode_objid(objid: ArrayLike) -> ObjIds:
    """Unpack SDSS object identifiers.

    Parameters
    ----------
    objid
        int64, any shape.

    Returns
    -------
    ObjIds
        With `Release.UNKNOWN` where the identifier is of neither family; nothing is raised for those.

    References
    ----------
    https://www.sdss4.org/dr17/help/glossary/ (objID) and ``pydl.pydlutils.sdss.sdss_objid``.

    Examples
    --------
    >>> ids = decode_objid(1237661382772195474)
    >>> int(ids.run), int(ids.camcol), int(ids.field), int(ids.number), Release(int(ids.release)).name
    (3704, 3, 91, 146, 'DR8')
    """
    packed = np.asarray(objid, dtype=np.int64)
    parts = {name: (packed >> low) & ((1 << bits) - 1) for name, low, bits in _FIELDS}
    late = parts["rerun"] >= FIRST_DR8_RERUN
    release = np.full(packed.shape, Release.UNKNOWN, dtype=np.int64)
    release[(parts["sky_version"] <= 1) & ~late & (parts["rerun"] > 0)] = Release.DR7
    release[(parts["sky_version"] == 2) & late] = Release.DR8
    release[packed < 0] = Release.UNKNOWN
    return ObjIds(release=release, **parts)


def encode_objid(
    release: Release,
    rerun: ArrayLike,
    run: ArrayLike,
    camcol: ArrayLike,
    field: ArrayLike,
    number: ArrayLike,
    *,
    sky_version: ArrayLike | None = None,
    first_field: ArrayLike = 0,
) -> NDArray[np.int64]:
    """Pack SDSS object identifiers of one family of releases.

    Parameters
    ----------
    release
        `Release.DR7` or `Release.DR8`; all of the other arguments must belong to it.
    rerun, run, camcol, field, number, first_field
        Integers that broadcast against each other.
    sky_version
        By default 1 (BEST) for DR7 and 2 for DR8.

    Returns
    -------
    NDArray[np.int64]
        Of the broadcast shape.

    Raises
    ------
    ValueError
        If a value does not fit its bits, or rerun and sky version are not of that release.
    """
    if release not in (Release.DR7, Release.DR8):
        raise ValueError(f"release {release!r}: an identifier is made for DR7 or for DR8")
    if sky_version is None:
        sky_version = 2 if release is Release.DR8 else 1
    values = np.broadcast_arrays(
        *(np.asarray(v, np.int64) for v in (sky_version, rerun, run, camcol, first_field, field, number))
    )
    packed = np.zeros(values[0].shape, dtype=np.int64)
    for (name, low, bits), value in zip(_FIELDS, values, strict=True):
        if np.any((value < 0) | (value >= 1 << bits)):
            raise ValueError(f"{name} {value.min()}..{value.max()}: must be within 0..{(1 << bits) - 1}")
        packed |= value << low
    found = decode_objid(packed).release
    if np.any(found != release):
        wrong = int(np.flatnonzero(found.ravel() != release)[0])
        raise ValueError(
            f"sky version {values[0].ravel()[wrong]} with rerun {values[1].ravel()[wrong]} is not "
            f"{release.name}: DR7 has sky version 0 or 1 and reruns 1 to {FIRST_DR8_RERUN - 1}, DR8 "
            "and later sky version 2 and rerun 301; a DR7 number cannot be turned into a DR8 "
            "one, match by position instead"
        )
    return packed
