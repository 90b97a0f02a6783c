"""One wait: when the next look comes, what the provider's wishes do to it, and what is learned from it."""

from __future__ import annotations

import asyncio
import json
import math
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from deployments.sandbox.faults import Fault
from tasks import looks
from tasks.durations import Took
from tasks.errors import GenerationPending, GenerationTimeout, StorageError
from tasks.histories import HISTORY, KEEP_EVERY_S, Histories
from tasks.jobs import Generation, now
from tasks.looks import JITTER, plan_looks
from tasks.poll import poll, poll_generation
from tasks.storage import Storage
from tasks.submit import submit
from tasks.wait import Wait
from tests.conftest import looked_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from deployments.sandbox.server import Sandbox
    from tasks.workspace import Workspace

QUICK = tuple(Took.exactly(10.0 + i / 10) for i in range(30))


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_pauses_are_the_plans(clock: Clock) -> None:
    """The first look when it is worth one, each further one from what has passed, the last at the end of the wait."""
    wait = Wait(900.0, samples=lambda: QUICK, clock=clock)
    seen, begun = [], clock.now
    while not wait.over():
        clock.now += wait.pause_s()
        seen.append(clock.now - begun)
    plan = plan_looks(QUICK, timeout_s=900.0)
    assert wait.age_s() == pytest.approx(900.0)
    assert plan[0] <= seen[0] <= plan[0] * (1 + JITTER)
    assert 9.0 <= seen[0] <= 14.0
    assert len(seen) <= len(plan)
    assert seen[-1] == pytest.approx(900.0)


def test_what_is_learned_meanwhile_counts_at_the_next_look(clock: Clock) -> None:
    """A wait that began without a history does not keep to the plan that it began with."""
    known: list[Took] = []
    wait = Wait(900.0, samples=lambda: tuple(known), clock=clock)
    blind = wait.pause_s()
    known += QUICK
    assert blind > 30
    assert wait.pause_s() < 15


def test_waits_that_began_about_together_share_a_plan(clock: Clock) -> None:
    """A plan costs milliseconds, and hundreds of generations are some milliseconds old when their wait begins."""
    looks._plan.cache_clear()
    for number in range(50):
        Wait(900.0, age_s=number / 1000 + 0.001, samples=lambda: QUICK, clock=clock).pause_s()
    assert looks._plan.cache_info().misses == 1


def test_the_last_of_many_is_looked_at_more_closely(clock: Clock) -> None:
    """It holds up all the others; with a set interval it does not."""
    left = [1.0]
    wait = Wait(900.0, age_s=30.0, samples=lambda: QUICK, share_left=lambda: left[0], clock=clock)
    even = Wait(900.0, interval_s=2.0, share_left=lambda: left[0], clock=clock)
    among_many, evenly = wait.pause_s(), even.pause_s()
    left[0] = 0.01
    assert wait.pause_s() < among_many / 2
    assert even.pause_s() == evenly


def test_a_set_interval_is_kept(clock: Clock) -> None:
    """Give or take the jitter, which is never less."""
    pauses = [Wait(900.0, interval_s=2.0, samples=lambda: QUICK, clock=clock).pause_s() for _ in range(20)]
    assert all(2.0 <= pause <= 2.0 * (1 + JITTER) for pause in pauses)
    assert len(set(pauses)) > 1


def test_a_generation_that_is_taken_up_again_is_looked_at_straight_away(clock: Clock) -> None:
    """A fresh one is not: its submission's answer said all that there is to know."""
    assert Wait(900.0, clock=clock).early_s() > 30
    assert Wait(900.0, age_s=600.0, clock=clock).early_s() == 0


def test_the_provider_is_given_the_time_that_it_asks_for(clock: Clock) -> None:
    """Retry-After moves the next look, but never beyond the end of the wait."""
    wait = Wait(100.0, age_s=60.0, interval_s=1.0, clock=clock)
    wait.not_before = clock.now + 30
    assert wait.early_s() == pytest.approx(30.0)
    assert wait.pause_s() == pytest.approx(30.0)
    wait.not_before = clock.now + 500
    assert wait.pause_s() == pytest.approx(100.0)


async def test_retry_after_is_heeded_between_looks(workspace: Workspace, sandbox: Sandbox) -> None:
    """A 429 with Retry-After: the look after it is planned for then."""
    generation = await submit(await looked_at(workspace), workspace)
    sandbox.knobs.faults = [Fault(kind="429", route="poll", count=1, retry_after=7)]
    wait = Wait(60.0, age_s=60.0, interval_s=0.1)
    with pytest.raises(GenerationPending, match="busy") as raised:
        await poll(generation, workspace, wait)
    assert 6.0 < raised.value.look_in_s <= 7.0


def _generation(workspace: Workspace, sandbox: Sandbox) -> Callable[[int], asyncio.Task[Generation]]:
    async def one(take: int) -> Generation:
        return await submit(await looked_at(workspace, take=take), workspace)

    assert sandbox.url
    return lambda take: asyncio.ensure_future(one(take))


@pytest.mark.usefixtures("prefect_api")
async def test_a_run_teaches_the_next_one(workspace: Workspace, sandbox: Sandbox) -> None:
    """What the looks saw lies in the target, and another process plans with it."""
    sandbox.knobs.generate_seconds = 0.5
    generation = await _generation(workspace, sandbox)(0)
    await poll_generation(generation, workspace)
    await workspace.histories.keep()
    [path] = Path("videos", HISTORY).iterdir()
    [kept] = json.loads(path.read_text())["waits"]
    assert kept["generation_id"] == generation.id
    assert kept["after_s"] <= 0.6
    assert 0.5 <= kept["by_s"] < 5.0
    another = Histories(workspace.ledger.storage)
    assert another.samples(generation.request) == ()
    await another.load(generation.request)
    assert another.samples(generation.request) == (Took(kept["after_s"], kept["by_s"], 0),)


async def test_a_wait_in_vain_is_learned_from_too(workspace: Workspace, sandbox: Sandbox) -> None:
    """Else those that are seen done would teach that all are quick."""
    sandbox.knobs.generate_seconds = 60.0
    generation = await _generation(workspace, sandbox)(0)
    await workspace.histories.load(generation.request)
    wait = Wait(0.2, age_s=60.0, interval_s=0.1)
    with pytest.raises(GenerationPending):
        await poll(generation, workspace, wait)
    await asyncio.sleep(0.2)
    with pytest.raises(GenerationTimeout):
        await poll(generation, workspace, wait)
    [took] = workspace.histories.samples(generation.request)
    assert took.by_s == math.inf
    assert took.after_s >= 60.0


async def test_what_is_under_way_says_that_it_takes_longer(workspace: Workspace, sandbox: Sandbox) -> None:
    """Of many that began at once the quick ones end first: alone, they would teach what is not true."""
    generation = await _generation(workspace, sandbox)(0)
    histories = workspace.histories
    await histories.load(generation.request)
    wait = Wait(900.0)
    wait.running_s = 42.0
    histories.begin(generation, wait)
    assert histories.samples(generation.request) == (Took(42.0, math.inf, 0),)
    histories.end(generation)


async def test_how_many_are_left_is_known(workspace: Workspace, sandbox: Sandbox) -> None:
    """Of the most that waited at once, whatever they are of; alone, one is all of them."""
    begin, histories = _generation(workspace, sandbox), workspace.histories
    assert histories.share_left() == 1.0
    generations = [await begin(take) for take in range(4)]
    await histories.load(generations[0].request)
    histories.begin(generations[0], Wait(900.0))
    histories.end(generations[0])
    assert histories.share_left() == 1.0  # for the next one: one after another, each is all there is
    for generation in generations[:2]:
        histories.begin(generation, Wait(900.0))
    histories.end(generations[0])
    for generation in generations[2:]:
        histories.begin(generation, Wait(900.0))
    assert histories.share_left() == 1.0
    for generation in generations[1:3]:
        histories.end(generation)
    assert histories.share_left() == pytest.approx(1 / 3)


async def test_two_runs_that_write_forget_nothing(workspace: Workspace, sandbox: Sandbox, clock: Clock) -> None:
    """Each adds its own to what the other has written; a long run does so every minute."""
    begin = _generation(workspace, sandbox)
    one, two = Histories(workspace.ledger.storage, clock=clock), Histories(workspace.ledger.storage)
    generations = [await begin(take) for take in range(2)]
    for histories, generation in zip((one, two), generations, strict=True):
        await histories.load(generation.request)
    await two.learn(generations[1], Wait(900.0, age_s=20.0), done=True)
    await two.keep()
    clock.now += KEEP_EVERY_S
    await one.learn(generations[0], Wait(900.0, age_s=10.0), done=True)
    third = Histories(workspace.ledger.storage)
    await third.load(generations[0].request)
    assert {round(took.by_s) for took in third.samples(generations[0].request)} == {10, 20}


async def test_a_history_that_cannot_be_kept_costs_no_video(
    workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither reading nor writing it ever raises."""
    generation = await _generation(workspace, sandbox)(0)

    async def away(*_: object) -> None:
        raise StorageError("away")

    monkeypatch.setattr(Storage, "read", away)
    monkeypatch.setattr(Storage, "write", away)
    await workspace.histories.load(generation.request)
    await workspace.histories.learn(generation, Wait(900.0, age_s=10.0), done=True)
    await workspace.histories.keep()
    assert len(workspace.histories.samples(generation.request)) == 1


async def test_an_old_generation_does_not_age_by_what_ran_beside_it(workspace: Workspace, sandbox: Sandbox) -> None:
    """Ten that were submitted together count alike, in whatever order they ended; later ones make them old."""
    generation = await _generation(workspace, sandbox)(0)
    histories = workspace.histories
    await histories.load(generation.request)
    for number in range(10):
        beside = generation.model_copy(update={"id": f"beside-{number}"})
        await histories.learn(beside, Wait(900.0, age_s=100.0 + number), done=True)
    assert {took.newer for took in histories.samples(generation.request)} == {0}
    later = generation.model_copy(update={"id": "later", "submitted_at": now() + timedelta(hours=1)})
    for number in range(10):
        await histories.learn(later.model_copy(update={"id": f"later-{number}"}), Wait(900.0, age_s=50.0), done=True)
    assert {took.newer for took in histories.samples(generation.request)} == {0, 10}


@pytest.mark.usefixtures("prefect_api")
async def test_each_look_is_an_attempt_that_the_dashboard_shows(
    workspace: Workspace, sandbox: Sandbox, prefect_api: str
) -> None:
    """One task run; AwaitingRetry with the reason in between, for as long as the plan says."""
    sandbox.knobs.generate_seconds = 1.0
    generation = await _generation(workspace, sandbox)(0)
    video = await poll_generation(generation, workspace)
    assert video.looks >= 2
    async with httpx.AsyncClient(base_url=prefect_api) as api:
        for _ in range(100):
            runs = (await api.post("/task_runs/filter", json={"sort": "EXPECTED_START_TIME_DESC", "limit": 1})).json()
            if runs and runs[0]["state_type"] == "COMPLETED" and runs[0]["run_count"] >= video.looks:
                break
            await asyncio.sleep(0.2)
        states = (await api.get("/task_run_states/", params={"task_run_id": runs[0]["id"]})).json()
    assert {state["type"] for state in states} == {"RUNNING", "SCHEDULED", "COMPLETED"}
    waiting = [state for state in states if state["name"] == "AwaitingRetry"]
    assert len(waiting) >= video.looks - 1 >= 1
    assert all("look" in state["message"] for state in waiting)
