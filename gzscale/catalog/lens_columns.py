"""What a released catalog of lens candidates says of each object, and the meaning of its flags."""

from __future__ import annotations

from enum import IntFlag

from gzscale.catalog.schema import Column

__all__ = ["LENS_COLUMNS", "LensFlag"]


class LensFlag(IntFlag):
    """Why a lens score is missing, or is worth less than others. Bits keep their meaning."""

    HALF_COVERED = 1
    """Less than half of the cutout is measured in one of the bands: there is no score."""
    PARTLY_COVERED = 2
    """Less than 95 % of the cutout is measured in one of the bands."""
    SATURATED = 4
    """A pixel is as bright as saturated ones are: there is no score."""
    NO_LIGHT = 8
    """No pixel is above 0 in one of the bands, or their sum is clearly below: there is no score."""
    NOISY = 16
    """The noise is more than twice that of the images learnt, or not known, in one of the bands."""


_MEANINGS = {
    LensFlag.HALF_COVERED: "less than half covered, no score",
    LensFlag.PARTLY_COVERED: "less than 95 % covered",
    LensFlag.SATURATED: "saturated, no score",
    LensFlag.NO_LIGHT: "no light or negative flux in a band, no score",
    LensFlag.NOISY: "noise unknown or over twice the usual",
}

_SCORE = Column(
    "lens_score",
    "float32",
    "",
    "stat.probability",
    "Probability that it is a strong lens, at the prevalence that the model's card states (1 in 1000)",
)
_RADIUS = Column(
    "einstein_radius",
    "float32",
    "arcsec",
    "phys.angSize",
    "Einstein radius if it is a lens: median of its probability",
)

#: Columns of the task ``lenses``.
LENS_COLUMNS = (
    _SCORE,
    _RADIUS,
    Column(
        "einstein_radius_error",
        "float32",
        "arcsec",
        "stat.error;phys.angSize",
        "Half of the central 68 % interval of the Einstein radius if it is a lens",
    ),
    Column(
        "lens_flags",
        "int32",
        "",
        "meta.code.qual",
        "Bit mask: " + ", ".join(f"{flag.value} {_MEANINGS[flag]}" for flag in LensFlag),
    ),
)
