"""The VOTable header that makes a Parquet file a VOParquet file.

A data-less VOTable that describes the columns stands in the Parquet file's key-value
metadata [1]_; TOPCAT, STILTS and astropy take units, UCDs and descriptions from it.

References
----------
.. [1] M. Taylor et al., "Parquet in the VO", IVOA Note, 2025-01-14.
.. [2] F. Ochsenbein et al., "VOTable Format Definition Version 1.4", IVOA Recommendation, 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from gzscale.catalog.schema import Column

__all__ = ["votable_header", "votable_metadata"]

#: FIELD datatype of each dtype [2]_, Table 1. There is no unsigned 64-bit integer among them.
_DATATYPE = {
    "bool": "boolean",
    "float32": "float",
    "float64": "double",
    "int16": "short",
    "int32": "int",
    "int64": "long",
    "str": "unicodeChar",
    "uint8": "unsignedByte",
}


def votable_header(columns: Sequence[Column], name: str, description: str) -> str:
    """Return a data-less VOTable document, one FIELD a column in the same order.

    Parameters
    ----------
    columns
        Columns of the Parquet file.
    name, description
        Of the TABLE element.
    """
    root = ElementTree.Element("VOTABLE", {"version": "1.4", "xmlns": "http://www.ivoa.net/xml/VOTable/v1.3"})
    resource = ElementTree.SubElement(root, "RESOURCE")
    ElementTree.SubElement(resource, "COOSYS", {"ID": "icrs", "system": "ICRS"})
    table = ElementTree.SubElement(resource, "TABLE", {"name": name})
    ElementTree.SubElement(table, "DESCRIPTION").text = description
    for column in columns:
        attributes = {"name": column.name, "datatype": _DATATYPE[column.dtype]}
        if column.dtype == "str":
            attributes["arraysize"] = "*"
        if column.unit:
            attributes["unit"] = column.unit
        if column.ucd:
            attributes["ucd"] = column.ucd
        if column.ucd.startswith("pos.eq."):
            attributes["ref"] = "icrs"
        field = ElementTree.SubElement(table, "FIELD", attributes)
        ElementTree.SubElement(field, "DESCRIPTION").text = column.description
    ElementTree.indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def votable_metadata(columns: Sequence[Column], name: str, description: str) -> dict[str, str]:
    """Return the key-value metadata of a VOParquet file; arguments as `votable_header`."""
    return {
        "IVOA.VOTable-Parquet.version": "1.0",
        "IVOA.VOTable-Parquet.content": votable_header(columns, name, description),
    }
