"""A run that needs a person says so once, as an event that a notification can hang on."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import TYPE_CHECKING

from prefect.events import emit_event

from flows.outcomes import FOR_A_PERSON, carried
from tasks.errors import EffectsError
from tasks.jobs import Summary

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.schemas.objects import FlowRun, State

NEEDS_A_PERSON = "effects.needs-a-person"

TROUBLE = "effects.trouble"

REASONS = 10
"""Each with the number of its jobs, the most frequent first: a notification is read on a telephone."""


def call_for_a_person(flow: Flow[..., object], flow_run: FlowRun, state: State[object]) -> None:
    """A hook for flows that nobody watches, `on_failure`: one event a run, with counts and reasons.

    The payload: `line` (one line for people), `counts` (jobs by state), `cost_usd`, and `reasons`, a list of `state`,
    `reason`, `jobs`. A run that ended before it had jobs has its reason in `line`, and the rest empty.

    The resource is the flow run. Its label `effects.trouble` is the same where the same run, asked for again, meets
    the same trouble, so that a sweep every few minutes need not ring every few minutes.
    """
    payload = _payload(state)
    about = {
        "prefect.resource.id": f"prefect.flow-run.{flow_run.id}",
        "prefect.resource.name": flow_run.name,
        TROUBLE: _digest([flow.name, flow_run.parameters, payload["line"], payload["reasons"]]),
    }
    related = [
        {
            "prefect.resource.id": f"prefect.flow.{flow_run.flow_id}",
            "prefect.resource.role": "flow",
            "prefect.resource.name": flow.name,
        },
        *({"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"} for tag in flow_run.tags),
    ]
    emit_event(NEEDS_A_PERSON, about, related=related, payload=payload)


def _payload(state: State[object]) -> dict[str, object]:
    try:
        summary = carried(state, Summary)
    except EffectsError as error:
        return {"line": error.reason, "counts": {}, "cost_usd": 0.0, "reasons": []}
    why = Counter((row.state, row.reason) for row in summary.rows if row.state in FOR_A_PERSON)
    reasons = [{"state": job, "reason": reason, "jobs": jobs} for (job, reason), jobs in why.most_common(REASONS)]
    return {"line": summary.line, "counts": summary.counts, "cost_usd": summary.cost_usd, "reasons": reasons}


def _digest(what: object) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:16]
