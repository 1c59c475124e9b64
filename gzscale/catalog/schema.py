"""Column names, dtypes, units, UCDs and descriptions: said here and nowhere else.

Parquet field metadata, the VOTable header of the released catalogs, the table in
README and the report are made from these columns. The names of the 37 answers of
Galaxy Zoo 2 come from its tree, `gzscale.models.votes`.

Units are VOUnits 1.1 strings; UCDs follow the IVOA UCD1+ controlled vocabulary,
version 1.5.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from gzscale.models.votes import ANSWERS, QUESTIONS

__all__ = [
    "BASE_COLUMNS",
    "COVERAGE_COLUMN",
    "DEBIASED_COLUMNS",
    "HEALPIX_COLUMN",
    "HEALPIX_ORDER",
    "ID_COLUMN",
    "INDEX_COLUMNS",
    "MORPHOLOGY_COLUMNS",
    "MORPHOLOGY_SUMMARY",
    "QUARANTINE_COLUMNS",
    "QUARANTINE_SCHEMA",
    "Column",
    "arrow_schema",
    "markdown_table",
    "release_columns",
]


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


#: Name of the HEALPix index that HATS sorts by, and its order (nested scheme).
HEALPIX_COLUMN = "_healpix_29"
HEALPIX_ORDER = 29

#: Name of the identifier, by which the id index is sorted.
ID_COLUMN = "object_id"

#: What every released table starts with.
BASE_COLUMNS = (
    Column(
        HEALPIX_COLUMN, "int64", "", "pos.healpix", "HEALPix index of the position, nested scheme, order 29"
    ),
    Column(ID_COLUMN, "int64", "", "meta.id;meta.main", "Identifier of the object in the input catalog"),
    Column("ra", "float64", "deg", "pos.eq.ra;meta.main", "Right ascension (ICRS) of the input catalog"),
    Column("dec", "float64", "deg", "pos.eq.dec;meta.main", "Declination (ICRS) of the input catalog"),
)

#: How much of what the network saw was measured.
COVERAGE_COLUMN = Column(
    "coverage",
    "float32",
    "",
    "stat.filling;instr.pixel",
    "Fraction of the cutout's pixels that images covered, the smallest over the bands that were used",
)

#: The answers whose wording does not follow from their names.
_WORDING = {"cant tell": "can't tell", "cigar shaped": "cigar-shaped"}


#: What is said of each answer: ending of the column's name -> dtype, first word of the UCD, description.
_OF_EACH_ANSWER = {
    "fraction": (
        "float32",
        "stat.probability",
        "Predicted fraction of the volunteers asked {question} who would answer {answer}",
    ),
    "std": (
        "float32",
        "stat.stdev",
        "Standard deviation of that fraction: {answer} to {question}, by very many volunteers",
    ),
    "joint": (
        "float32",
        "stat.probability",
        "Predicted fraction of all volunteers who would be asked {question} and answer {answer}",
    ),
    "joint_std": (
        "float32",
        "stat.stdev",
        "Standard deviation of that fraction of all volunteers, were they very many: {answer} to {question}",
    ),
    "clean": (
        "bool",
        "meta.code.qual",
        "Whether {answer} to {question} is certain enough for a clean sample",
    ),
    "debiased": (
        "float32",
        "stat.probability",
        "That fraction of {answer} to {question}, corrected for what distance hides",
    ),
}
#: Those that a prediction has by itself; debiased ones need redshifts and a sample.
_PREDICTED = ("fraction", "std", "joint", "joint_std", "clean")


def _answer_column(
    ending: str, name: str, question: str, answer: str, kind: str = "src.morph.type"
) -> Column:
    """Describe what is said of one answer (Willett et al. 2013, MNRAS 435, 2835, Table 2)."""
    dtype, word, text = _OF_EACH_ANSWER[ending]
    return Column(
        f"{name}_{ending}", dtype, "", f"{word};{kind}", text.format(question=question, answer=answer)
    )


def _columns_of(ending: str) -> tuple[Column, ...]:
    columns = []
    for question in QUESTIONS:
        for name in ANSWERS[question.answers]:
            words = re.sub(r"^t\d\d_.*_a\d\d_", "", name).replace("_", " ")
            kind = "src.class.starGalaxy" if words == "star or artifact" else "src.morph.type"
            answer = f"'{_WORDING.get(words, words)}'"
            columns.append(_answer_column(ending, name, f"'{question.text}'", answer, kind))
    return tuple(columns)


_OF_THE_GALAXY = (
    Column(
        "gz2_class",
        "str",
        "",
        "src.morph.type",
        "Galaxy Zoo 2's class string, from the most voted answers down the tree",
    ),
    Column(
        "unlikeness",
        "float32",
        "",
        "stat.value",
        "Distance of the image from those the network learnt; 1 at the limit of what is usual",
    ),
    Column(
        "unlike_training",
        "bool",
        "",
        "meta.code.qual",
        "Whether the image is unlike those the network learnt",
    ),
)

#: Morphology: of the galaxy, then of each answer in the order and with the names of Galaxy Zoo 2's tree.
MORPHOLOGY_COLUMNS = (
    *_OF_THE_GALAXY,
    *(column for ending in _PREDICTED for column in _columns_of(ending)),
)

#: What ``gzscale debias`` adds to a table of morphology, or puts in the place of the table's own.
DEBIASED_COLUMNS = (
    Column(
        "gz2_class",
        "str",
        "",
        "src.morph.type",
        "Galaxy Zoo 2's class string, from the largest debiased fractions down the tree",
    ),
    *_columns_of("debiased"),
    *_columns_of("clean"),
)

#: The same in short, with ``<answer>`` for the 37 names.
MORPHOLOGY_SUMMARY = (
    *_OF_THE_GALAXY,
    *(_answer_column(ending, "<answer>", "the question", "the answer") for ending in _PREDICTED),
)

#: The id index of a release: where in the catalog an object is, sorted by identifier.
INDEX_COLUMNS = (
    BASE_COLUMNS[1],
    BASE_COLUMNS[0],
    Column("Norder", "uint8", "", "meta.id.part", "HEALPix order of the catalog file that has the object"),
    Column("Dir", "int64", "", "meta.id.part", "Npix rounded down to a multiple of 10000"),
    Column("Npix", "int64", "", "pos.healpix", "HEALPix pixel of the catalog file that has the object"),
)

#: One row for each object that was not done.
QUARANTINE_COLUMNS = (
    Column(ID_COLUMN, "int64", "", "meta.id", "Identifier in the input catalog, null where it has none"),
    Column("ra", "float64", "deg", "pos.eq.ra", "Right ascension (ICRS) as the input catalog has it"),
    Column("dec", "float64", "deg", "pos.eq.dec", "Declination (ICRS) as the input catalog has it"),
    Column("stage", "str", "", "meta.code", "Stage that gave the object up: catalog, cut or predict"),
    Column("task", "str", "", "meta.code", "Geometry or task that it was given up for, empty for all"),
    Column("reason", "str", "", "meta.code.error", "Reason code, a name of gzscale.errors.Reason"),
    Column("detail", "str", "", "meta.note", "What happened, with the file and the numbers"),
)

_ARROW = {
    "bool": pa.bool_(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "str": pa.string(),
    "uint8": pa.uint8(),
}


def release_columns(task_columns: Iterable[Column]) -> tuple[Column, ...]:
    """Return all columns of a task's released catalog: the base, its coverage, then its own."""
    return (*BASE_COLUMNS, COVERAGE_COLUMN, *task_columns)


def arrow_schema(columns: Sequence[Column]) -> pa.Schema:
    """Return the Arrow schema of a table.

    Each field carries the metadata keys ``unit`` (left out where there is none), ``ucd`` and
    ``description``, as UTF-8; Parquet files keep them in their ``ARROW:schema``.

    Raises
    ------
    ValueError
        If a name occurs twice or a dtype is not one that a released table may have.
    """
    names = [column.name for column in columns]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"columns {twice} occur more than once")
    return pa.schema([_field(column) for column in columns])


def _field(column: Column) -> pa.Field:
    if column.dtype not in _ARROW:
        raise ValueError(f"column {column.name}: dtype {column.dtype!r} is not one of {sorted(_ARROW)}")
    metadata = {"unit": column.unit, "ucd": column.ucd, "description": column.description}
    return pa.field(
        column.name, _ARROW[column.dtype], metadata={key: text for key, text in metadata.items() if text}
    )


#: `QUARANTINE_COLUMNS` for Arrow.
QUARANTINE_SCHEMA = arrow_schema(QUARANTINE_COLUMNS)


def markdown_table(columns: Iterable[Column]) -> str:
    """Return the columns as a Markdown table, one line a column, for README and model cards."""
    lines = ["| Column | Type | Unit | UCD | Description |", "|---|---|---|---|---|"]
    for column in columns:
        cells = (f"`{column.name}`", column.dtype, column.unit, f"`{column.ucd}`", column.description)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
