"""Workers that die, hang or lose their device: the rest of the night is done, and the account closes."""

from dataclasses import replace

import dask
import pyarrow.parquet as pq
import pytest
from dying import Dying, DyingSurvey
from toy import toy_config

from gzscale.cluster import open_cluster
from gzscale.clusters import keeper
from gzscale.errors import LockedError
from gzscale.night import dispatch
from gzscale.night import origins as origin_module
from gzscale.night.accounting import close_account
from gzscale.night.dispatch import process
from gzscale.night.plan import check, is_done, make_plan
from gzscale.night.release import publish

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def dying():
    with pytest.MonkeyPatch.context() as patch:
        real = origin_module.load_survey
        patch.setattr(
            origin_module,
            "load_survey",
            lambda kind, *rest: DyingSurvey(*rest) if kind == "dying" else real(kind, *rest),
        )
        patch.setattr(keeper, "INTERVAL", 1.0)
        patch.setattr(dispatch, "DEATHS_AMONG_OTHERS", 1)
        patch.setattr(dispatch, "DEATHS_ALONE", 2)
        yield


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    path = tmp_path_factory.mktemp("preset") / "two.yaml"
    path.write_text("kind: local\nworkers: 2\npartition_limit: 120\n")
    # Dask gives a worker up sooner, so that the keeper has to start it again.
    timeout = {"distributed.deploy.lost-worker-timeout": "5 s"}
    with dask.config.set(timeout), open_cluster(str(path)) as opened:
        opened.client.register_plugin(Dying())
        yield opened


def night(cluster, folder, check_lock=lambda: None, **options):
    survey = {"kind": "dying", "root": "memory", "bands": "gri", "options": options}
    config = toy_config(folder, survey=survey, max_objects=64)
    plan = make_plan(config, "n1")
    tally = process(cluster, config, plan, lambda outcome: None, check_lock)
    counts = close_account(plan, tally)
    return config, plan, tally, counts


def quarantine(config, release):
    return pq.read_table(f"{config.output}/releases/{release}/quarantine.parquet").to_pylist()


def test_what_kills_its_workers_is_quarantined_and_the_rest_is_done(cluster, tmp_path):
    config, plan, tally, counts = night(cluster, tmp_path, deadly="a")
    assert tally.failures == []
    assert counts["objects"].quarantined["WORKER_LOST"] == 21
    assert counts["objects"].failed == 0
    assert counts["morphology"].done == 19
    rows = quarantine(config, publish(config, plan, "2026-01-01"))
    lost = [row for row in rows if row["reason"] == "WORKER_LOST"]
    assert {row["detail"] for row in lost} == {"2 workers died at cut"}
    assert all(abs(row["ra"] - 10) < 1 for row in lost)
    # The next night tries them again.
    assert is_done(config, check(config)) is None


def test_a_death_that_was_not_the_partition_s_fault_costs_nothing(cluster, tmp_path):
    once = tmp_path / "once"
    once.mkdir()
    _config, _, tally, counts = night(cluster, tmp_path, deadly="a", once=str(once))
    assert list(once.iterdir())
    assert tally.failures == []
    assert counts["morphology"].done == 40
    assert "WORKER_LOST" not in counts["objects"].quarantined


def test_a_straggler_is_stopped(cluster, tmp_path):
    strict = replace(cluster, partition_limit=20.0)
    _, _, tally, counts = night(strict, tmp_path, slow="b")
    assert tally.failures == []
    assert counts["objects"].quarantined["TIME_LIMIT"] >= 19
    assert counts["morphology"].done >= 20


def test_a_lost_lock_ends_the_night(cluster, tmp_path):
    def lost():
        raise LockedError("taken")

    with pytest.raises(LockedError, match="taken"):
        night(cluster, tmp_path, check_lock=lost, slow="b")
