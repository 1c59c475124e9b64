"""What a lens finder misses: lenses put into a night's own cutouts, and which of them it would have listed.

Two passes over the partitions, one of them in memory at a time: the first counts the galaxies that can be
lenses, the second puts into each partition its share of the lenses and asks the night's bundle.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gzscale._parquet import decode
from gzscale.config import NightConfig
from gzscale.cutouts.store import read_cutouts
from gzscale.errors import CatalogError, CredentialsError, GzscaleError, MissingError
from gzscale.models.bundle import load_bundle
from gzscale.models.engine import Engine
from gzscale.models.observation import Observation
from gzscale.night.candidates import completeness_key, review_name
from gzscale.night.ledger import Ledger, NightRecord
from gzscale.night.origins import cutouts_prefix, location_of
from gzscale.night.planned import PlannedPartition, read_plan
from gzscale.night.tables import parquet_bytes
from gzscale.sky.inject import add_light, draw_arcs, electrons_of
from gzscale.sky.lens_population import draw_uniform
from gzscale.sky.stamps import Stamps, measured_stamps
from gzscale.storage import Storage, open_storage
from gzscale.tasks.base import Ranked, load_task
from gzscale.tasks.seen import look

__all__ = ["AXES", "measure_completeness"]

#: Einstein radii and r magnitudes of all images together that are put in.
RADII, MAGNITUDES = (0.5, 4.0), (18.0, 23.0)
#: Lenses that are drawn together.
_BLOCK = 256
#: What completeness is shown against: column -> edges.
AXES: Mapping[str, tuple[float, ...]] = {
    "einstein_radius": (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0),
    "arc_magnitude": (18.0, 18.5, 19.0, 19.5, 20.0, 20.5, 21.0, 21.5, 22.0, 22.5, 23.0),
    "deflector_redshift": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7),
}


@dataclass(frozen=True)
class _Finder:
    """The night's lens finder."""

    task: Ranked
    engine: Engine
    geometry: str
    threshold: float


def measure_completeness(
    output: str, injections: int = 10_000, seed: int = 1, night: str | None = None, task: str = "lenses"
) -> dict[str, Any]:
    """Put lenses into a night's cutouts and count those that would be on its review list.

    Parameters
    ----------
    output
        The night's output: path or URL.
    injections
        Lenses to put in.
    seed
        The same seed gives the same lenses.
    night
        Name of the run; the last one by default.
    task
        The lens finder's name.

    Returns
    -------
    dict
        What is written to ``reports/<night>/completeness.json``; beside it ``completeness.parquet`` has one
        row a lens.

    Raises
    ------
    MissingError
        If there was no such night, or it released nothing.
    CatalogError
        If no cutout shows a galaxy that can be a lens.
    """
    storage = open_storage(output)
    record = Ledger(storage).last_night() if night is None else Ledger(storage).read_night(night)
    if record is None or not record.release:
        raise MissingError(f"{output}: no night released anything here; run one first")
    config = NightConfig.model_validate(record.inputs["config"])
    finder = _finder(storage, record, config, task)
    plan = read_plan(storage, record.night)
    possible = [int(_stamps(storage, finder, item).deflector.sum()) for item in plan.partitions]
    if not sum(possible):
        raise CatalogError(f"{output}: no cutout shows a bright red galaxy that could be a lens")
    shares = _shares(possible, injections)
    tables = [
        table
        for number, (item, count) in enumerate(zip(plan.partitions, shares, strict=True))
        if count
        for table in _partition(storage, finder, item, count, np.random.default_rng([seed, number]))
    ]
    rows = pa.concat_tables(tables)
    found = _summary(rows, finder, sum(possible))
    storage.put(completeness_key(record.night, "parquet"), parquet_bytes(rows))
    text = json.dumps(found, indent=1, sort_keys=True, allow_nan=False) + "\n"
    storage.put(completeness_key(record.night, "json"), text.encode())
    return found


def _finder(storage: Storage, record: NightRecord, config: NightConfig, name: str) -> _Finder:
    task = load_task(name)
    if name not in config.tasks or not isinstance(task, Ranked):
        raise MissingError(
            f"night {record.night} had no task {name!r} with a review list: {sorted(config.tasks)}"
        )
    try:
        data = storage.get(f"releases/{record.release}/{review_name(name)}")
    except CredentialsError:
        raise
    except GzscaleError as error:
        raise MissingError(
            f"night {record.night}: its review list of {name} cannot be read: {error}"
        ) from error
    scores = decode(data, [task.ranked_by])[task.ranked_by].to_numpy()
    engine = Engine(load_bundle(location_of(config, name)))
    threshold = float(scores.min()) if len(scores) else 1.0
    return _Finder(task, engine, config.tasks[name].geometry, threshold)


def _stamps(storage: Storage, finder: _Finder, item: PlannedPartition) -> Stamps:
    record = Ledger(storage).read("cut", item.partition)
    if record is None:
        raise MissingError(f"{item.partition.path}: its cutouts are not committed; run the night again")
    files = {key: (str(value[0]), int(value[1])) for key, value in record.files.items()}
    cutouts = read_cutouts(storage, cutouts_prefix(item.partition), finder.geometry, files)
    return measured_stamps(cutouts, finder.engine.bundle.bands, survey=finder.engine.bundle.filters)


def _shares(possible: list[int], injections: int) -> list[int]:
    """Part the lenses among partitions by their deflectors, so that the sum is right."""
    reached = np.cumsum(possible) / sum(possible) * injections
    shares: list[int] = np.diff(np.rint(reached), prepend=0).astype(int).tolist()
    return shares


def _partition(
    storage: Storage, finder: _Finder, item: PlannedPartition, count: int, rng: np.random.Generator
) -> Iterator[pa.Table]:
    """Yield one row for each lens that is put into a partition."""
    stamps = _stamps(storage, finder, item)
    rows = np.flatnonzero(stamps.deflector)
    bands, survey = finder.engine.bundle.bands, finder.engine.bundle.filters
    red, electrons = bands.index("r"), electrons_of(bands, survey=survey)
    for first in range(0, count, _BLOCK):
        chosen = rng.choice(rows, min(_BLOCK, count - first))
        base = stamps.take(chosen)
        lenses, truth = draw_uniform(stamps.deflectors, chosen, bands, rng, RADII, survey)
        arcs = draw_arcs(lenses, base.images, base.seeing, base.scale, base.noise, electrons)
        wanted = rng.uniform(*MAGNITUDES, len(chosen))
        # Images scale with the source: each is made as bright as was drawn.
        factor = 10 ** (0.4 * (arcs.magnitude[:, red] - wanted))
        light = (arcs.images * factor[:, None, None, None]).astype(np.float32)
        score = _scores(finder, base, add_light(base.images, light, electrons, rng), bands)
        yield pa.table(
            {
                "deflector_id": base.object_id,
                "einstein_radius": lenses.einstein_radius,
                "arc_magnitude": wanted,
                "deflector_redshift": truth.deflector_redshift,
                "deflector_magnitude": base.magnitude,
                "source_redshift": truth.source_redshift,
                "contrast": arcs.contrast[:, bands.index("g")] * factor,
                "score": score,
                "found": score >= finder.threshold,
            }
        )


def _scores(finder: _Finder, base: Stamps, images: NDArray[np.float32], bands: str) -> NDArray[np.float64]:
    """Return the released score of each cutout; -1 where there is none."""
    seen = Observation.of(images, bands, base.scale, base.noise, seeing=base.told_seeing)
    outputs = finder.engine.run(seen)
    values, finite = finder.task.table(outputs, finder.engine.bundle.calibration, look(seen))
    score = np.ma.filled(values[finder.task.ranked_by], -1.0).astype(np.float64)
    return np.where(finite, score, -1.0)


def _summary(rows: pa.Table, finder: _Finder, deflectors: int) -> dict[str, Any]:
    """Count lenses, and those found, in cells of Einstein radius and each other axis."""
    found = rows["found"].to_numpy(zero_copy_only=False)
    values = {name: rows[name].to_numpy() for name in AXES}
    maps = {}
    for other in ("arc_magnitude", "deflector_redshift"):
        edges = [np.array(AXES["einstein_radius"]), np.array(AXES[other])]
        radius, along = values["einstein_radius"], values[other]
        put = np.histogram2d(radius, along, bins=edges)[0]
        seen = np.histogram2d(radius[found], along[found], bins=edges)[0]
        maps[other] = {"put": put.astype(int).tolist(), "found": seen.astype(int).tolist()}
    return {
        "injections": len(rows),
        "found": int(found.sum()),
        "deflectors": deflectors,
        "threshold": finder.threshold,
        "axes": {name: list(edges) for name, edges in AXES.items()},
        "maps": maps,
    }
