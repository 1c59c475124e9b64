"""A second night of changed and new objects on simulated Rubin images: only their partitions work."""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import run_night
from toy import write_toy_bundle

from gzscale.config import load_config
from gzscale.night.explain import explain
from gzscale.night.origins import rows_key
from gzscale.night.tables import read_parquet
from gzscale.storage import open_storage

CHANGED, NEW = 3, 2


@pytest.fixture(scope="module")
def nights(toy, rubin_sky, tmp_path_factory):
    """A night of all but the last objects of the sky, and one of those and of a few that are larger."""
    folder = tmp_path_factory.mktemp("delta")
    whole = pq.read_table(rubin_sky / "catalog.parquet")
    first = whole.slice(0, whole.num_rows - NEW)
    # Neighbours on the sky, as one night's detections are.
    near = first.take(pc.sort_indices(first["coord_ra"])).slice(0, CHANGED)
    at = near.schema.get_field_index("r_kronRad")
    larger = near.set_column(at, near.field(at), pc.multiply(near["r_kronRad"], pa.scalar(1.5, pa.float32())))
    pq.write_table(first, folder / "first.parquet")
    pq.write_table(pa.concat_tables([larger, whole.slice(whole.num_rows - NEW)]), folder / "second.parquet")
    bundle = write_toy_bundle(folder / "toy.safetensors")
    settings = [
        f"output={folder / 'out'}",
        "max_objects=8",
        "survey.bands=gri",
        "geometries={galaxy: {size: 32, scale: 0.1 * size}}",
        f"tasks={{morphology: {{geometry: galaxy, bundle: {bundle}}}}}",
    ]
    ran = []
    for name, mode in (("first", "full"), ("second", "delta")):
        given = [*settings, f"catalog.path={folder / name}.parquet", f"catalog.mode={mode}"]
        config = load_config(str(rubin_sky / "night.yaml"), given)
        config = config.model_copy(update={"tasks": {"morphology": config.tasks["morphology"]}})
        ran.append(run_night(config, f"n-{name}"))
    ids = {"changed": larger["objectId"].to_pylist(), "new": whole["objectId"].to_pylist()[-NEW:]}
    return ran, ids


def plan_rows(ran):
    storage = open_storage(ran.config.output)
    for item in ran.plan.partitions:
        yield from read_parquet(storage, rows_key(item.partition, item.digest)).to_pylist()


def test_the_counts_of_both_nights_close(nights):
    (first, second), _ = nights
    assert first.record.counts["objects"].planned == 50 - NEW
    assert second.record.counts["objects"].planned == 50
    changes = second.record.changes
    assert (changes["new"], changes["changed"], changes["unchanged"]) == (NEW, CHANGED, 0)
    assert (changes["known"], changes["kept"]) == (50 - NEW, 50 - NEW - CHANGED)


def test_only_partitions_of_changed_and_new_objects_work(nights):
    (first, second), ids = nights
    worked = [one for one in second.summaries if one.skipped != ("cut", "predict")]
    touched = {
        item["partition"]
        for item in (explain(second.config.output, object_id) for object_id in [*ids["changed"], *ids["new"]])
    }
    assert touched <= {one.partition.path for one in worked}
    # A partition that a new object has overfilled is parted: its other children work, too.
    assert len(worked) < len(second.summaries) / 2
    opened = second.record.images["opened"]
    assert 0 < opened == sum(len(one.images) for one in worked) < first.record.images["opened"] / 2


def test_each_object_is_explained(nights):
    (_, second), ids = nights
    for change, identifiers in ids.items():
        for object_id in identifiers:
            story = explain(second.config.output, object_id)
            assert story["change"] == change
            assert story["history"][-1]["night"] == "n-second"
            assert story["history"][-1]["catalog"].endswith("second.parquet")
    known = {row["object_id"] for one in nights[0] for row in plan_rows(one)}
    kept = min(known - set(ids["changed"]) - set(ids["new"]))
    assert explain(second.config.output, kept)["change"] == "kept"
    assert explain(second.config.output, kept)["history"] == []


def test_the_release_is_the_union(nights):
    (_, second), ids = nights
    folder = f"{second.config.output}/releases/{second.record.release}/morphology/morphology/dataset"
    released = set(pq.read_table(folder)["object_id"].to_pylist())
    assert set(ids["changed"]) | set(ids["new"]) <= released
    assert len(released) == second.record.counts["morphology"].done
