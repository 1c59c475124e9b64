"""One partition, start to end: accounts close, commits are exact, nothing is done twice."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import run_night
from toy import ToySurvey, toy_config

from gzscale.errors import (
    BundleError,
    ClusterError,
    ConfigError,
    ImageError,
    LedgerError,
    Reason,
    WorkerError,
)
from gzscale.models.bundle import load_bundle, write_bundle
from gzscale.night import answering, dispatch, work
from gzscale.night import plan as planning
from gzscale.night.flight import Lost
from gzscale.night.ledger import Ledger
from gzscale.night.origins import origins
from gzscale.night.release import publish
from gzscale.night.verify import verify
from gzscale.night.work import Summary
from gzscale.storage import open_storage


def tree_bytes(output, prefix):
    storage = open_storage(output)
    return {entry.key: storage.get(entry.key) for entry in storage.list(prefix)}


def test_every_row_is_accounted_for(ran):
    objects = ran.record.counts["objects"]
    assert objects.planned == 43
    assert objects.closes
    assert objects.failed == 0
    # One NaN position (catalog), one place without exposure and one NaN size (cut).
    assert objects.quarantined == {"BAD_COORDINATES": 1, "MISSING_SIZE": 1, "OFF_FOOTPRINT": 1}
    assert ran.record.counts["morphology"].done == 40
    assert ran.record.counts["catalog"].done == 42


def test_predictions_hold_what_was_answered(ran):
    storage = open_storage(ran.config.output)
    ids = []
    for item in ran.plan.partitions:
        table = pq.read_table(f"{storage.root}/predictions/{item.partition.path}.parquet")
        ids += table["object_id"].to_pylist()
        smooth = table["t01_smooth_or_features_a01_smooth_fraction"].to_numpy()
        features = table["t01_smooth_or_features_a02_features_or_disk_fraction"].to_numpy()
        star = table["t01_smooth_or_features_a03_star_or_artifact_fraction"].to_numpy()
        np.testing.assert_allclose(smooth + features + star, 1, atol=1e-5)
        assert table["morphology_done"].to_pylist() == [True] * table.num_rows
    assert sorted(ids) == [3, *(number for number in range(1000, 1040) if number != 1003)]


def test_a_partition_that_is_given_up_asks_nothing_of_a_device(ran, monkeypatch):
    def never(*arguments):
        raise AssertionError("no object is left to be predicted")

    for name in ("choose_device", "load_engines", "Engine", "run_together"):
        monkeypatch.setattr(answering, name, never)
    item = ran.plan.partitions[0]
    outcome = dispatch._give_up(ran.config, origins(ran.config), item, Lost(Reason.WORKER_LOST, "3 died"))
    assert isinstance(outcome, Summary)
    assert outcome.counts["morphology"].quarantined["WORKER_LOST"] > 0
    assert outcome.counts["morphology"].done == 0


def test_an_object_on_the_edge_is_done_and_says_how_much_was_covered(ran):
    storage = open_storage(ran.config.output)
    coverage = {}
    for item in ran.plan.partitions:
        table = pq.read_table(f"{storage.root}/predictions/{item.partition.path}.parquet")
        pairs = zip(table["object_id"].to_pylist(), table["morphology_coverage"].to_pylist(), strict=True)
        coverage |= dict(pairs)
    assert 0.45 < coverage[3] < 0.6
    assert sum(value == 1 for value in coverage.values()) > 30


def test_a_second_night_does_nothing_and_changes_nothing(ran):
    before = tree_bytes(ran.config.output, "releases")
    assert planning.is_done(ran.config, planning.check(ran.config)) is not None
    again = run_night(ran.config, "n2")
    assert [summary.skipped for summary in again.summaries] == [("cut", "predict")] * len(again.summaries)
    assert again.record.release == ran.record.release
    assert tree_bytes(ran.config.output, "releases") == before


def test_equal_nights_give_equal_bytes(ran, tmp_path):
    other = run_night(toy_config(tmp_path / "other"))
    assert other.record.release == ran.record.release
    for prefix in (f"releases/{ran.record.release}", "cutouts", "predictions"):
        assert tree_bytes(other.config.output, prefix) == tree_bytes(ran.config.output, prefix)


def test_what_is_not_committed_is_made_again(ran):
    storage = open_storage(ran.config.output)
    item = ran.plan.partitions[0]
    before = tree_bytes(ran.config.output, "predictions")
    Ledger(storage).revoke("predict", item.partition)
    storage.put(f"predictions/{item.partition.path}.parquet", b"half a fi")
    again = run_night(ran.config, "n2")
    assert [summary.skipped == ("cut", "predict") for summary in again.summaries].count(False) == 1
    assert tree_bytes(ran.config.output, "predictions") == before


def test_a_changed_image_makes_its_partitions_again(ran):
    changed = ran.config.model_copy(
        update={"survey": ran.config.survey.model_copy(update={"options": {"state": "s2"}})}
    )
    assert planning.is_done(changed, planning.check(changed)) is None
    again = run_night(changed, "n2")
    assert all("cut" not in summary.skipped for summary in again.summaries)


def test_a_missing_band_is_a_reason_and_the_other_field_is_done(tmp_path):
    config = toy_config(
        tmp_path, survey={"kind": "toy", "root": "m", "bands": "gri", "options": {"missing": ["a-i"]}}
    )
    night = run_night(config)
    counts = night.record.counts
    details = set()
    for item in night.plan.partitions:
        table = pq.read_table(f"{config.output}/ledger/predict/{item.partition.path}.quarantine.parquet")
        details |= set(table.filter(pc.field("reason") == "MISSING_BAND")["detail"].to_pylist())
    assert details == {"i: a-i.img: not there"}
    assert counts["objects"].quarantined["MISSING_BAND"] == 21  # 20 in field a, and the one on its edge
    assert counts["objects"].done == 19
    assert counts["galaxy"].done == 40  # they were cut: g and r are there


def test_a_partition_whose_every_object_fails_closes(tmp_path):
    missing = [f"{field}-{band}" for field in "ab" for band in "gri"]
    config = toy_config(
        tmp_path, survey={"kind": "toy", "root": "m", "bands": "gri", "options": {"missing": missing}}
    )
    counts = run_night(config).record.counts
    assert counts["objects"].done == 0
    assert counts["objects"].closes
    assert counts["objects"].quarantined["MISSING_IMAGE"] == 40


def test_a_partition_whose_every_object_fails_leaves_the_others_alone(ran, tmp_path):
    missing = [f"a-{band}" for band in "gri"]
    config = toy_config(
        tmp_path, survey={"kind": "toy", "root": "m", "bands": "gri", "options": {"missing": missing}}
    )
    night = run_night(config)
    without, others = {}, {}
    for whole, summary in zip(ran.summaries, night.summaries, strict=True):
        count = summary.counts["objects"]
        if "MISSING_IMAGE" in count.quarantined:
            without[summary.partition.path] = count
            assert whole.counts["objects"].done > 0
        else:
            others[summary.partition.path] = count
            assert count == whole.counts["objects"]
    assert {count.done for count in without.values()} == {0}
    assert sum(count.done for count in others.values()) == 19
    # 20 in field a, and the one on its edge.
    assert sum(count.quarantined["MISSING_IMAGE"] for count in without.values()) == 21
    for path in others:
        key = f"predictions/{path}.parquet"
        assert tree_bytes(config.output, key) == tree_bytes(ran.config.output, key) != {}
    assert night.record.counts["objects"].closes
    assert night.record.counts["objects"].failed == 0
    assert night.record.release not in ("", ran.record.release)
    assert verify(config.output) == []


def test_a_bundle_cannot_be_fed_wrongly(tmp_path):
    config = toy_config(tmp_path, geometries={"galaxy": {"size": 48, "scale": "0.1 * size"}})
    with pytest.raises(BundleError, match="32 pixels"):
        planning.check(config)
    config = toy_config(tmp_path, survey={"kind": "toy", "root": "m", "bands": "gr"})
    with pytest.raises(BundleError, match="bands"):
        planning.check(config)


def test_predicting_what_was_not_cut_is_an_error(ran):
    item = ran.plan.partitions[0]
    Ledger(open_storage(ran.config.output)).revoke("cut", item.partition)
    with pytest.raises(LedgerError, match="not committed"):
        work.predict(ran.config, origins(ran.config), item.partition, item.digest, ran.summaries[0])


def test_a_task_that_no_package_brings_is_an_error(tmp_path):
    config = toy_config(tmp_path)
    bad = config.model_copy(update={"tasks": {"palmistry": config.tasks["morphology"]}})
    with pytest.raises(ConfigError, match="palmistry"):
        planning.check(bad)


def test_a_file_that_went_is_made_again(ran):
    before = tree_bytes(ran.config.output, "")
    storage = open_storage(ran.config.output)
    gone = [
        next(key for key in before if key.startswith("predictions/")),
        next(key for key in before if "/images/c/" in key),
        next(key for key in before if key.startswith("releases/") and key.endswith("hats.properties")),
    ]
    for number, key in enumerate(gone, start=2):
        storage.delete(key)
        assert planning.is_done(ran.config, planning.check(ran.config)) is None
        run_night(ran.config, f"n{number}")
        assert tree_bytes(ran.config.output, "")[key] == before[key]


def test_an_outage_does_not_undo_what_is_done(ran, monkeypatch):
    def silent(self, ref):
        raise ImageError(Reason.UNREACHABLE_IMAGE, "the server does not answer")

    monkeypatch.setattr(ToySurvey, "state", silent)
    monkeypatch.setattr(ToySurvey, "open", silent)
    again = run_night(ran.config, "n2")
    assert again.record.counts["objects"] == ran.record.counts["objects"]
    assert again.record.release == ran.record.release


def test_what_the_server_did_not_deliver_is_tried_again(tmp_path, monkeypatch):
    config = toy_config(tmp_path)
    whole = ToySurvey.open

    def broken(self, ref):
        if ref.name == "a-r":
            raise ImageError(Reason.UNREACHABLE_IMAGE, "the server does not answer")
        return whole(self, ref)

    with monkeypatch.context() as patch:
        patch.setattr(ToySurvey, "open", broken)
        first = run_night(config)
    assert first.record.counts["objects"].quarantined["UNREACHABLE_IMAGE"] == 21
    assert run_night(config, "n2").record.counts["objects"].done == 40


def test_another_bundle_predicts_anew_and_cuts_nothing(tmp_path):
    config = toy_config(tmp_path)
    first = run_night(config)
    cutouts, predictions = (tree_bytes(config.output, place) for place in ("cutouts", "predictions"))
    path = Path(config.tasks["morphology"].bundle)
    retrained = load_bundle(path)
    changed = {name: tensor * 1.5 for name, tensor in retrained.tensors.items()}
    path.write_bytes(write_bundle(dataclasses.replace(retrained, name="toy-2", tensors=changed)))
    again = run_night(config, "n2")
    assert {summary.skipped for summary in again.summaries} == {("cut",)}
    assert tree_bytes(config.output, "cutouts") == cutouts
    assert tree_bytes(config.output, "predictions") != predictions
    assert again.record.release != first.record.release
    assert again.record.counts["objects"].done == 40
    assert verify(config.output) == []


def test_a_worker_with_another_bundle_is_refused(ran):
    origin = origins(ran.config)
    other = dataclasses.replace(origin, predict={**origin.predict, "tasks": {}})
    item = ran.plan.partitions[0]
    with pytest.raises(ClusterError, match="other code, bundles"):
        work.cut(ran.config, other, item.partition, item.digest)


def test_the_same_release_in_s3_as_in_a_folder(ran, s3, tmp_path):
    config = toy_config(tmp_path / "again").model_copy(update={"output": f"{s3.url}/night"})
    remote = run_night(config)
    assert remote.record.release == ran.record.release
    for prefix in (f"releases/{ran.record.release}", "cutouts", "predictions"):
        assert tree_bytes(config.output, prefix) == tree_bytes(ran.config.output, prefix)
    assert verify(config.output) == []
    assert planning.is_done(config, planning.check(config)) is not None


def predicted_with(config, plan, kind, partitions):
    """Predict some partitions as if on another kind of device."""
    origin = dataclasses.replace(origins(config), compute=kind)
    for item in partitions:
        made = work.cut(config, origin, item.partition, item.digest)
        work.commit_predictions(config, origin, item.partition, item.digest, made)


def test_a_night_that_goes_on_on_another_kind_of_device_predicts_anew(ran):
    predicted_with(ran.config, ran.plan, "cuda bfloat16", ran.plan.partitions)
    ledger = Ledger(open_storage(ran.config.output))
    first = ran.plan.partitions[0].partition
    assert ledger.read("predict", first).inputs["compute"] == "cuda bfloat16"
    again = dataclasses.replace(origins(ran.config), compute="cpu float32")
    item = ran.plan.partitions[0]
    made = work.cut(ran.config, again, item.partition, item.digest)
    assert made.skipped == ("cut",)
    assert "predict" not in work.commit_predictions(ran.config, again, first, item.digest, made).skipped
    # Where no kind is prescribed, what was made with any is current.
    either = work.commit_predictions(ran.config, origins(ran.config), first, item.digest, made)
    assert either.skipped == ("cut", "predict")


def test_predictions_of_two_kinds_of_device_are_not_released_together(ran):
    predicted_with(ran.config, ran.plan, "cuda bfloat16", ran.plan.partitions[:1])
    with pytest.raises(LedgerError, match="made in 2 ways"):
        publish(ran.config, ran.plan, "2026-01-01")


def test_a_worker_with_another_device_than_the_night_s_is_refused(ran):
    origin = dataclasses.replace(origins(ran.config), compute="cuda bfloat16")
    item = ran.plan.partitions[0]
    with pytest.raises(WorkerError, match="begun with cuda bfloat16"):
        work.predict(ran.config, origin, item.partition, item.digest, ran.summaries[0])
