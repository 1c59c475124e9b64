"""Automations: what goes wrong is notified of, and a run that is silent ends."""

import uuid
from datetime import timedelta

from flows.automations import SILENCE, automations


def test_failed_crashed_and_late_runs_are_notified_of():
    block = uuid.uuid4()
    failed, late, _ = automations(block)
    assert failed.trigger.expect >= {"prefect.flow-run.Failed", "prefect.flow-run.Crashed"}
    assert late.trigger.expect == {"prefect.flow-run.Late"}
    for automation in (failed, late):
        assert [action.type for action in automation.actions] == ["send-notification"]
        assert automation.actions[0].block_document_id == block


def test_a_silent_run_is_ended_once_for_each():
    dead, quicker = automations(uuid.uuid4())[2], automations(uuid.uuid4(), timedelta(seconds=75))[2]
    assert dead.trigger.posture.value == "Proactive"
    assert dead.trigger.after == {"prefect.flow-run.heartbeat"}
    assert "prefect.flow-run.heartbeat" in dead.trigger.expect
    assert (dead.trigger.within, quicker.trigger.within) == (SILENCE, timedelta(seconds=75))
    assert dead.actions[0].state.value == "CRASHED"
