"""Makes Prefect's automations: notifications of failed, late and cancelled runs, and the end of dead ones.

Run once, and again after a change: ``python -m flows.automations custom-webhook/night-alerts [SECONDS]``.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from datetime import timedelta
from typing import Any
from uuid import UUID

from flows.settings import apply_quiet_defaults

apply_quiet_defaults()

from prefect.automations import Automation  # noqa: E402
from prefect.blocks.core import Block  # noqa: E402
from prefect.client.schemas.objects import StateType  # noqa: E402
from prefect.events.actions import ChangeFlowRunState, SendNotification  # noqa: E402
from prefect.events.schemas.automations import EventTrigger, Posture  # noqa: E402

__all__ = ["automations", "make_automations"]

#: How long a run may send no heartbeat before it counts as dead: its process was killed, or its machine.
SILENCE = timedelta(minutes=5)
_RUN: dict[str, str | list[str]] = {"prefect.resource.id": "prefect.flow-run.*"}
#: The tag of the deployments of `deploy/prefect.yaml`: a server may have other teams' runs, too.
_OURS: dict[str, str | list[str]] = {
    "prefect.resource.id": "prefect.tag.gzscale",
    "prefect.resource.role": "tag",
}
_EACH = {"prefect.resource.id"}
_BODY = (
    "Flow run {{ flow_run.name }} of {{ flow.name }} is {{ flow_run.state.name }}.\n"
    "{{ flow_run.state.message }}\n"
    "Run the deployment again: what is committed is left alone. {{ (flow_run|ui_url) or '' }}"
)


def automations(block: UUID, silence: timedelta = SILENCE) -> list[Automation]:
    """Describe the automations.

    Parameters
    ----------
    block
        Identifier of the notification block that messages go to.
    silence
        How long a run may send no heartbeat; more than two of `deploy/prefect.yaml`'s intervals.
    """
    return [
        _message(
            block,
            "failed",
            "A night, backfill, training or verification failed or crashed.",
            {"Failed", "Crashed", "TimedOut"},
        ),
        _message(block, "is late", "A scheduled run has not begun: no worker polls its pool.", {"Late"}),
        _message(
            block,
            "was cancelled",
            "Somebody cancelled it, or the one before it was still at work: it was left out.",
            {"Cancelled"},
        ),
        Automation(
            name="gzscale: a run is dead",
            description="A run whose process was killed sends no heartbeats; it is marked as crashed.",
            trigger=EventTrigger(
                match=_RUN,
                match_related=_OURS,
                after={"prefect.flow-run.heartbeat"},
                expect={
                    "prefect.flow-run.heartbeat",
                    "prefect.flow-run.Completed",
                    "prefect.flow-run.Failed",
                    "prefect.flow-run.Cancelled",
                    "prefect.flow-run.Crashed",
                },
                for_each=_EACH,
                posture=Posture.Proactive,
                threshold=1,
                within=silence,
            ),
            actions=[
                ChangeFlowRunState(
                    state=StateType.CRASHED,
                    name="Crashed",
                    force=False,
                    message=f"no heartbeat for {silence}: the process or its machine was killed",
                )
            ],
        ),
    ]


def _message(block: UUID, what: str, description: str, states: set[str]) -> Automation:
    """Describe a message about each run that comes to one of some states."""
    return Automation(
        name=f"gzscale: a run {what}",
        description=description,
        trigger=EventTrigger(
            match=_RUN,
            match_related=_OURS,
            expect={f"prefect.flow-run.{state}" for state in states},
            for_each=_EACH,
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[
            SendNotification(
                block_document_id=block, subject=f"gzscale: {what.rpartition(' ')[2]}", body=_BODY
            )
        ],
    )


async def make_automations(block_name: str, silence: timedelta = SILENCE) -> list[str]:
    """Create the automations on Prefect's server, in the place of older ones of the same names.

    Parameters
    ----------
    block_name
        ``type/name`` of a notification block, as ``prefect block ls`` shows it. The
        address that it sends to, a secret, is kept in the block alone.
    silence
        How long a run may send no heartbeat before it counts as dead.

    Returns
    -------
    list[str]
        Their names.

    Raises
    ------
    ValueError
        If there is no such block.
    """
    block: Any = await Block.aload(block_name)
    identifier = block._block_document_id
    if identifier is None:
        raise ValueError(f"block {block_name} is not saved on the server")
    names = []
    for automation in automations(identifier, silence):
        with contextlib.suppress(ValueError):  # There is none of that name yet.
            await (await Automation.aread(name=automation.name)).adelete()
        await automation.acreate()
        names.append(automation.name)
    return names


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(
            "usage: python -m flows.automations TYPE/NAME of a notification block (`prefect block ls`) "
            f"[SECONDS without heartbeat after which a run is dead: {SILENCE.total_seconds():.0f}]"
        )
    given = timedelta(seconds=float(sys.argv[2])) if len(sys.argv) > 2 else SILENCE
    print("\n".join(asyncio.run(make_automations(sys.argv[1], given))))
