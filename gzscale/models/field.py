"""The field that a bundle looks at: its side, and the rule for the scale of its pixels."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Protocol

__all__ = ["BundleGeometry", "Geometry", "same_field", "scale_rule"]


class Geometry(Protocol):
    """How a cutout is laid on the sky, as far as a bundle asks."""

    @property
    def size(self) -> int:
        """Side in pixels."""

    @property
    def scale(self) -> float | str:
        """Arcsec a pixel, or ``"0.08 * size"``: arcsec a pixel per arcsec of the object's size."""


@dataclass(frozen=True, slots=True)
class BundleGeometry:
    """The geometry that a bundle must be fed with. See `Geometry`."""

    size: int
    scale: float | str


def same_field(one: Geometry, other: Geometry) -> bool:
    """Tell whether two geometries have the same side and the same rule for their scale."""
    (tied, number), (tied_too, too) = scale_rule(one.scale), scale_rule(other.scale)
    return one.size == other.size and tied == tied_too and math.isclose(number, too, rel_tol=1e-6)


def scale_rule(scale: float | str) -> tuple[bool, float]:
    """Return whether a scale follows the object's size, and its number."""
    if isinstance(scale, str):
        match = re.fullmatch(r"\s*([0-9.eE+-]+)\s*\*\s*size\s*", scale)
        if match is None:
            raise ValueError(f"scale {scale!r}: a number of arcsec, or '<number> * size'")
        return True, float(match[1])
    return False, float(scale)
