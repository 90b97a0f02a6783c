"""The form of `generate/on-demand`: what it offers, and what it refuses at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from prefect.exceptions import PrefectHTTPStatusError
from prefect.utilities.callables import parameter_schema

from flows import form
from flows.generate import generate
from flows.outcomes import outcome_of
from tasks.effects import load_catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from prefect.client.orchestration import PrefectClient

    from deployments.sandbox.server import Sandbox

pytestmark = pytest.mark.timeout(300)
"""The first test waits for the server, and for everything to be deployed."""

CORE = ["hug", "kiss", "heart_gesture", "squish", "expansion"]
Held = dict[str, dict[str, Any]]


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    """Each test draws up its own form: a process reads the catalogue for it once."""
    form._catalogue.cache_clear()
    yield
    form._catalogue.cache_clear()


def test_effect_and_duration_are_selects_and_images_a_list(held: Held) -> None:
    """The five that the project promises stand on top, all others below."""
    fields = held["generate/on-demand"]["parameter_openapi_schema"]["properties"]
    assert list(fields) == ["effect", "images", "duration", "take", "target"]
    assert [field["position"] for field in fields.values()] == [0, 1, 2, 3, 4]
    assert fields["effect"]["enum"][:5] == CORE
    assert set(fields["effect"]["enum"]) == set(load_catalogue().effects)
    assert (fields["duration"]["type"], fields["duration"]["enum"], fields["duration"]["default"]) == (
        "integer",
        [5, 10],
        5,
    )
    assert (fields["images"]["type"], fields["images"]["items"], fields["images"]["minItems"]) == (
        "array",
        {"type": "string"},
        1,
    )
    assert (fields["take"]["type"], fields["take"]["minimum"], fields["take"]["default"]) == ("integer", 0, 0)
    assert held["generate/on-demand"]["parameter_openapi_schema"]["required"] == ["effect", "images"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"effect": "hugg"}, "'hugg' is not one of"),
        ({"duration": 7}, "7 is not one of [5, 10]"),
        ({"duration": "10"}, "'10' is not one of [5, 10]"),
        ({"images": "a.jpg"}, "'a.jpg' is not of type 'array'"),
        ({"images": []}, "[] should be non-empty"),
        ({"take": -1}, "-1 is less than the minimum of 0"),
    ],
)
async def test_what_the_form_does_not_offer_creates_no_run(
    change: dict[str, object], complaint: str, client: PrefectClient
) -> None:
    """The same from a script; the answer says which field, and why."""
    deployment = await client.read_deployment_by_name("generate/on-demand")
    parameters = {"effect": "hug", "images": ["a.jpg", "b.jpg"], **change}
    with pytest.raises(PrefectHTTPStatusError) as refused:
        await client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
    assert refused.value.response.status_code == 409
    detail = refused.value.response.json()["detail"]
    assert next(iter(change)) in detail
    assert complaint in detail


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (("hug", ["a.jpg"]), "hug needs two images (the first is the person on the left); one was given"),
        (("squish", ["a.jpg", "b.jpg"]), "squish needs one image; two were given"),
        (("squish", ["a.jpg"], 10), "squish lasts 5 seconds; a duration of 10 was asked for"),
        (("hug", ["a.jpg"], 7), "hug lasts 5 or 10 seconds; a duration of 7 was asked for"),
        (("hugg", ["a.jpg"]), "unknown effect 'hugg': did you mean 'hug'?"),
    ],
)
async def test_a_wrong_combination_ends_at_once_and_says_what_to_do(
    wish: tuple[Any, ...], message: str, client: PrefectClient, sandbox: Sandbox
) -> None:
    """As the run's own state, before anything is fetched: none of these photos exists, and no step was begun."""
    run: Any = generate
    state = await run(*wish, return_state=True)
    assert (state.type.value, state.name) == ("FAILED", "Rejected")
    assert message in state.message
    assert state.message.endswith("→ fix the input")
    assert "a.jpg" not in state.message
    seen = await client.read_flow_run(state.state_details.flow_run_id)
    assert seen.state
    assert seen.state.message == state.message  # the dashboard shows it
    assert seen.total_run_time.total_seconds() < 60
    answer = await client._client.post(
        "/task_runs/count", json={"flow_runs": {"id": {"any_": [str(state.state_details.flow_run_id)]}}}
    )
    assert answer.json() == 0
    assert sandbox.counters.submissions == 0


def test_a_catalogue_of_ones_own_is_offered_when_deployed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its scenes and their durations, in a form that is drawn up with it."""
    (tmp_path / "mine.toml").write_text("[effects.hug_pro]\nimages = 2\ndurations = [5, 15]\ncore = true\n")
    monkeypatch.setenv("EFFECTS_CATALOGUE", str(tmp_path / "mine.toml"))
    fields = parameter_schema(generate).properties
    assert fields["effect"]["enum"][:6] == [*CORE, "hug_pro"]
    assert fields["duration"]["enum"] == [5, 10, 15]


def test_a_catalogue_that_cannot_be_read_leaves_a_form_to_type_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever deploys is told why; the flow says it again, in a state, to whoever asks for a video."""
    monkeypatch.setenv("EFFECTS_CATALOGUE", str(tmp_path / "none.toml"))
    effect = parameter_schema(generate).properties["effect"]
    assert effect["type"] == "string"
    assert "enum" not in effect
    assert "the form offers no choices" in caplog.text
    assert "none.toml: the catalogue cannot be read: there is no such file or bucket" in caplog.text


@pytest.mark.usefixtures("client", "sandbox")
async def test_the_flow_goes_by_the_catalogue_of_its_own_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by that of the form, which may be older: what a scene needs by now is what counts."""
    (tmp_path / "mine.toml").write_text("[effects.squish]\nimages = 2\n")
    monkeypatch.setenv("EFFECTS_CATALOGUE", str(tmp_path / "mine.toml"))
    run: Any = generate
    outcome = outcome_of(await run("squish", ["a.jpg"], return_state=True))
    assert outcome.reason == "squish needs two images; one was given → fix the input"
