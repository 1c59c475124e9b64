"""The columns of released redshifts, and what the bits of their flags say; see `gzscale.catalog.schema`."""

from __future__ import annotations

from enum import IntFlag

from gzscale.catalog.schema import Column

__all__ = ["REDSHIFT_COLUMNS", "RedshiftFlag"]


class RedshiftFlag(IntFlag):
    """Bits of ``z_flags``. A bit that was ever released keeps its meaning."""

    BAND_MISSING = 1
    """A band was not measured, or is 0 throughout."""
    NEGATIVE_FLUX = 2
    """The total flux in a measured band is not positive."""
    SATURATED = 4
    """A pixel is brighter than the survey measures well."""
    PARTLY_COVERED = 8
    """Less than 90 % of the cutout was measured in a band that is there."""
    EXTINCTION_UNKNOWN = 16
    """The catalog has no E(B-V): flux was not corrected."""
    FLAT_PDF = 32
    """The central 68 % are wider than half of the grid: the image says nothing of the redshift."""
    END_OF_GRID = 64
    """More than 5 % of the probability lies in the last 2 % of the grid: the redshift may be beyond."""
    UNUSUAL_FLUX = 128
    """Brighter or fainter in the reference band than nearly all galaxies that the network learnt."""

    @property
    def sentence(self) -> str:
        """What the bit says, in one sentence."""
        return _SENTENCES[self]


_SENTENCES = {
    RedshiftFlag.BAND_MISSING: "a band is missing",
    RedshiftFlag.NEGATIVE_FLUX: "a band has no positive flux",
    RedshiftFlag.SATURATED: "a pixel is saturated",
    RedshiftFlag.PARTLY_COVERED: "less than 90 % of the cutout is covered",
    RedshiftFlag.EXTINCTION_UNKNOWN: "the extinction is not known",
    RedshiftFlag.FLAT_PDF: "the PDF is flat",
    RedshiftFlag.END_OF_GRID: "the redshift may be beyond the grid",
    RedshiftFlag.UNUSUAL_FLUX: "brighter or fainter than what was learnt",
}

_NULL = "null where the PDF is flat, or the reference band is saturated or has no positive flux"


def _column(name: str, ucd: str, description: str) -> Column:
    return Column(name, "float32", "", ucd, description)


#: Redshifts: numbers that stand for the PDF, and what to beware of.
REDSHIFT_COLUMNS = (
    _column("z_mode", "src.redshift.phot", f"Most probable redshift (centre of the PDF's bin); {_NULL}"),
    _column("z_mean", "src.redshift.phot;stat.mean", f"Mean of the redshift's PDF; {_NULL}"),
    _column("z_median", "src.redshift.phot;stat.median", f"Median of the redshift's PDF; {_NULL}"),
    _column("z_low68", "src.redshift.phot;stat.min", f"16 % quantile of the redshift's PDF; {_NULL}"),
    _column("z_high68", "src.redshift.phot;stat.max", f"84 % quantile of the redshift's PDF; {_NULL}"),
    _column("z_std", "stat.stdev;src.redshift.phot", f"Standard deviation of the redshift's PDF; {_NULL}"),
    _column(
        "z_odds", "stat.probability;src.redshift.phot", f"Probability within 0.03 (1 + z) of z_mode; {_NULL}"
    ),
    Column(
        "z_flags",
        "int32",
        "",
        "meta.code.qual;src.redshift.phot",
        "Sum of bits: " + ", ".join(f"{flag.value} {flag.sentence}" for flag in RedshiftFlag),
    ),
)
