"""Automations: what goes wrong is notified of, and a run that is silent ends."""

import uuid
from datetime import timedelta
from pathlib import Path

import yaml
from prefect.events.schemas.events import Resource

from flows.automations import SILENCE, automations


def test_failed_crashed_late_and_cancelled_runs_are_notified_of():
    block = uuid.uuid4()
    failed, late, cancelled, _ = automations(block)
    assert failed.trigger.expect >= {"prefect.flow-run.Failed", "prefect.flow-run.Crashed"}
    assert late.trigger.expect == {"prefect.flow-run.Late"}
    # What Prefect makes of a run that meets another one of its deployment: see `concurrency_limit`.
    assert cancelled.trigger.expect == {"prefect.flow-run.Cancelled"}
    for automation in (failed, late, cancelled):
        assert [action.type for action in automation.actions] == ["send-notification"]
        assert automation.actions[0].block_document_id == block


def test_runs_of_other_teams_on_the_server_are_left_alone():
    deployments = yaml.safe_load((Path(__file__).parents[2] / "deploy/prefect.yaml").read_text())[
        "deployments"
    ]
    assert {tag for deployment in deployments for tag in deployment["tags"]} == {"gzscale"}
    for automation in automations(uuid.uuid4()):
        ours = automation.trigger.match_related
        tags = {"prefect.resource.id": "prefect.tag.gzscale", "prefect.resource.role": "tag"}
        assert ours.matches(Resource.model_validate(tags))
        assert not ours.matches(
            Resource.model_validate({**tags, "prefect.resource.id": "prefect.tag.theirs"})
        )


def test_a_silent_run_is_ended_once_for_each():
    dead, quicker = automations(uuid.uuid4())[3], automations(uuid.uuid4(), timedelta(seconds=75))[3]
    assert dead.trigger.posture.value == "Proactive"
    assert dead.trigger.after == {"prefect.flow-run.heartbeat"}
    assert "prefect.flow-run.heartbeat" in dead.trigger.expect
    assert (dead.trigger.within, quicker.trigger.within) == (SILENCE, timedelta(seconds=75))
    assert dead.actions[0].state.value == "CRASHED"
