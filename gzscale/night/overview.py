"""What a night's tables come to: votes counted, objects done by partition, examples of quarantine.

The tables are read partition by partition, a bounded number at a time; what is kept does
not grow with their rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gzscale.errors import GzscaleError
from gzscale.night.answers import done_column
from gzscale.night.ledger import Ledger, NightRecord, Record
from gzscale.night.panels import Panel
from gzscale.night.photoz_counts import REDSHIFT_NEEDS, RedshiftCounts
from gzscale.night.planned import Plan, PlannedPartition, catalog_quarantine_key
from gzscale.night.tables import read_parquet
from gzscale.storage import Storage

__all__ = [
    "Histogram",
    "Overview",
    "PartitionState",
    "look_over",
    "predictions_key",
    "quarantine_key",
]

#: Edges of a histogram of fractions.
_FRACTIONS = np.linspace(0, 1, 21)
#: Edges of a histogram of probabilities: four to a decade of the odds; what is beyond is in the outermost.
_PROBABILITIES = 1 / (1 + 10 ** -np.linspace(-8, 4, 49))
#: A question counts for the galaxies of which this part of the volunteers would be asked it.
ASKED = 0.5
#: Quarantined objects that are shown for each reason.
EXAMPLES = 3
#: Partitions that are read at the same time.
_READERS = 8


@dataclass
class Histogram:
    """How the answers of one panel are distributed.

    Attributes
    ----------
    panel
        What is counted.
    counts
        Objects in each bin of `edges`, int64, shape (columns, bins).
    objects
        Objects that count: that would be asked, and have a value.
    """

    panel: Panel
    counts: NDArray[np.int64]
    objects: int = 0

    @classmethod
    def empty(cls, panel: Panel) -> Histogram:
        """Return a histogram of no object."""
        return cls(panel, np.zeros((len(panel.columns), len(_edges(panel)) - 1), np.int64))

    @property
    def edges(self) -> NDArray[np.float64]:
        """Edges of the bins, in [0, 1]; values beyond the outermost are counted in the outermost bins."""
        return _edges(self.panel)


@dataclass(frozen=True, slots=True)
class PartitionState:
    """How far a partition is.

    Attributes
    ----------
    item
        The partition as planned.
    done
        Objects that every task has answered for.
    answered
        Task -> objects that it has answered for; empty where nothing is committed.
    """

    item: PlannedPartition
    done: int
    answered: Mapping[str, int]

    @property
    def fraction(self) -> float:
        """Part of the objects that is done."""
        return self.done / self.item.rows if self.item.rows else 0.0


@dataclass
class Overview:
    """What a night's tables come to.

    Attributes
    ----------
    histograms
        Task -> one for each of its panels.
    partitions
        One for each of the plan, in its order.
    examples
        Reason -> some rows of the quarantine tables.
    damage
        Messages about what could not be read.
    redshifts
        Task -> its redshifts, counted, for tasks that have them.
    """

    histograms: dict[str, list[Histogram]]
    partitions: list[PartitionState] = field(default_factory=list)
    examples: dict[str, list[dict[str, object]]] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)
    redshifts: dict[str, RedshiftCounts] = field(default_factory=dict)


@dataclass(frozen=True)
class _Read:
    """What was read of one partition."""

    item: PlannedPartition
    record: Record | None = None
    table: pa.Table | None = None
    quarantine: pa.Table | None = None
    error: str = ""


def predictions_key(item: PlannedPartition) -> str:
    """Name of the table of a partition's predictions."""
    return f"predictions/{item.partition.path}.parquet"


def quarantine_key(item: PlannedPartition) -> str:
    """Name of the table of a partition's objects that were not predicted."""
    return f"ledger/predict/{item.partition.path}.quarantine.parquet"


def look_over(
    storage: Storage,
    record: NightRecord,
    plan: Plan,
    task_panels: Mapping[str, Sequence[Panel]],
    with_redshifts: Sequence[str] = (),
) -> Overview:
    """Read all that a night has committed, and count it.

    Parameters
    ----------
    storage
        The night's output.
    record
        The run. Partitions that failed in it count as not done, whatever an older run
        committed for them.
    plan
        Its plan.
    task_panels
        Task -> what is counted of its answers.
    with_redshifts
        Tasks whose columns are redshifts.

    Returns
    -------
    Overview
        A table that cannot be read is named in ``damage``; the others count.
    """
    found = Overview(
        {task: [Histogram.empty(panel) for panel in shown] for task, shown in task_panels.items()},
        redshifts={task: RedshiftCounts() for task in with_redshifts},
    )
    try:
        _take_examples(found, read_parquet(storage, catalog_quarantine_key(plan.night)))
    except GzscaleError as error:
        found.damage.append(str(error))
    columns = sorted(_needed_columns(task_panels) | set(REDSHIFT_NEEDS if with_redshifts else ()))
    failed = {failure["partition"] for failure in record.failures}
    for read in _read_all(storage, plan, failed, columns):
        _take(found, read)
    return found


def _needed_columns(task_panels: Mapping[str, Sequence[Panel]]) -> set[str]:
    names = {done_column(task) for task in task_panels}
    for shown in task_panels.values():
        for panel in shown:
            names |= {*panel.columns, *panel.asked_by}
    return names


def _read_all(storage: Storage, plan: Plan, failed: set[str], columns: list[str]) -> Iterator[_Read]:
    def read(item: PlannedPartition) -> _Read:
        if item.partition.path in failed:
            return _Read(item)
        try:
            return _read(storage, item, columns)
        except GzscaleError as error:
            return _Read(item, error=str(error))

    with ThreadPoolExecutor(_READERS) as pool:
        # map() submits all that it is given: a bounded number is held together.
        for start in range(0, len(plan.partitions), _READERS):
            yield from pool.map(read, plan.partitions[start : start + _READERS])


def _read(storage: Storage, item: PlannedPartition, columns: list[str]) -> _Read:
    record = Ledger(storage).read("predict", item.partition)
    if record is None:
        return _Read(item)
    table = read_parquet(storage, predictions_key(item), columns)
    lost = any(count.quarantined for count in record.counts.values())
    quarantine = read_parquet(storage, quarantine_key(item)) if lost else None
    return _Read(item, record, table, quarantine)


def _take(found: Overview, read: _Read) -> None:
    if read.error:
        found.damage.append(read.error)
    if read.record is None or read.table is None:
        found.partitions.append(PartitionState(read.item, 0, {}))
        return
    counts = read.record.counts
    answered = {task: counts[task].done for task in found.histograms if task in counts}
    found.partitions.append(PartitionState(read.item, counts["objects"].done, answered))
    for task, histograms in found.histograms.items():
        done = read.table.filter(read.table[done_column(task)])
        for histogram in histograms:
            _count(histogram, done)
        if task in found.redshifts:
            found.redshifts[task].take(done)
    if read.quarantine is not None:
        _take_examples(found, read.quarantine)


def _count(histogram: Histogram, done: pa.Table) -> None:
    asked = np.ones(done.num_rows)
    for name in histogram.panel.asked_by:
        asked *= done[name].to_numpy()
    chosen = asked >= ASKED
    for name in histogram.panel.columns:
        chosen &= np.isfinite(done[name].to_numpy())
    histogram.objects += int(chosen.sum())
    for row, name in enumerate(histogram.panel.columns):
        edges = histogram.edges
        values = np.clip(done[name].to_numpy()[chosen].astype(np.float64), edges[0], edges[-1])
        histogram.counts[row] += np.histogram(values, bins=edges)[0]


def _edges(panel: Panel) -> NDArray[np.float64]:
    return _PROBABILITIES if panel.odds else _FRACTIONS


def _take_examples(found: Overview, quarantine: pa.Table) -> None:
    for reason in pc.unique(quarantine["reason"]).to_pylist():
        kept = found.examples.setdefault(reason, [])
        if len(kept) < EXAMPLES:
            rows = quarantine.filter(pc.equal(quarantine["reason"], reason))
            kept += rows.slice(0, EXAMPLES - len(kept)).to_pylist()
