"""How often images are opened, and how many different ones: each once is the goal."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Mapping

import numpy as np

__all__ = ["Openings", "openings_text"]


class Openings:
    """Counts openings of images by their names; takes 8 bytes an opening, and one that was found decoded.

    Names are told apart by 64 bits of their BLAKE2b hash: among 10 million images the chance that
    any two are taken for one is 3 in a million.
    """

    def __init__(self) -> None:
        self._digests = array("Q")
        self._taken = 0

    def add(self, names: Iterable[str], taken: Iterable[str] = ()) -> None:
        """Count the images of a partition.

        Parameters
        ----------
        names
            Those that it opens, each as often as it is opened.
        taken
            Those that it finds decoded by another partition.
        """
        self._count(names)
        before = len(self._digests)
        self._count(taken)
        self._taken += len(self._digests) - before

    def _count(self, names: Iterable[str]) -> None:
        for name in names:
            digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
            self._digests.append(int.from_bytes(digest, "little"))

    def to_dict(self) -> dict[str, int]:
        """Return the counts.

        Returns
        -------
        dict
            ``opened``, how often any image was decoded; ``distinct``, how many different ones there are; and
            where partitions share them ``taken``, how often one was found decoded.
        """
        distinct = np.unique(np.frombuffer(self._digests, np.uint64)).size if self._digests else 0
        counts = {"opened": len(self._digests) - self._taken, "distinct": int(distinct)}
        return counts | ({"taken": self._taken} if self._taken else {})


def openings_text(images: Mapping[str, int]) -> str:
    """Say in words how many images there are, and how often each is opened.

    Parameters
    ----------
    images
        As `Openings.to_dict` returns it.
    """
    opened, distinct = images["opened"], images["distinct"]
    if not distinct:
        return "none opened"
    shared = f", found decoded {images['taken']} times" if images.get("taken") else ""
    return f"{distinct} distinct, opened {opened} times ({opened / distinct:.2f} times each){shared}"
