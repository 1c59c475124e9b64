"""A small night written by hand through the real functions: catalog, plan, cutouts, predictions, records."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gzscale.catalog.schema import BASE_COLUMNS
from gzscale.config import NightConfig
from gzscale.cutouts.write import GroupContent, PartitionWriter
from gzscale.errors import Reason
from gzscale.models.votes import ANSWERS, QUESTIONS, to_joint
from gzscale.night.accounting import close_account
from gzscale.night.answers import Answers, merge_answers
from gzscale.night.ledger import Count, Ledger, NightRecord, Record, add_counts
from gzscale.night.origins import cutouts_prefix, rows_key
from gzscale.night.overview import predictions_key, quarantine_key
from gzscale.night.plan import make_plan
from gzscale.night.tables import parquet_bytes, read_parquet
from gzscale.night.tally import Failure, Tally
from gzscale.storage import open_storage, sha256_hex
from gzscale.tasks.morphology import DISTANCE, OUTPUT, MorphologyTask

NAME = "2031-05-06T070809Z"
SIDE = 24
BANDS = "ugriz"
EVIL = "frame-r-000001-1-0001.fits: <script>alert('x')</script> & 0 of 5 bands"
SECONDS = {
    "find": 1.0,
    "decode": 61.0,
    "resample": 20.0,
    "write": 5.0,
    "load": 2.0,
    "infer": 10.0,
    "cut": 88.0,
    "predict": 13.0,
    "work": 100.0,
    "wall": 55.0,
    "slots": 2.0,
    "wall_plan": 3.0,
    "wall_process": 56.0,
    "wall_release": 6.0,
}


@dataclass
class SmallNight:
    """What was written, to hold a report against."""

    output: str
    record: NightRecord
    ids: list[int] = field(default_factory=list)
    tables: list[pa.Table] = field(default_factory=list)


def write_small_night(
    folder,
    objects=40,
    lost_every=10,
    failed_partitions=0,
    state="complete",
    max_objects=16,
    side=SIDE,
    spread=0.3,
):
    """Write a night: ``lost_every``-th object has no image, 2 rows are bad, the first partitions fail."""
    config = write_catalog(folder, objects, max_objects, side, spread)
    storage = open_storage(config.output)
    ledger = Ledger(storage)
    plan = make_plan(config, NAME)
    night = SmallNight(config.output, NightRecord(NAME, state, night_inputs(config), "f" * 64))
    tally = Tally(seconds=dict(SECONDS), bytes_read=123_456_789)
    for number, item in enumerate(plan.partitions):
        if number < failed_partitions:
            failed = {
                name: Count(item.rows, failed=item.rows) for name in ("objects", "galaxy", "morphology")
            }
            add_counts(tally.counts, failed)
            tally.failures.append(Failure(item.partition.path, item.rows, f"StorageError: {EVIL}"))
            continue
        rows = read_parquet(storage, rows_key(item.partition, item.digest))
        lost = np.arange(rows.num_rows) % lost_every == lost_every - 1
        add_counts(tally.counts, commit_cutouts(ledger, item, rows, lost, config))
        counts, table = commit_predictions(ledger, item, rows, lost)
        add_counts(tally.counts, counts)
        night.tables.append(table)
        night.ids += table["object_id"].to_pylist()
    record = night.record
    record.partitions = len(plan.partitions)
    record.counts = close_account(plan, tally)
    record.failures = [vars(failure) for failure in tally.failures]
    record.seconds, record.bytes_read = tally.seconds, tally.bytes_read
    record.started, record.ended = "2031-05-06T07:08:09+00:00", "2031-05-06T07:09:30+00:00"
    ledger.write_night(record)
    return night


def night_inputs(config):
    return {
        "config": config.model_dump(mode="json", exclude={"output", "cluster"}),
        "bundles": {"morphology": "b" * 64},
        "code": "c" * 64,
    }


def write_catalog(folder, objects, max_objects, side, spread):
    random = np.random.default_rng(1)
    ra = (150.0 + spread * random.random(objects)) % 360
    dec = 2.0 + spread * random.random(objects)
    ids = 1237648720142401000 + np.arange(objects)
    table = {
        "object_id": [*ids, 11, int(ids[0])],
        "ra": [*ra, np.nan, ra[0]],
        "dec": [*dec, 2.1, dec[0]],
        "size": np.full(objects + 2, 6.0, np.float32),
    }
    pq.write_table(pa.table(table), folder / "catalog.parquet")
    columns = {name: name for name in table}
    return NightConfig(
        survey={"kind": "sdss", "root": str(folder / "sdss"), "bands": BANDS},
        catalog={"path": str(folder / "catalog.parquet"), "columns": columns},
        geometries={"galaxy": {"size": side, "scale": "0.08 * size"}},
        tasks={"morphology": {"geometry": "galaxy"}},
        output=str(folder / "output"),
        max_objects=max_objects,
    )


def galaxies(count, side, random):
    """Elliptical exponential profiles in five bands; a third has its eastern edge uncovered."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    angle = random.random((count, 1, 1)) * np.pi
    ratio = 0.25 + 0.75 * random.random((count, 1, 1))
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    radius = np.hypot(along, across / ratio) / (side / 9)
    flux = np.array([0.1, 0.35, 0.8, 1.2, 1.5])[:, None, None] * np.exp(-radius)[:, None]
    flux = flux * (0.3 + 2 * random.random((count, 1, 1, 1))) + 0.01 * random.standard_normal(flux.shape)
    flux[::3, :, :, : side // 4] = np.nan
    return flux.astype(np.float16)


def commit_cutouts(ledger, item, rows, lost, config):
    kept = np.flatnonzero(~lost)
    random = np.random.default_rng(item.partition.pixel)
    images = galaxies(len(kept), config.geometries["galaxy"].size, random)
    covered = (~np.isnan(images)).mean(axis=(2, 3)).astype(np.float32)
    content = GroupContent(
        geometry=config.geometries["galaxy"],
        bands=BANDS,
        images=images,
        object_id=rows["object_id"].to_numpy()[kept],
        ra=rows["ra"].to_numpy()[kept],
        dec=rows["dec"].to_numpy()[kept],
        scale=np.full(len(kept), 0.48),
        coverage=covered,
        noise=np.full(covered.shape, 0.01, np.float32),
        band_status=np.zeros(covered.shape, np.uint8),
        image_index=np.zeros((*covered.shape, 1), np.int32),
        sources=({"name": "frame", "band": "r", "sha256": "0" * 64, "size": 1},),
    )
    writer = PartitionWriter(ledger.storage, cutouts_prefix(item.partition))
    writer.write_group("galaxy", content)
    writer.close()
    count = Count(rows.num_rows, len(kept), {"MISSING_IMAGE": int(lost.sum())} if lost.any() else {})
    files = {key: list(value) for key, value in writer.inventory.items()}
    commit(ledger, "cut", item, files, {"galaxy": count})
    return {"galaxy": count}


def commit_predictions(ledger, item, rows, lost):
    kept = np.flatnonzero(~lost)
    random = np.random.default_rng(item.partition.pixel + 1)
    task = MorphologyTask()
    outputs = {OUTPUT: to_joint(votes(len(kept), random)), DISTANCE: np.ones((len(kept), 1), np.float32)}
    values, _ = task.table(outputs, {"vote_spread": [[2.0, 0.0]] * len(QUESTIONS), "usual_distance": 2.0})
    answers = Answers(
        task="morphology",
        geometry="galaxy",
        columns=task.columns,
        object_id=rows["object_id"].to_numpy()[kept],
        values=values,
        coverage=np.where(np.arange(len(kept)) % 3 == 0, 0.75, 1.0).astype(np.float32),
        lost={},
    )
    cut_lost = pa.table(
        {
            "object_id": rows["object_id"].to_numpy()[lost],
            "ra": rows["ra"].to_numpy()[lost],
            "dec": rows["dec"].to_numpy()[lost],
            "stage": ["cut"] * int(lost.sum()),
            "task": ["galaxy"] * int(lost.sum()),
            "reason": [str(Reason.MISSING_IMAGE)] * int(lost.sum()),
            "detail": [EVIL] * int(lost.sum()),
        }
    )
    merged = merge_answers(rows, [answers], cut_lost)
    tables = {predictions_key(item): merged.table, quarantine_key(item): merged.quarantine}
    files = {}
    for key, table in tables.items():
        data = parquet_bytes(table)
        ledger.storage.put(key, data)
        files[key] = [sha256_hex(data), len(data)]
    commit(ledger, "predict", item, files, merged.counts)
    assert {column.name for column in BASE_COLUMNS} <= set(merged.table.column_names)
    return merged.counts, merged.table


def votes(count, random):
    """Conditional vote fractions, shape (count, 37): those of a question sum to 1."""
    values = np.empty((count, len(ANSWERS)), np.float32)
    for question in QUESTIONS:
        number = question.stop - question.start
        values[:, question.answers] = random.dirichlet([0.6] * number, count)
    return values


def commit(ledger, stage, item, files, counts):
    ledger.commit(Record(stage, item.partition, "0" * 64, {"code": "c"}, files, counts))
