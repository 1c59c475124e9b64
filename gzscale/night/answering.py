"""A partition's cutouts shown to the night's tasks, one geometry in memory at a time."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gzscale.config import NightConfig
from gzscale.cutouts.store import Cutouts, read_cutouts
from gzscale.models.bundle import Bundle, load_bundle
from gzscale.models.device import held
from gzscale.models.engine import Engine, choose_device
from gzscale.models.observation import Observation
from gzscale.models.together import Outputs, no_outputs, run_together
from gzscale.night.answers import Answers, observe, take_answers, usable_rows
from gzscale.night.ledger import Record
from gzscale.night.origins import cutouts_prefix, filters_of, location_of, open_bundle
from gzscale.night.tables import read_parquet
from gzscale.night.turns import let_next_in
from gzscale.storage import Storage
from gzscale.tasks.base import Seen, load_task
from gzscale.tasks.seen import look

__all__ = ["answer_all", "load_engines"]

#: Of who loads bundles, so that none is loaded by two threads; whoever predicts goes on meanwhile.
_loading = threading.RLock()


def load_engines(config: NightConfig) -> None:
    """Load the bundles of all tasks before they are needed, once in a process.

    A worker then holds as much in its first partition as in any later one: a short night tells how much
    memory a long one takes.

    Parameters
    ----------
    config
        The night's configuration.

    Raises
    ------
    BundleError
        If one cannot be used.
    """
    with _loading:
        _load(tuple(location_of(config, name) for name in config.tasks))


@functools.lru_cache(maxsize=16)
def _load(locations: tuple[str, ...]) -> None:
    for location in locations:
        _engine(location, load_bundle(location).sha256)


@functools.lru_cache(maxsize=16)
def _engine(location: str, sha256: str) -> Engine:
    # Keyed by content, too: a bundle that was replaced in place is loaded anew.
    return Engine(load_bundle(location, sha256))


@dataclass(frozen=True)
class _Shown:
    """One geometry of a partition, read once for all the tasks that share it."""

    geometry: str
    cutouts: Cutouts
    gaps: pa.Table
    observation: Observation
    seen: Seen


def answer_all(
    config: NightConfig, storage: Storage, record: Record, rows: pa.Table, seconds: dict[str, float]
) -> list[Answers]:
    """Run every task over the partition's cutouts, one geometry in memory at a time.

    Parameters
    ----------
    config
        The night's configuration.
    storage
        Its output.
    record
        The commit of the partition's cutouts.
    rows
        The partition's catalog rows.
    seconds
        Time spent by step (``load``, ``infer``, and ``wait`` for other partitions that load bundles or have
        the device), to which is added.
    """
    # Where nothing was cut, such as in a partition that is given up in the night's own process, nothing is
    # asked of a device, whose memory others may need.
    if any(record.counts[task.geometry].done for task in config.tasks.values()):
        with held(_loading, seconds):
            load_engines(config)
        if choose_device().type == "cuda":
            let_next_in(_bytes_of_partition(config))
    answers: dict[str, Answers] = {}
    for geometry in dict.fromkeys(task.geometry for task in config.tasks.values()):
        with _timed(seconds, "load"):
            shown = _show(storage, record, geometry, rows)
        names = [name for name, task in config.tasks.items() if task.geometry == geometry]
        answers |= _answer(config, names, shown, seconds)
        del shown
    return [answers[name] for name in config.tasks]


def _bytes_of_partition(config: NightConfig) -> int:
    """Return what a full partition takes: float16 pixels, as much again while they are read and filled."""
    side = max(config.geometries[task.geometry].size for task in config.tasks.values())
    return 2 * 2 * config.max_objects * len(config.survey.bands) * side**2


def _show(storage: Storage, record: Record, geometry: str, rows: pa.Table) -> _Shown:
    cutouts = read_cutouts(
        storage,
        cutouts_prefix(record.partition),
        geometry,
        {key: (value[0], value[1]) for key, value in record.files.items()},
    )
    gaps = read_parquet(storage, f"ledger/cut/{record.partition.path}.gaps.parquet")
    observation = observe(cutouts, rows)
    return _Shown(geometry, cutouts, gaps, observation, look(observation))


def _answer(
    config: NightConfig, names: list[str], shown: _Shown, seconds: dict[str, float]
) -> dict[str, Answers]:
    """Run the bundles of all tasks of a geometry over its cutouts."""
    with _timed(seconds, "load"):
        bundles = {name: _bundle_for(config, name, shown) for name in names}
        usable = {name: usable_rows(shown.cutouts, shown.seen, bundles[name]) for name in names}
    answers = {}
    for alike in _alike(usable):
        outputs = _outputs(config, {name: bundles[name] for name in alike}, shown, usable[alike[0]], seconds)
        for name, said in zip(alike, outputs, strict=True):
            answers[name] = take_answers(
                load_task(name), shown.geometry, shown.cutouts, shown.gaps, shown.seen, bundles[name], said
            )
    return answers


def _outputs(
    config: NightConfig,
    bundles: dict[str, Bundle],
    shown: _Shown,
    rows: NDArray[np.int64],
    seconds: dict[str, float],
) -> list[Outputs]:
    """Run bundles, by task, over some rows of the cutouts."""
    if not len(rows):
        return [no_outputs(bundle) for bundle in bundles.values()]
    with held(_loading, seconds):
        engines = [_engine(location_of(config, name), bundle.sha256) for name, bundle in bundles.items()]
    every, before = len(rows) == len(shown.observation), seconds.get("wait", 0.0)
    with _timed(seconds, "infer"):
        outputs = run_together(engines, shown.observation, None if every else rows, seconds)
    seconds["infer"] -= seconds["wait"] - before
    return outputs


def _bundle_for(config: NightConfig, name: str, shown: _Shown) -> Bundle:
    bundle = open_bundle(config, name)
    bundle.require(shown.cutouts.bands, config.geometries[shown.geometry], filters_of(config, name))
    return bundle


def _alike(usable: dict[str, NDArray[np.int64]]) -> list[list[str]]:
    """Put tasks together that are shown the same rows: they are sent to the device once."""
    groups: dict[bytes, list[str]] = {}
    for name, rows in usable.items():
        groups.setdefault(rows.tobytes(), []).append(name)
    return list(groups.values())


@contextlib.contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[step] = seconds.get(step, 0.0) + time.perf_counter() - start
