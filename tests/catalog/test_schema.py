import pyarrow as pa
import pytest
from astropy.io.votable import ucd
from astropy.units import Unit

from gzscale.catalog.schema import (
    BASE_COLUMNS,
    COVERAGE_COLUMN,
    INDEX_COLUMNS,
    MORPHOLOGY_COLUMNS,
    MORPHOLOGY_SUMMARY,
    QUARANTINE_COLUMNS,
    Column,
    arrow_schema,
    markdown_table,
    release_columns,
)
from gzscale.models.votes import ANSWERS

EVERY = (*BASE_COLUMNS, COVERAGE_COLUMN, *MORPHOLOGY_COLUMNS, *INDEX_COLUMNS, *QUARANTINE_COLUMNS)


@pytest.mark.parametrize("column", EVERY, ids=lambda column: column.name)
def test_columns_are_described_in_the_fields_vocabularies(column):
    assert ucd.check_ucd(column.ucd, check_controlled_vocabulary=True)
    assert Unit(column.unit, format="vounit") is not None
    assert len(column.description.split()) >= 4


def test_the_vote_fractions_have_the_released_names_of_galaxy_zoo_2():
    columns = [column for column in MORPHOLOGY_COLUMNS if column.name.endswith("_fraction")]
    names = [column.name for column in columns]
    assert len(names) == len(set(names)) == 37
    assert names[0] == "t01_smooth_or_features_a01_smooth_fraction"
    assert names[24] == "t08_odd_feature_a38_dust_lane_fraction"
    assert names[36] == "t11_arms_number_a37_cant_tell_fraction"
    assert {column.dtype for column in columns} == {"float32"}
    assert columns[20].description.endswith(
        "asked 'Is the odd feature a ring, or is the galaxy disturbed or irregular?' "
        "who would answer 'disturbed'"
    )
    assert columns[36].description.endswith("'can't tell'")
    assert columns[31].description.endswith("'1'")


def test_the_summary_stands_for_every_column():
    spelled = {column.name.replace("<answer>", answer) for column in MORPHOLOGY_SUMMARY for answer in ANSWERS}
    assert spelled == {column.name for column in MORPHOLOGY_COLUMNS}


def test_an_arrow_schema_carries_units_ucds_and_descriptions():
    schema = arrow_schema(release_columns(MORPHOLOGY_COLUMNS))
    assert len(schema) == 4 + 1 + 3 + 5 * 37
    assert schema.field("ra").type == pa.float64()
    assert schema.field("ra").metadata == {
        b"unit": b"deg",
        b"ucd": b"pos.eq.ra;meta.main",
        b"description": b"Right ascension (ICRS) of the input catalog",
    }
    assert b"unit" not in schema.field("coverage").metadata


def test_a_schema_refuses_a_name_twice_and_an_unknown_dtype():
    with pytest.raises(ValueError, match=r"\['ra'\] occur more than once"):
        arrow_schema((*BASE_COLUMNS, BASE_COLUMNS[2]))
    with pytest.raises(ValueError, match="complex64"):
        arrow_schema([Column("z", "complex64", "", "src.redshift", "Of no use")])


def test_the_markdown_table_has_a_line_a_column():
    text = markdown_table([BASE_COLUMNS[2], Column("a", "bool", "", "meta.code", "Either | or")])
    lines = text.splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| `ra` | float64 | deg | `pos.eq.ra;meta.main` | Right ascension")
    assert lines[3].endswith(r"Either \| or |")
