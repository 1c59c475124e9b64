"""A night that failed is a run that failed, to Prefect itself; its account is left all the same."""

import pickle
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.testing.utilities import prefect_test_harness
from toy import ToySurvey, toy_config

from flows.backfill import backfill
from flows.nightly import MOST_NAMED, FailedNight, nightly
from gzscale.night import origins
from gzscale.night.plan import make_plan


@pytest.fixture(scope="module")
def prefect():
    """Prefect's own server, on a database of these tests."""
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def night(prefect, scheduler, tmp_path, monkeypatch):
    """A configuration's path, and the folder that stands where predictions of a partition should go."""
    monkeypatch.setattr(origins, "load_survey", lambda kind, *given: ToySurvey(*given))
    config = toy_config(tmp_path, cluster=scheduler)
    blocked = make_plan(config, "n0").partitions[0]
    in_the_way = Path(config.output, f"predictions/{blocked.partition.path}.parquet")
    in_the_way.mkdir(parents=True)
    path = tmp_path / "night.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return path, in_the_way, blocked


def accounts(run):
    """The accounting tables that a flow run left."""
    with get_client(sync_client=True) as client:
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=["night-accounting"]))
        return [item for item in client.read_artifacts(artifact_filter=wanted) if item.flow_run_id == run]


@pytest.mark.slow
def test_a_night_with_failed_objects_is_a_failed_run_with_an_account(night):
    path, in_the_way, blocked = night
    state = nightly(str(path), None, "n1", return_state=True)
    assert state.is_failed()
    for told in (
        f"night n1: {blocked.rows} of 43 objects failed",
        f"{blocked.partition.path} ({blocked.rows} objects)",
        f"{in_the_way}: ",
        "run the night again",
    ):
        assert told in state.message
    (left,) = accounts(state.state_details.flow_run_id)
    assert f'"failed": {blocked.rows}' in left.data

    in_the_way.rmdir()
    state = nightly(str(path), None, "n2", return_state=True)
    assert state.is_completed()
    assert len(accounts(state.state_details.flow_run_id)) == 1
    state = nightly(str(path), None, "n3", return_state=True)
    assert state.result()["night"] == "n2", "nothing to do"


@pytest.mark.slow
def test_a_backfill_with_such_a_night_fails_and_names_it(night):
    path, _, blocked = night
    day = "2026-11-01"
    state = backfill(str(path), day, day, [], return_state=True)
    assert state.is_failed()
    assert f"1 of 1 nights failed: {day}: FAILED: night " in state.message
    assert f"{blocked.rows} of 43 objects failed" in state.message


def test_a_failed_night_names_some_of_many_partitions_and_travels():
    failures = [{"partition": f"Npix={n}", "rows": 2, "error": "no room"} for n in range(MOST_NAMED + 4)]
    account = {
        "night": "n1",
        "planned": 40,
        "done": 20,
        "failed": 14,
        "quarantined": {"NOT_FITS": 6},
        "failures": failures,
    }
    error = pickle.loads(pickle.dumps(FailedNight("s3://survey/night", account)))
    assert error.account == account
    text = str(error)
    assert "14 of 40 objects failed, 20 are done, 6 quarantined" in text
    assert f"Npix={MOST_NAMED - 1} " in text
    assert f"Npix={MOST_NAMED} " not in text
    assert "4 more partitions" in text
    assert "`gzscale status s3://survey/night`" in text
