"""What the server does by itself: takes up runs whose process died, and sweeps where an upload started nothing.

`python -m deployments.automations`, after `prefect deploy --all`, creates or updates all of it; doing it again changes
nothing. An automation that somebody switched off in the dashboard stays off.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

from prefect import get_client
from prefect.automations import (
    AutomationCore,
    ChangeFlowRunState,
    EventTrigger,
    Posture,
    RunDeployment,
    SendNotification,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound

from deployments.block import ensure_block
from flows.attention import NEEDS_A_PERSON, TROUBLE
from tasks.errors import BadInput

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient

TAG = "effects"
"""Every deployment of prefect.yaml has it, and so has each of its runs."""

UPLOAD_TRIGGER = "effects · an upload starts a run"
"""As prefect.yaml names it."""

SWEEP = "process-inbox/sweep"

RUNS = 3
"""A run is begun no more often than this: what kills its process three times would do it for ever."""

TOLD_AGAIN_AFTER = timedelta(hours=6)
"""The same trouble of the same sweep is one message for so long; another trouble is told at once."""

BEATS_MISSED_S = 90
"""Of a beat every 30 seconds (`PREFECT_FLOWS_HEARTBEAT_FREQUENCY` in prefect.yaml)."""

SETTLED_S = 10
"""After a crash, without another word of the run. Prefect allows no less."""

_LINK = "{{ (flow_run | ui_url) or 'Run ' ~ flow_run.id }}"
"""A link where the server knows its own address (`PREFECT_UI_URL`)."""

_OURS = {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"}
_RUN = {"prefect.resource.id": "prefect.flow-run.*"}


def recovery(sweep: UUID) -> tuple[AutomationCore, ...]:
    """What needs no person.

    Args:
        sweep: id of the deployment that sweeps the inbox.
    """
    return (
        AutomationCore(
            name="effects · a silent run has crashed",
            description=f"No heartbeat for {BEATS_MISSED_S} seconds: its process died, and its worker with it.",
            trigger=EventTrigger(
                match=_RUN,
                match_related=_OURS,
                after={"prefect.flow-run.heartbeat"},
                # Whatever a run says means that it lives, or ended: our final states have names of their own.
                expect={"prefect.flow-run.*"},
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=timedelta(seconds=BEATS_MISSED_S),
            ),
            actions=[ChangeFlowRunState(state=StateType.CRASHED, message="its heartbeats stopped")],
        ),
        AutomationCore(
            name="effects · a crashed run is taken up again",
            description=f"The same run with the same parameters, {RUNS} times at most. The ledger pays nothing twice.",
            trigger=EventTrigger(
                # Prefect has no guard of its own against loops. A run that never began counts none, and would loop.
                match={**_RUN, "prefect.run-count": [str(run) for run in range(1, RUNS)]},
                match_related=_OURS,
                after={"prefect.flow-run.Crashed"},
                # A worker may tell of one death twice, and seconds apart: at once, it would be taken up twice. And
                # what goes on or ended after all is not dead.
                expect={"prefect.flow-run.*"},
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=timedelta(seconds=SETTLED_S),
            ),
            actions=[ChangeFlowRunState(state=StateType.SCHEDULED, message="its process died: it is taken up again")],
        ),
        AutomationCore(
            name="effects · an upload that started nothing is swept up",
            description="The upload trigger's run could not be created: a sweep finds the upload in the inbox.",
            trigger=_upload_trigger_failed(within=timedelta(minutes=1)),  # one sweep for all that fail together
            actions=[RunDeployment(deployment_id=sweep)],
        ),
    )


def notifications(block: UUID) -> tuple[AutomationCore, ...]:
    """What a person is told.

    Args:
        block: id of a notification block, such as a Slack webhook.
    """

    def tell(what: str, trigger: EventTrigger, body: str) -> AutomationCore:
        name = f"effects · tell: {what}"
        return AutomationCore(
            name=name,
            trigger=trigger,
            actions=[SendNotification(block_document_id=block, subject=f"Photo effects: {what}", body=body)],
        )

    died = EventTrigger(
        match={**_RUN, "prefect.run-count": ["0", str(RUNS)]},  # before it began, or too often
        match_related=_OURS,
        expect={"prefect.flow-run.Crashed"},
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
        within=timedelta(minutes=10),  # a worker may tell of one death twice
    )
    needs = EventTrigger(
        expect={NEEDS_A_PERSON},
        for_each={TROUBLE},
        posture=Posture.Reactive,
        threshold=1,
        within=TOLD_AGAIN_AFTER,
    )
    return (
        tell(
            "a run needs a person",
            needs,
            "{{ event.resource.name }}: {{ event.payload.line }}\n"
            "{% for why in event.payload.reasons %}{{ why.jobs }} × {{ why.state }}: {{ why.reason }}\n{% endfor %}"
            + _LINK,
        ),
        tell(
            "a run is given up",
            died,
            "{{ flow_run.name }} crashed, and is not taken up again: {{ flow_run.state.message }}\n"
            "What it paid for is in the ledger; `resume` finishes it.\n" + _LINK,
        ),
        tell(
            "an upload started nothing",
            _upload_trigger_failed(within=timedelta(minutes=1)),
            "{{ event.payload.reason }}\nThe inbox is being swept instead.",
        ),
    )


def _upload_trigger_failed(*, within: timedelta) -> EventTrigger:
    return EventTrigger(
        # Of this trigger alone: when the sweep itself cannot be started, that must not start another.
        match={"prefect.resource.id": "prefect.automation.*", "prefect.resource.name": UPLOAD_TRIGGER},
        expect={"prefect.automation.action.failed"},
        posture=Posture.Reactive,
        threshold=1,
        within=within,
    )


async def ensure_automations(notify: str | None = None) -> list[str]:
    """Create or update the automations and the settings block on the server that is configured.

    Args:
        notify: a notification block to tell people through, as `<type>/<name>`, such as `slack-webhook/effects`.

    Returns:
        What was done, a line each.

    Raises:
        BadInput: the deployments are not there yet, or the block is not.
    """
    done = [await ensure_block()]
    async with get_client() as client:
        automations = recovery(await _deployment(SWEEP, client))
        if notify:
            automations += notifications(await _block(notify, client))
        done += [await _ensure(automation, client) for automation in automations]
    return done


async def _ensure(wanted: AutomationCore, client: PrefectClient) -> str:
    there = await client.read_automations_by_name(wanted.name)
    if not there:
        await client.create_automation(wanted)
        return f"created    {wanted.name}"
    kept, *others = sorted(there, key=lambda automation: str(automation.id))
    for other in others:  # two of this command at once
        await client.delete_automation(other.id)
    wanted = wanted.model_copy(update={"enabled": kept.enabled})
    if _meaning(kept) == _meaning(wanted):
        return f"unchanged  {wanted.name}"
    await client.update_automation(kept.id, wanted)
    return f"updated    {wanted.name}"


def _meaning(automation: AutomationCore) -> dict[str, object]:
    return automation.model_dump(
        mode="json", include={"description", "trigger", "actions"}, exclude={"trigger": {"id"}}
    )


async def _deployment(name: str, client: PrefectClient) -> UUID:
    try:
        return (await client.read_deployment_by_name(name)).id
    except ObjectNotFound:
        raise BadInput(f"there is no deployment {name}: run `prefect deploy --all` first") from None


async def _block(name: str, client: PrefectClient) -> UUID:
    kind, _, document = name.partition("/")
    try:
        return (await client.read_block_document_by_name(document, kind, include_secrets=False)).id
    except ObjectNotFound:
        raise BadInput(f"there is no block {name}: create it in the dashboard, or see the README") from None


def main() -> int:
    """Do it, and say what was done; 2 where something has to be there first."""
    parser = argparse.ArgumentParser(prog="python -m deployments.automations", description=__doc__)
    parser.add_argument("--notify", metavar="BLOCK", help="tell people through it: slack-webhook/NAME, for example")
    try:
        for line in asyncio.run(ensure_automations(parser.parse_args().notify)):
            sys.stdout.write(f"{line}\n")
    except BadInput as error:
        sys.stderr.write(f"effects: {error.reason}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
