"""The public image archive's table of names: which image shows which galaxy of which sample.

A galaxy of Stripe 82 has an image in each sample that it belongs to (``original``, ``stripe82``,
``stripe82_coadd_1``, ``stripe82_coadd_2``), and was voted on in each by itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from gzscale.catalog.canonical import to_names
from gzscale.catalog.locate import locate_table
from gzscale.catalog.source import Source
from gzscale.errors import CatalogError
from gzscale.training.labels import Refusal

__all__ = ["SAMPLE", "Mapping", "batches", "read_mapping", "texts"]

#: Column of the sample, in the mapping and in tables of votes.
SAMPLE = "sample"
#: The sample that is meant where a table of votes does not say.
_USUAL = "original"
#: Rows of a batch.
_ROWS = 8192


@dataclass(frozen=True)
class Mapping:
    """Names of images.

    Attributes
    ----------
    images
        Identifier of a galaxy -> sample and name of each of its images, in the table's order.
    samples
        Names of the samples; empty where the table does not say them.
    """

    images: dict[str, list[tuple[str, str]]]
    samples: frozenset[str]

    def find(self, galaxy: str, sample: str | None) -> str | Refusal:
        """Return the name of a galaxy's image, or why it has none.

        Parameters
        ----------
        galaxy
            Its identifier.
        sample
            In which it was voted on; the beginning of one will do where no sample has that name, for the
            published table 5 of Willett et al. 2013 has ten characters of it. None where the votes do not
            say: then it is the original, or the first of the mapping.
        """
        every = self.images.get(galaxy)
        if not every:
            return Refusal.NO_IMAGE
        if not self.samples or not sample:
            return next((name for known, name in every if known == _USUAL), every[0][1])
        alike = [name for known, name in every if known == sample]
        if sample not in self.samples:
            alike = [name for known, name in sorted(every) if known.startswith(sample)]
        return alike[0] if alike else Refusal.OTHER_SAMPLE


def read_mapping(path: str | Path) -> Mapping:
    """Read the names of images from a table ``objid``, ``asset_id`` and, if it has one, ``sample``.

    Raises
    ------
    CatalogError
        If a column is missing.
    """
    images: dict[str, list[tuple[str, str]]] = {}
    known: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="gzscale-labels-") as scratch:
        source = locate_table(str(path), "auto", Path(scratch))[2]
        needed = ("objid", "asset_id")
        missing = [name for name in needed if name not in source.names]
        if missing:
            raise CatalogError(
                f"{path}: no column {', '.join(missing)}; a mapping has objid, sample, asset_id"
            )
        has_samples = SAMPLE in source.names
        for batch in batches(source, (*needed, *((SAMPLE,) if has_samples else ()))):
            galaxies, names = texts(batch, "objid"), texts(batch, "asset_id")
            samples = texts(batch, SAMPLE) if has_samples else [None] * len(names)
            for galaxy, name, sample in zip(galaxies, names, samples, strict=True):
                if galaxy is not None and name is not None:
                    images.setdefault(galaxy, []).append((sample or "", name))
            known.update(sample for sample in samples if sample)
    return Mapping(images, frozenset(known))


def batches(source: Source, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a table, some at a time."""
    return (batch for batch in source.batches(columns, _ROWS) if batch.num_rows)


def texts(batch: pa.RecordBatch, column: str) -> list[str | None]:
    """Return identifiers as text, None where there is none."""
    found: list[str | None] = to_names(batch.column(column), column).to_pylist()
    return found
