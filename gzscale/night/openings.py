"""How often images are opened, and how many different ones: each once is the goal."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Mapping

import numpy as np

__all__ = ["Openings", "openings_text"]


class Openings:
    """Counts openings of images by their names; takes 8 bytes an opening.

    Names are told apart by 64 bits of their BLAKE2b hash: among 10 million images the chance that
    any two are taken for one is 3 in a million.
    """

    def __init__(self) -> None:
        self._digests = array("Q")

    def add(self, names: Iterable[str]) -> None:
        """Count the images that a partition opens, each as often as it is opened."""
        for name in names:
            digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
            self._digests.append(int.from_bytes(digest, "little"))

    def to_dict(self) -> dict[str, int]:
        """Return ``opened``, how often any image was, and ``distinct``, how many different ones."""
        distinct = np.unique(np.frombuffer(self._digests, np.uint64)).size if self._digests else 0
        return {"opened": len(self._digests), "distinct": int(distinct)}


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
    return f"{distinct} distinct, opened {opened} times ({opened / distinct:.2f} times each)"
