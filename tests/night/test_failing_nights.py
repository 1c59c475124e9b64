"""Whole nights through the command line on storage that fails: told, closed, and gone on from."""

import json
from pathlib import Path
from urllib.parse import quote, quote_plus

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from faults import SLOW_DOWN, Fault
from small_night import write_small_night
from toy import toy_catalog, toy_config
from whole_nights import account_of, commits, newer, released, stored

import gzscale._remote_storage
from gzscale.cli import main
from gzscale.night.plan import make_plan
from gzscale.night.verify import verify

# A partition that cannot be stored --------------------------------------------------------------


@pytest.fixture
def changed(ran, tmp_path):
    """A night that was run, and a configuration under which each of its partitions is to be done again."""
    table = toy_catalog()
    place = table.column_names.index("r90")
    larger = table.set_column(place, "r90", pc.multiply(table["r90"], pa.scalar(1.05, pa.float32())))
    pq.write_table(larger, tmp_path / "larger.parquet")
    catalog = ran.config.catalog.model_copy(update={"path": str(tmp_path / "larger.parquet")})
    return ran, ran.config.model_copy(update={"catalog": catalog})


@pytest.mark.parametrize("place", ["ledger/cut/{}.gaps.parquet", "predictions/{}.parquet"])
def test_a_partition_that_cannot_be_stored_fails_and_the_others_are_done(changed, run, place):
    ran, config = changed
    blocked = ran.plan.partitions[3]
    in_the_way = Path(config.output, place.format(blocked.partition.path))
    in_the_way.unlink()
    in_the_way.mkdir()
    before, released = commits(config.output), stored(config.output, "releases")

    done = run(config, "n2")
    assert done.exit_code == 1, done.output
    account = account_of(config.output)
    assert (account["night"], account["state"], account["release"]) == ("n2", "failed", "")
    assert account["failed"] == blocked.rows > 1
    assert account["done"] == 40 - blocked.rows
    (failure,) = account["failures"]
    assert (failure["partition"], failure["rows"]) == (blocked.partition.path, blocked.rows)
    page = Path(config.output, "reports", "n2", "report.html").read_text()
    for told in (failure["error"], done.stdout, done.stderr, page):
        assert f"{in_the_way}: " in told
        assert "a folder stands where a file should be: move it away" in told
    after = commits(config.output)
    assert newer(after, before) == before.keys() - {blocked.partition.path}
    assert stored(config.output, "releases") == released, "nothing is released"

    in_the_way.rmdir()
    done = run(config, "n3")
    assert done.exit_code == 0, done.output
    account = account_of(config.output)
    assert (account["state"], account["failed"], account["done"]) == ("complete", 0, 40)
    assert account["failures"] == []
    assert newer(commits(config.output), after) == {blocked.partition.path}
    assert account["release"] != ran.record.release
    assert json.loads(Path(config.output, "releases", "LATEST").read_text())["release"] == account["release"]
    assert verify(config.output) == []


def test_of_many_failed_partitions_the_status_tells_some(tmp_path):
    night = write_small_night(tmp_path, max_objects=4, failed_partitions=7, state="failed")
    assert len(night.record.failures) == 7
    done = CliRunner().invoke(main, ["status", night.output])
    assert done.exit_code == 1
    told = [line for line in done.stdout.splitlines() if line.startswith("failed ")]
    shown = night.record.failures[:5]
    assert told == [
        *(f"failed    {item['partition']} ({item['rows']} objects): {item['error']}" for item in shown),
        "failed    2 more partitions: see the report",
    ]


@pytest.mark.parametrize("garbage", [b"", b"\x00\xff not JSON", b"[]", b'{"release": "r"}'])
def test_a_pointer_that_cannot_be_read_ends_the_night_before_any_work(changed, run, garbage):
    _, config = changed
    pointer = Path(config.output, "releases", "LATEST")
    pointer.write_bytes(garbage)
    before = stored(config.output, "")
    done = run(config, "n2")
    assert done.exit_code == 2, done.output
    assert f"DAMAGE: {pointer}: not a release pointer" in done.output
    assert "delete it and run the night again" in done.output
    assert stored(config.output, "") == before


def test_a_pointer_that_was_deleted_is_written_anew_and_nothing_else_is(ran, run):
    # Under Dask the kind of device is a part of each commit.
    assert run(ran.config, "n2").exit_code == 0
    pointer = Path(ran.config.output, "releases", "LATEST")
    pointer.unlink()
    before = commits(ran.config.output)
    done = run(ran.config, "n3")
    assert done.exit_code == 0, done.output
    assert json.loads(pointer.read_text())["release"] == account_of(ran.config.output)["release"]
    assert commits(ran.config.output) == before
    assert Path(ran.config.output, "releases", ran.record.release, "manifest.json").exists()
    assert verify(ran.config.output) == []


# A full disk ------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_keeps_what_was_committed_and_goes_on_with_room(disk, run, tmp_path):
    output = disk("1m") / "night"
    config = toy_config(tmp_path, output=str(output))
    done = run(config, "n1")
    assert done.exit_code == 2, "not even its report has room"
    *_, last = done.output.splitlines()
    failed = [line for line in done.output.splitlines() if line.startswith("failed: ")]
    for told in (*failed, last):
        assert f" {output}/" in told
        assert "the disk is full: free space, then run the same command again" in told
    made = commits(output)
    assert made
    assert failed
    assert len(made) + len(failed) == len(stored(output, "ledger/rows"))
    assert stored(output, "releases") == {}

    disk("64m")
    done = run(config, "n2")
    assert done.exit_code == 0, done.output
    account = account_of(output)
    assert (account["state"], account["failed"], account["done"]) == ("complete", 0, 40)
    assert newer(commits(output), made) == commits(output).keys() - made.keys()
    assert verify(str(output)) == []


# S3 in trouble ----------------------------------------------------------------------------------


def few_objects(folder, count, **changes):
    """A partition of every other object, and one of the others; the fourth has no size."""
    config = toy_config(folder, max_objects=64, **changes)
    pq.write_table(toy_catalog().slice(0, count), folder / "catalog.parquet")
    return config


@pytest.fixture
def impatient(monkeypatch):
    """Answers of S3 are waited for half a second."""
    gzscale._remote_storage._client.cache_clear()  # the timeout is the client's
    monkeypatch.setattr("gzscale._remote_storage.READ_TIMEOUT", 0.5)
    yield
    gzscale._remote_storage._client.cache_clear()


@pytest.mark.s3
def test_trouble_of_s3_that_passes_leaves_no_trace_in_the_release(
    s3, faulty_s3, quick_retries, impatient, run, tmp_path
):
    undisturbed = few_objects(tmp_path, 1)
    assert run(undisturbed, "n1").exit_code == 0
    config = few_objects(tmp_path, 1, output=f"{s3.url}/night")
    faulty_s3.fail(
        *[
            Fault("status", 500, path=f"/night/{folder}/")
            for folder in ("cutouts", "predictions", "releases")
        ],
        *[Fault("status", 503, SLOW_DOWN, method="PUT", path="/night/")] * 3,
        *[Fault("status", 503, SLOW_DOWN, method="GET", path="/night/")] * 3,
        Fault("stall", seconds=0.9, method="PUT", path="/night/predictions/"),
        Fault("stall", seconds=0.9, method="GET", path="/night/cutouts/"),
    )
    done = run(config, "n1")
    assert faulty_s3.faults == [], "all of them were met"
    assert done.exit_code == 0, done.output
    account = account_of(config.output)
    assert (account["state"], account["done"], account["failed"]) == ("complete", 1, 0)
    assert released(config.output) == released(undisturbed.output)


@pytest.mark.s3
def test_trouble_of_s3_that_stays_with_a_partition_fails_it_alone(
    s3, faulty_s3, quick_retries, run, tmp_path
):
    broken, whole = make_plan(few_objects(tmp_path, 8), "n1").partitions
    config = few_objects(tmp_path, 8, output=f"{s3.url}/night")
    folders = ("cutouts", "predictions", "ledger/cut", "ledger/predict")
    keys = [quote(f"{folder}/{broken.partition.path}") for folder in folders]
    # A listing names them in its query.
    faulty_s3.fail(*[Fault("status", 500, path=key, lasting=True) for key in (*keys, *map(quote_plus, keys))])
    done = run(config, "n1")
    faulty_s3.fail()
    assert done.exit_code == 1, done.output
    account = account_of(config.output)
    assert (account["state"], account["release"]) == ("failed", "")
    assert (account["failed"], account["done"]) == (broken.rows, 7 - broken.rows)
    (failure,) = account["failures"]
    assert failure["partition"] == broken.partition.path
    for told in (failure["error"], done.stdout, done.stderr):
        assert f"{config.output}/ledger/cut/{broken.partition.path}.json: HTTP 500" in told
        assert "run the same command again later" in told
    assert commits(config.output).keys() == {whole.partition.path}
    assert stored(config.output, "releases") == {}
