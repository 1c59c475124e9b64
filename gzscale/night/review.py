"""The review list of a release: the best candidates of a task over the whole night, and what to judge by.

Ranks come from one pass over the partitions that keeps no more than the list; pixels are read partition by
partition and wait on disk, so that memory does not grow with the catalog.
"""

from __future__ import annotations

import heapq
import io
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image as Picture

from gzscale.catalog.pixels import Partition
from gzscale.catalog.schema import BASE_COLUMNS, Column, arrow_schema
from gzscale.config import NightConfig
from gzscale.cutouts.store import read_chosen_cutouts
from gzscale.errors import LedgerError
from gzscale.models.bundle import load_bundle
from gzscale.models.engine import Engine
from gzscale.models.observation import Observation
from gzscale.night.answers import done_column
from gzscale.night.contact import picture_of
from gzscale.night.ledger import Ledger
from gzscale.night.origins import cutouts_prefix, location_of
from gzscale.night.planned import Plan
from gzscale.night.tables import read_parquet
from gzscale.storage import Storage
from gzscale.tasks.base import Ranked, Task

__all__ = ["RANK_COLUMN", "evidence_picture", "list_length", "write_review"]

RANK_COLUMN = Column("rank", "int64", "", "meta.number", "Place on the list, from 1: the highest score first")
#: What stands beside each candidate's numbers.
_BANDS = pa.field(
    "bands", pa.string(), metadata={"ucd": "meta.code", "description": "Bands of the cutout, in its order"}
)
#: Rows of a row group: their pixels are in memory together.
_BLOCK = 64


@dataclass(frozen=True, order=True)
class _Candidate:
    """One object; the order is that of the list from its end: low scores first, of equals the larger id."""

    score: float
    minus_id: int
    partition: Partition

    @property
    def object_id(self) -> int:
        return -self.minus_id


def list_length(config: NightConfig, task: Task, objects: int) -> int:
    """Return how many candidates of a task are to be looked through; 0 for a task without such a list.

    Parameters
    ----------
    config
        The night's configuration: ``tasks.<task>.review`` and ``review_least``.
    task
        The task.
    objects
        Objects that it has answered for.
    """
    if not isinstance(task, Ranked):
        return 0
    own = config.tasks[task.name]
    share = task.review if own.review is None else own.review
    if share == 0:
        return 0
    return min(objects, max(own.review_least, math.ceil(share * objects)))


def write_review(config: NightConfig, plan: Plan, storage: Storage, task: Ranked, length: int) -> bytes:
    """Return a review list as the bytes of a Parquet file.

    Parameters
    ----------
    config
        The night's configuration.
    plan
        Its plan; every partition is committed.
    storage
        The night's output.
    task
        Whose candidates.
    length
        How many at most.

    Returns
    -------
    bytes
        One row a candidate: rank, position, the task's columns; ``bands`` and ``cutout``, nanomaggies a pixel
        in that order of band, row (to the north) and column (to the west); ``evidence``, the map whose mean
        is the logit, or the mean of several networks', rows to the north, over the central part they look at;
        ``picture``, a PNG of the cutout in colours; ``evidence_picture``, one of the map.

    Raises
    ------
    LedgerError
        If a partition is not committed.
    """
    chosen = _choose(plan, storage, task, length)
    ranks = {candidate.object_id: place for place, candidate in enumerate(chosen)}
    with tempfile.TemporaryDirectory(prefix="gzscale-review-") as folder:
        gathered = _Gathered(Path(folder), len(chosen))
        for partition in sorted({candidate.partition for candidate in chosen}, key=lambda item: item.path):
            mine = [candidate for candidate in chosen if candidate.partition == partition]
            gathered.take(config, storage, task, partition, mine, ranks)
        sink = io.BytesIO()
        with pq.ParquetWriter(sink, gathered.schema(task), compression="zstd") as writer:
            for block in gathered.blocks(config, task):
                writer.write_table(block)
        return sink.getvalue()


def _choose(plan: Plan, storage: Storage, task: Ranked, length: int) -> list[_Candidate]:
    """Return the best candidates of all partitions, the best first."""
    heap: list[_Candidate] = []
    columns = ["object_id", done_column(task.name), task.ranked_by]
    for item in plan.partitions:
        table = read_parquet(storage, f"predictions/{item.partition.path}.parquet", columns)
        scores = table[task.ranked_by].to_numpy(zero_copy_only=False).astype(np.float64)
        ids = table["object_id"].to_numpy()
        # More of one partition than the list has never are on it.
        rows = np.flatnonzero(np.isfinite(scores))
        for row in rows[np.lexsort((ids[rows], -scores[rows]))[:length]]:
            candidate = _Candidate(float(scores[row]), -int(ids[row]), item.partition)
            if len(heap) < length:
                heapq.heappush(heap, candidate)
            elif candidate > heap[0]:
                heapq.heapreplace(heap, candidate)
            else:
                break
    return sorted(heap, reverse=True)


class _Gathered:
    """Rows of the list as they come, partition by partition; pixels are on disk."""

    def __init__(self, folder: Path, count: int) -> None:
        self.count = count
        self.bands = ""
        self._folder = folder
        self._rows: list[pa.Table] = []
        self._cutouts: NDArray[np.float16] | None = None
        self._scale = np.zeros(count)
        self._noise = np.zeros((0, 0), np.float32)

    def take(
        self,
        config: NightConfig,
        storage: Storage,
        task: Ranked,
        partition: Partition,
        candidates: list[_Candidate],
        ranks: dict[int, int],
    ) -> None:
        """Take the candidates of one partition."""
        ids = np.array([candidate.object_id for candidate in candidates])
        record = Ledger(storage).read("cut", partition)
        if record is None:
            raise LedgerError(f"{partition.path}: its cutouts are not committed; run the night again")
        table = read_parquet(storage, f"predictions/{partition.path}.parquet")
        place = {int(value): row for row, value in enumerate(table["object_id"].to_pylist())}
        rows = table.take([place[int(value)] for value in ids])
        where = np.array([ranks[int(value)] for value in ids])
        names = [column.name for column in (*BASE_COLUMNS, *task.columns)]
        self._rows.append(rows.select(names).add_column(0, "rank", pa.array(where + 1)))
        files = {key: (str(value[0]), int(value[1])) for key, value in record.files.items()}
        geometry = config.tasks[task.name].geometry
        cutouts = read_chosen_cutouts(storage, cutouts_prefix(partition), geometry, ids, files)
        index = {int(value): row for row, value in enumerate(cutouts.object_id)}
        chosen = np.array([index[int(value)] for value in ids])
        images, self.bands = cutouts.images[chosen], cutouts.bands
        if self._cutouts is None:
            shape = (self.count, *images.shape[1:])
            self._cutouts = np.memmap(self._folder / "cutouts", np.float16, "w+", shape=shape)
            self._noise = np.zeros((self.count, len(self.bands)), np.float32)
        self._cutouts[where], self._noise[where] = images, cutouts.noise[chosen]
        self._scale[where] = cutouts.scale[chosen]

    def schema(self, task: Ranked) -> pa.Schema:
        """Return the schema of the list."""
        plain = arrow_schema((RANK_COLUMN, *BASE_COLUMNS, *task.columns))
        pixels = [
            _BANDS,
            _field("scale", pa.float64(), "arcsec", "instr.pixel", "Side of a pixel of the cutout"),
            _field("cutout", pa.list_(pa.float32()), "nmgy", "phot.flux", "Cutout: band, row, column"),
            _field(
                "evidence",
                pa.list_(pa.float32()),
                "",
                "stat.value",
                "Map whose mean is the mean logit",
            ),
            _field("picture", pa.binary(), "", "meta.preview", "The cutout in colours, PNG"),
            _field("evidence_picture", pa.binary(), "", "meta.preview", "The map of evidence, PNG"),
        ]
        return pa.schema([*plain, *pixels])

    def blocks(self, config: NightConfig, task: Ranked) -> Iterator[pa.Table]:
        """Yield the list in the order of ranks.

        Maps are made here and not partition by partition, of which each has a few candidates only: a network
        takes a batch that is hardly filled as long as a full one.
        """
        if self._cutouts is None:
            return
        engine = Engine(load_bundle(location_of(config, task.name)), "cpu")
        rows = pa.concat_tables(self._rows).sort_by("rank")
        for start in range(0, self.count, _BLOCK):
            part = slice(start, min(start + _BLOCK, self.count))
            images = np.asarray(self._cutouts[part])
            seen = Observation.of(images, self.bands, self._scale[part], self._noise[part])
            maps = engine.evidence(seen, task.evidence)
            table = rows.slice(start, len(images))
            pictures = [
                _png(picture_of(image, float(scale), self.bands))
                for image, scale in zip(images, self._scale[part], strict=True)
            ]
            more = {
                "bands": pa.array([self.bands] * len(images)),
                "scale": pa.array(self._scale[part]),
                "cutout": _lists(images.astype(np.float32)),
                "evidence": _lists(maps),
                "picture": pa.array(pictures, pa.binary()),
                "evidence_picture": pa.array([_png(evidence_picture(image)) for image in maps], pa.binary()),
            }
            columns = {name: table[name] for name in table.column_names} | more
            schema = self.schema(task)
            yield pa.table([columns[name] for name in schema.names], schema=schema)


def _field(name: str, kind: pa.DataType, unit: str, ucd: str, description: str) -> pa.Field:
    about = {"unit": unit, "ucd": ucd, "description": description}
    return pa.field(name, kind, metadata={key: text for key, text in about.items() if text})


def _lists(values: NDArray[np.float32]) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    size = int(np.prod(values.shape[1:]))
    return pa.ListArray.from_arrays(np.arange(len(values) + 1, dtype=np.int32) * size, flat)


def evidence_picture(evidence: NDArray[np.float32]) -> Picture.Image:
    """Draw a map of evidence, north up: white for a lens, black against one, grey for neither.

    Parameters
    ----------
    evidence
        Shape (rows, columns), rows growing to the north.
    """
    # Ten units of the logit in one place are as clear as can be.
    shade = np.clip(0.5 + np.asarray(evidence) / 20, 0, 1)
    pixels = np.ascontiguousarray(np.rint(shade * 255).astype(np.uint8)[::-1])
    return Picture.fromarray(pixels, "L")


def _png(picture: Picture.Image) -> bytes:
    sink = io.BytesIO()
    picture.save(sink, "PNG")
    return sink.getvalue()
