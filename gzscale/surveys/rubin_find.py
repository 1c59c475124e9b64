"""Which coadd patches the stamps of a table of objects overlap, and which of them comes first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gzscale.errors import Reason
from gzscale.surveys.rubin_skymap import Pairs, Regions
from gzscale.surveys.tan import unit_vectors

__all__ = ["Dataset", "PatchOverlaps", "PatchSource", "find_patches"]

#: Depths that differ by less [degrees] are equal: neighbours may share an edge of their tract.
_EQUAL = 1e-7


@dataclass(frozen=True, slots=True)
class Dataset:
    """One coadd image that exists, or is said to.

    Attributes
    ----------
    location
        Path or URL of its file.
    version
        What changes when the dataset is made anew; may be empty.
    """

    location: str
    version: str


class PatchSource(Protocol):
    """Where tracts, patches and coadd images are looked up; safe to use from several threads."""

    @property
    def skymap(self) -> str:
        """The skymap's name."""
        ...

    def check(self) -> None:
        """Find that what the settings name exists; `ConfigError` with what there is instead."""
        ...

    def tracts(self) -> Regions:
        """Return every tract of the skymap."""
        ...

    def patches(self, tracts: Sequence[int]) -> Regions:
        """Return the patches of some tracts."""
        ...

    def datasets(self, tract: int) -> Mapping[tuple[int, str], Dataset]:
        """Return the coadd images of a tract by patch and band."""
        ...

    def describe(self, tract: int, patch: int, band: str) -> str:
        """Name a dataset, for messages."""
        ...


@dataclass(frozen=True, slots=True)
class PatchOverlaps:
    """Pairs of objects and patches.

    Attributes
    ----------
    tract, patch
        The patches, int64, shape (n,), sorted.
    row, place
        Row of the objects' table and position in ``patch`` of each pair, int64, shape (m,).
    rank
        0 for the object's own patch; 1, 2 ... for those that fill in where the stamp reaches beyond
        it, deepest first; int64, shape (m,).
    lost
        Row -> (reason, one sentence) of objects in no patch.
    """

    tract: NDArray[np.int64]
    patch: NDArray[np.int64]
    row: NDArray[np.int64]
    place: NDArray[np.int64]
    rank: NDArray[np.int64]
    lost: dict[int, tuple[Reason, str]] = field(default_factory=dict)


def find_patches(
    ra: NDArray[np.float64],
    dec: NDArray[np.float64],
    radius: NDArray[np.float64],
    source: PatchSource,
    bands: str,
    skymap: str,
) -> PatchOverlaps:
    """Find the patches that stamps overlap.

    An object's own patch is the one whose inner region holds it: of the tracts that hold it, the one
    that it lies deepest in, and there the deepest patch. Inner regions end half way through
    the overlap of neighbouring outer regions, where both are equally deep. A patch of which there is an
    image in some band goes before one without. Only where a stamp reaches beyond its own patch do
    neighbours, of its own tract first, fill in.

    Parameters
    ----------
    ra, dec
        Degrees, shape (n,).
    radius
        Half the stamps' diagonals in degrees, shape (n,).
    source
        Where tracts, patches and images are looked up.
    bands
        Bands whose images count.
    skymap
        The skymap's name, for messages.

    Returns
    -------
    PatchOverlaps
        BAD_COORDINATES or OFF_FOOTPRINT for the rows that lie in no patch.
    """
    usable = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90))
    lost = {
        int(row): (Reason.BAD_COORDINATES, f"ra {ra[row]}, dec {dec[row]} degrees")
        for row in np.setdiff1d(np.arange(len(ra)), usable)
    }
    points, margin = unit_vectors(ra[usable], dec[usable]), radius[usable]
    tracts = source.tracts()
    tract_pairs = tracts.search(points, margin)
    wanted = np.unique(tracts.tract[tract_pairs.region])
    patches = source.patches(wanted.tolist())
    pairs = patches.search(points, margin)
    with_images = _with_images(patches, source, bands)
    tract_depth = _tract_depth(pairs, patches, tract_pairs, tracts)
    home = _homes(pairs, patches, with_images, tract_depth)

    found = np.zeros(len(usable), dtype=bool)
    found[pairs.position[home]] = True
    in_tract = np.zeros(len(usable), dtype=bool)
    in_tract[tract_pairs.position[tract_pairs.depth >= 0]] = True
    for at in np.flatnonzero(~found).tolist():
        row = int(usable[at])
        lost[row] = (
            Reason.OFF_FOOTPRINT,
            f"ra {ra[row]:.6f}, dec {dec[row]:.6f} lies in no {'patch' if in_tract[at] else 'tract'} "
            f"of skymap {skymap!r}",
        )
    chosen, rank = _with_neighbours(pairs, patches, home, tract_depth, margin)
    used, place = np.unique(pairs.region[chosen], return_inverse=True)
    order = np.lexsort((patches.patch[used], patches.tract[used]))
    position = np.empty(len(used), np.int64)
    position[order] = np.arange(len(used))
    return PatchOverlaps(
        tract=patches.tract[used[order]],
        patch=patches.patch[used[order]],
        row=usable[pairs.position[chosen]],
        place=position[place],
        rank=rank,
        lost=dict(sorted(lost.items())),
    )


def _with_images(patches: Regions, source: PatchSource, bands: str) -> NDArray[np.bool_]:
    """Tell of which patches there is an image in at least one band."""
    known = set()
    for tract in np.unique(patches.tract).tolist():
        known |= {(tract, patch) for patch, band in source.datasets(tract) if band in bands}
    keys = zip(patches.tract.tolist(), patches.patch.tolist(), strict=True)
    return np.fromiter((key in known for key in keys), bool, len(patches))


def _tract_depth(pairs: Pairs, patches: Regions, tract_pairs: Pairs, tracts: Regions) -> NDArray[np.float64]:
    """Return how deep each pair's position lies in the tract of its patch, degrees."""
    order = np.argsort(tracts.tract, kind="stable")
    row = order[np.searchsorted(tracts.tract, patches.tract[pairs.region], sorter=order)]
    size = np.int64(len(tracts))
    # Tract pairs are sorted by position and region, so their keys ascend.
    keys = tract_pairs.position * size + tract_pairs.region
    wanted = pairs.position * size + row
    at = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    depth = np.full(len(wanted), -np.inf)
    if len(keys):
        same = keys[at] == wanted
        depth[same] = tract_pairs.depth[at[same]]
    return depth


def _homes(
    pairs: Pairs, patches: Regions, with_images: NDArray[np.bool_], tract_depth: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return, for each position that lies in a patch, the pair of its own patch."""
    inside = np.flatnonzero(pairs.depth >= 0)
    region = pairs.region[inside]

    def deepest(depth: NDArray[np.float64]) -> NDArray[np.float64]:
        return -np.rint(depth[inside] / _EQUAL)

    order = np.lexsort(
        (
            patches.patch[region],
            deepest(pairs.second),
            deepest(pairs.depth),
            patches.tract[region],
            deepest(tract_depth),
            ~with_images[region],
            pairs.position[inside],
        )
    )
    inside = inside[order]
    first = np.unique(pairs.position[inside], return_index=True)[1]
    return inside[first]


def _with_neighbours(
    pairs: Pairs,
    patches: Regions,
    home: NDArray[np.int64],
    tract_depth: NDArray[np.float64],
    margin: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs that are used, the homes and those that fill in, and their ranks."""
    home_of = np.full(len(margin), -1, np.int64)
    home_of[pairs.position[home]] = home
    own = home_of[pairs.position]
    reaching = np.flatnonzero((own >= 0) & (pairs.depth[own] < margin[pairs.position]))
    own = own[reaching]
    same = patches.tract[pairs.region[reaching]] == patches.tract[pairs.region[own]]
    beyond = tract_depth[own] < margin[pairs.position[reaching]]
    fills = (reaching != own) & (same | beyond)
    reaching, same = reaching[fills], same[fills]
    order = np.lexsort((pairs.region[reaching], -pairs.depth[reaching], ~same, pairs.position[reaching]))
    reaching = reaching[order]
    position = pairs.position[reaching]
    starts = np.searchsorted(position, position)
    rank = 1 + np.arange(len(reaching)) - starts
    chosen = np.concatenate([home, reaching])
    return chosen, np.concatenate([np.zeros(len(home), np.int64), rank])
