"""Automations: what goes wrong is notified of, and a run that is silent ends."""

import uuid
from datetime import timedelta

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


def test_a_silent_run_is_ended_once_for_each():
    dead, quicker = automations(uuid.uuid4())[3], automations(uuid.uuid4(), timedelta(seconds=75))[3]
    assert dead.trigger.posture.value == "Proactive"
    assert dead.trigger.after == {"prefect.flow-run.heartbeat"}
    assert "prefect.flow-run.heartbeat" in dead.trigger.expect
    assert (dead.trigger.within, quicker.trigger.within) == (SILENCE, timedelta(seconds=75))
    assert dead.actions[0].state.value == "CRASHED"
