"""Nights of deltas: only the partitions that changed work, and the release is that of the union."""

import dataclasses
import json
import logging
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import run_night
from toy import CENTRES, toy_catalog

from gzscale.catalog.union import Changes
from gzscale.errors import LedgerError
from gzscale.night import plan as planning
from gzscale.night import work
from gzscale.night.accounting import accounting, status
from gzscale.night.explain import explain
from gzscale.night.known import last_known
from gzscale.night.ledger import Ledger
from gzscale.night.origins import origins, rows_key
from gzscale.night.planned import read_plan
from gzscale.night.release import prune
from gzscale.night.report import write_report
from gzscale.storage import open_storage


def with_catalog(config, folder, table, mode="delta", **columns):
    """Give a night another table."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "given.parquet"
    pq.write_table(table, path)
    catalog = config.catalog.model_copy(
        update={"path": str(path), "mode": mode, "columns": config.catalog.columns | columns}
    )
    return config.model_copy(update={"catalog": catalog})


def at(config, output):
    return config.model_copy(update={"output": str(output)})


def objects(rows):
    """Make a table of (id, ra, dec, size)."""
    return pa.table(
        {
            "id": [row[0] for row in rows],
            "ra": pa.array([row[1] for row in rows], pa.float64()),
            "dec": pa.array([row[2] for row in rows], pa.float64()),
            "r90": pa.array([row[3] for row in rows], pa.float32()),
        }
    )


def usable():
    """The toy's catalog without the row that no partition can have."""
    table = toy_catalog()
    return table.filter(pa.array([value == value for value in table["ra"].to_pylist()]))


def changed_and_new():
    """One object of the eastern exposure is larger, one moves to the western one, one is new there."""
    table = toy_catalog().to_pylist()
    west = CENTRES["b"]
    return objects(
        [
            (1000, table[0]["ra"], table[0]["dec"], 5.0),
            (1002, west[0] + 0.001, west[1], 4.0),
            (5000, west[0] - 0.001, west[1], 4.0),
        ]
    )


def union_of(*tables):
    frames = pd.concat([table.to_pandas() for table in tables])
    return pa.Table.from_pandas(frames.drop_duplicates("id", keep="last"), preserve_index=False)


def release_bytes(config, release):
    folder = f"releases/{release}"
    storage = open_storage(config.output)
    return {
        entry.key.removeprefix(folder): storage.get(entry.key)
        for entry in storage.list(folder)
        if not entry.key.endswith("manifest.json")
    }


@pytest.fixture(scope="module")
def base_night(first_night, tmp_path_factory):
    """A complete night of the usable rows."""
    folder = tmp_path_factory.mktemp("base")
    return run_night(with_catalog(at(first_night.config, folder / "out"), folder, usable(), "full"), "n1")


@pytest.fixture
def base(base_night, tmp_path):
    """A copy of that night, to do with as a test likes."""
    shutil.copytree(base_night.config.output, tmp_path / "out")
    return dataclasses.replace(base_night, config=at(base_night.config, tmp_path / "out"))


def test_the_union_is_released_as_a_full_night_of_it_would(base, tmp_path):
    delta = run_night(with_catalog(base.config, tmp_path / "delta", changed_and_new()), "n2")
    whole = with_catalog(
        at(base.config, tmp_path / "other"), tmp_path / "whole", union_of(usable(), changed_and_new()), "full"
    )
    full = run_night(whole, "n1")
    assert delta.record.release == full.record.release != base.record.release
    assert release_bytes(delta.config, delta.record.release) == release_bytes(whole, full.record.release)
    assert delta.plan.partitions == full.plan.partitions


def test_the_account_of_a_delta(base, tmp_path):
    delta = run_night(with_catalog(base.config, tmp_path / "delta", changed_and_new()), "n2")
    count, known = usable().num_rows, delta.record.changes["known"]
    assert known == count
    assert (
        delta.record.changes
        == Changes(given=3, new=1, changed=2, moved=1, known=count, kept=count - 2).to_dict()
    )
    assert delta.record.counts["objects"].planned == count + 1
    assert accounting(delta.record)["changes"] == delta.record.changes
    assert status(delta.config.output)["changes"] == delta.record.changes
    page = open_storage(delta.config.output)
    write_report(delta.config.output, "n2")
    html = page.get("reports/n2/report.html").decode()
    assert "a delta, joined to the objects of the last complete night" in html.replace("  ", " ")
    assert json.loads(page.get("reports/n2/accounting.json"))["changes"]["moved"] == 1
    assert "Both sums close" in html


def test_only_partitions_whose_rows_changed_work(base, tmp_path):
    table = toy_catalog().to_pylist()
    one = objects([(1000, table[0]["ra"], table[0]["dec"], 5.0)])
    delta = run_night(with_catalog(base.config, tmp_path / "delta", one), "n2")
    worked = [summary for summary in delta.summaries if summary.skipped != ("cut", "predict")]
    assert len(worked) == 1
    assert len(delta.summaries) > 2
    before = {(item.partition, item.digest) for item in base.plan.partitions}
    after = {(item.partition, item.digest) for item in delta.plan.partitions}
    assert len(after - before) == len(before - after) == 1


def test_the_same_delta_again_has_nothing_to_do(base, tmp_path):
    config = with_catalog(base.config, tmp_path / "delta", changed_and_new())
    delta = run_night(config, "n2")
    prune(config, delta.plan)
    assert planning.is_done(config, planning.check(config)) is not None
    again = run_night(config, "n3")
    assert all(summary.skipped == ("cut", "predict") for summary in again.summaries)
    assert again.record.release == delta.record.release
    assert (again.record.changes["unchanged"], again.record.changes["changed"]) == (3, 0)


@pytest.mark.parametrize("committed", [0, 1, 2])
def test_killed_and_run_again_it_comes_to_the_same(base, tmp_path, committed):
    config = with_catalog(base.config, tmp_path / "delta", changed_and_new())
    straight = at(config, tmp_path / "straight")
    shutil.copytree(config.output, straight.output)
    expected = run_night(straight, "n2")
    # Killed after it was planned and some of its partitions were committed.
    killed = Ledger(open_storage(config.output))
    record = expected.record.__class__("n2", "running", planning.check(config), "", started="2026-01-01Tn2")
    killed.write_night(record)
    plan = planning.make_plan(config, "n2")
    known = {item.digest for item in base.plan.partitions}
    for item in [item for item in plan.partitions if item.digest not in known][:committed]:
        made = work.cut(config, origins(config), item.partition, item.digest)
        work.predict(config, origins(config), item.partition, item.digest, made)
    again = run_night(config, "n3")
    assert again.record.changes == expected.record.changes
    assert again.plan.partitions == expected.plan.partitions
    assert release_bytes(config, again.record.release) == release_bytes(straight, expected.record.release)


def test_a_night_that_did_not_complete_leaves_no_object_behind(base, tmp_path, caplog):
    lost = with_catalog(base.config, tmp_path / "lost", objects([(7000, 10.0, 5.0, 4.0)]))
    record = base.record.__class__("n2", "failed", planning.check(lost), "", started="2026-01-01Tn2")
    Ledger(open_storage(lost.output)).write_night(record)
    planning.make_plan(lost, "n2")
    config = with_catalog(base.config, tmp_path / "delta", changed_and_new())
    with caplog.at_level(logging.WARNING):
        delta = run_night(config, "n3")
    assert str(tmp_path / "lost") in caplog.text
    assert delta.record.changes["known"] == usable().num_rows
    prune(config, delta.plan)
    stored = {entry.key for entry in open_storage(config.output).list("ledger/rows")}
    assert stored == {rows_key(item.partition, item.digest) for item in delta.plan.partitions}


def test_an_overfull_pixel_is_parted_and_an_emptied_one_joined(base, tmp_path):
    centre = CENTRES["a"]
    rng = np.random.default_rng(8)
    crowd = objects([(8000 + n, *(centre + rng.uniform(-0.001, 0.001, 2)), 4.0) for n in range(60)])
    grown = run_night(with_catalog(base.config, tmp_path / "crowd", crowd), "n2")
    prune(grown.config, grown.plan)
    assert len(grown.plan.partitions) > len(base.plan.partitions)
    assert grown.record.changes["moved"] == 0
    gone = crowd.append_column("gone", pa.array([True] * 60))
    back = run_night(with_catalog(base.config, tmp_path / "gone", gone, removed="gone"), "n3")
    assert back.record.changes["removed"] == 60
    assert back.plan.partitions == base.plan.partitions
    assert back.record.release == base.record.release
    assert prune(back.config, back.plan) > 0


def test_a_full_night_counts_what_vanished(base, tmp_path):
    fewer = usable().slice(2)
    night = run_night(with_catalog(base.config, tmp_path / "fewer", fewer, "full"), "n2")
    assert (
        night.record.changes
        == Changes(
            given=fewer.num_rows,
            unchanged=fewer.num_rows,
            known=fewer.num_rows + 2,
            kept=fewer.num_rows,
            vanished=2,
        ).to_dict()
    )
    released = pq.read_table(
        f"{night.config.output}/releases/{night.record.release}/morphology/morphology/dataset"
    )
    assert not {1000, 1001} & set(released["object_id"].to_pylist())


def test_versions_are_kept_and_explained(base, tmp_path):
    table = toy_catalog().to_pylist()
    row = objects([(1000, table[0]["ra"], table[0]["dec"], 5.0)])

    def versioned(number):
        return row.append_column("v", pa.array([number]))

    newer = run_night(with_catalog(base.config, tmp_path / "v5", versioned(5), version="v"), "n2")
    assert explain(newer.config.output, 1000)["row"]["version"] == 5
    assert explain(newer.config.output, 1001)["row"].get("version") is None
    older = run_night(with_catalog(base.config, tmp_path / "v4", versioned(4), version="v"), "n3")
    assert (older.record.changes["stale"], older.record.changes["changed"]) == (1, 0)
    assert older.plan.partitions == newer.plan.partitions
    untouched = {(item.partition, item.digest) for item in base.plan.partitions}
    assert len(untouched - {(item.partition, item.digest) for item in newer.plan.partitions}) == 1


def told(config, object_id):
    story = explain(config.output, object_id)
    return story["change"], [(entry["night"], entry["change"]) for entry in story["history"]]


def test_what_deltas_changed_of_an_object_is_explained(base, tmp_path):
    assert told(base.config, 1000) == ("new", [])
    config = with_catalog(base.config, tmp_path / "d2", changed_and_new())
    run_night(config, "n2")
    assert told(config, 1000) == ("changed", [("n2", "changed")])
    assert told(config, 1002) == ("moved", [("n2", "moved")])
    assert told(config, 5000) == ("new", [("n2", "new")])
    assert told(config, 1001) == ("kept", [])
    story = explain(config.output, 5000)
    assert story["history"][0]["catalog"] == config.catalog.path
    assert story["history"][0]["state"] == "complete"
    run_night(config, "n3")
    assert told(config, 1000) == ("unchanged", [("n2", "changed"), ("n3", "unchanged")])
    row = changed_and_new().slice(0, 1)
    gone = with_catalog(
        base.config, tmp_path / "d4", row.append_column("gone", pa.array([True])), removed="gone"
    )
    run_night(gone, "n4")
    assert told(gone, 1000)[0] == "removed"
    assert explain(gone.output, 1000)["row"] is None
    assert told(gone, 5000) == ("kept", [("n2", "new"), ("n3", "unchanged")])


def test_what_vanished_from_a_full_catalog_is_explained(base, tmp_path):
    night = run_night(with_catalog(base.config, tmp_path / "fewer", usable().slice(2), "full"), "n2")
    assert told(night.config, 1000) == ("vanished", [("n2", "vanished")])
    assert told(night.config, 1004) == ("unchanged", [])


def test_a_first_delta_is_all_new(base, tmp_path):
    config = with_catalog(at(base.config, tmp_path / "empty"), tmp_path / "first", usable())
    night = run_night(config, "n1")
    assert night.record.changes == Changes(given=usable().num_rows, new=usable().num_rows).to_dict()
    assert night.record.release == base.record.release


def test_rows_that_are_gone_are_an_error_for_a_delta_alone(base, tmp_path):
    storage = open_storage(base.config.output)
    item = base.plan.partitions[1]
    storage.delete(rows_key(item.partition, item.digest))
    delta = with_catalog(base.config, tmp_path / "delta", changed_and_new())
    with pytest.raises(LedgerError, match=r"is gone; run a full night \(catalog\.mode: full\)"):
        last_known(delta)
    full = run_night(base.config, "n2")
    assert full.record.changes == {}
    assert full.record.release == base.record.release
    assert read_plan(storage, "n2").partitions == base.plan.partitions
