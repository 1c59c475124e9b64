import io

import numpy as np
from astropy.io.votable import parse

from gzscale.catalog.schema import MORPHOLOGY_COLUMNS, QUARANTINE_COLUMNS, release_columns
from gzscale.catalog.votable import votable_header, votable_metadata


def test_the_header_is_a_valid_votable_that_says_what_the_columns_say():
    columns = release_columns(MORPHOLOGY_COLUMNS)
    text = votable_header(columns, "morphology", "Votes < & > fractions")
    document = parse(io.BytesIO(text.encode()), verify="exception")
    table = document.get_first_table()
    assert table.name == "morphology"
    assert table.description == "Votes < & > fractions"
    assert [field.name for field in table.fields] == [column.name for column in columns]
    for field, column in zip(table.fields, columns, strict=True):
        assert str(field.unit or "") == column.unit
        assert field.ucd == column.ucd
        assert str(field.description) == column.description
        # Strings of any length are Python objects to astropy.
        assert field.converter.format == ("O" if column.dtype == "str" else np.dtype(column.dtype).str[1:])
    assert table.get_field_by_id_or_name("ra").ref == "icrs"
    assert "<DATA" not in text


def test_strings_are_of_any_length():
    text = votable_header(QUARANTINE_COLUMNS, "quarantine", "What was not done")
    field = parse(io.BytesIO(text.encode()), verify="exception").get_first_table().fields[5]
    assert (field.name, field.datatype, field.arraysize) == ("reason", "unicodeChar", "*")


def test_the_metadata_has_the_keys_of_the_note():
    metadata = votable_metadata(QUARANTINE_COLUMNS, "a", "b")
    assert metadata["IVOA.VOTable-Parquet.version"] == "1.0"
    assert metadata["IVOA.VOTable-Parquet.content"].startswith("<?xml")
