"""Which galaxies the contact sheet shows: the clearest of each kind, the least covered, some at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gzscale.catalog.schema import Column
from gzscale.night.answers import coverage_column
from gzscale.night.overview import PartitionState
from gzscale.night.panels import Panel, has_tree, panels
from gzscale.night.planned import PlannedPartition

__all__ = ["Pool", "choose", "spread"]

#: Partitions that galaxies are chosen from, galaxies of each kind, and drawn at random.
PARTITIONS = 12
OF_EACH_KIND = 7
AT_RANDOM = 11

#: Kinds of galaxies that are looked for by the tree: heading, question and answer that are last on the path.
_KINDS = (
    ("Clearest smooth", 0, 0),
    ("Clearest featured, not edge-on", 1, 1),
    ("Clearest edge-on", 1, 0),
    ("Clearest spiral", 3, 0),
    ("Clearest bar", 2, 0),
    ("Clearest odd", 5, 0),
)
_PARTLY = "Least covered by images"
_RANDOM = "Drawn at random"


@dataclass(frozen=True)
class Pool:
    """The objects that galaxies are chosen from, over all chosen partitions.

    Attributes
    ----------
    table
        Their predictions.
    partition
        Row -> number of the partition, int64.
    """

    table: pa.Table
    partition: NDArray[np.int64]


def spread(states: Sequence[PartitionState], task: str) -> list[PlannedPartition]:
    """Choose at most `PARTITIONS` partitions, evenly over the objects in the order of the sky.

    Parameters
    ----------
    states
        Partitions in that order, each with objects that ``task`` has answered for.
    task
        A task.
    """
    if len(states) <= PARTITIONS:
        return [state.item for state in states]
    reached = np.cumsum([state.answered[task] for state in states])
    aims = (np.arange(PARTITIONS) + 0.5) / PARTITIONS * reached[-1]
    places = np.unique(np.searchsorted(reached, aims))
    return [states[place].item for place in places]


def choose(pool: Pool, task: str, columns: tuple[Column, ...]) -> dict[str, list[int]]:
    """Choose galaxies of each kind that a task tells apart.

    Parameters
    ----------
    pool
        What they are chosen from.
    task
        By whose answers.
    columns
        The task's columns.

    Returns
    -------
    dict[str, list[int]]
        Heading -> rows of the pool, the clearest first; no row twice.
    """
    ids = pool.table["object_id"].to_numpy()
    left = np.ones(len(ids), bool)
    groups: dict[str, list[int]] = {}

    def take(heading: str, score: NDArray[np.floating], allowed: NDArray[np.bool_], number: int) -> None:
        rows = _best(score, allowed & left, pool.partition, ids)[:number]
        left[rows] = False
        if len(rows):
            groups[heading] = rows.tolist()

    everybody = np.ones(len(ids), bool)
    for heading, score in _scores(pool.table, columns).items():
        take(heading, score, score >= (0.5 if has_tree(columns) else -np.inf), OF_EACH_KIND)
    coverage = pool.table[coverage_column(task)].to_numpy()
    take(_PARTLY, -coverage, coverage < 1, OF_EACH_KIND)
    take(_RANDOM, _hash(ids), everybody, AT_RANDOM)
    return groups


def _scores(table: pa.Table, columns: tuple[Column, ...]) -> dict[str, NDArray[np.floating]]:
    """Return heading -> how clearly each object is of that kind."""
    if has_tree(columns):
        tree = panels(columns)
        return {heading: _joint(table, tree[question], answer) for heading, question, answer in _KINDS}
    for column in columns:
        if column.dtype.startswith("float"):
            values = table[column.name].to_numpy()
            return {f"Highest {column.name}": values, f"Lowest {column.name}": -values}
    return {}


def _joint(table: pa.Table, panel: Panel, answer: int) -> NDArray[np.floating]:
    """Multiply vote fractions down the tree to an answer (Willett et al. 2013, Section 3)."""
    product = table[panel.columns[answer]].to_numpy().astype(np.float64)
    for name in panel.asked_by:
        product *= table[name].to_numpy()
    return product


def _best(
    score: NDArray[np.floating],
    allowed: NDArray[np.bool_],
    partition: NDArray[np.int64],
    ids: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return the allowed rows: each partition's best first, then each one's second, and so on."""
    rows = np.flatnonzero(allowed)
    rows = rows[np.lexsort((ids[rows], -score[rows], partition[rows]))]
    starts = np.searchsorted(partition[rows], partition[rows], side="left")
    rank = np.arange(len(rows)) - starts
    return rows[np.lexsort((ids[rows], -score[rows], rank))]


def _hash(ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Hash identifiers to [0, 1) (the finaliser of SplitMix64: Steele et al. 2014, OOPSLA)."""
    word = ids.astype(np.uint64)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (word ^ (word >> np.uint64(31))) / 2.0**64
