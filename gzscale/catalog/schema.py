"""Column names, dtypes, units, UCDs and descriptions: said here and nowhere else.

Parquet field metadata, the VOTable header of the released catalogs, the table in
README and the report are made from these columns.

UCDs follow the IVOA UCD1+ controlled vocabulary, version 1.5.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BASE_COLUMNS", "HEALPIX_COLUMN", "Column"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a released table.

    Attributes
    ----------
    name
        As it stands in the table.
    dtype
        A NumPy dtype name: ``int64``, ``float64``, ``float32``, ``bool``, ``str``.
    unit
        VOUnit string, empty for a pure number.
    ucd
        UCD1+ word or words.
    description
        One sentence.
    """

    name: str
    dtype: str
    unit: str
    ucd: str
    description: str


#: Name of the HEALPix index that HATS sorts by (nested, order 29).
HEALPIX_COLUMN = "_healpix_29"

#: What every released table starts with.
BASE_COLUMNS = (
    Column(
        HEALPIX_COLUMN, "int64", "", "pos.healpix", "HEALPix index of the position, nested scheme, order 29"
    ),
    Column("object_id", "int64", "", "meta.id;meta.main", "Identifier of the object in the input catalog"),
    Column("ra", "float64", "deg", "pos.eq.ra;meta.main", "Right ascension (ICRS) of the input catalog"),
    Column("dec", "float64", "deg", "pos.eq.dec;meta.main", "Declination (ICRS) of the input catalog"),
)
