"""The settings block: what the environment does not say, operators may say in the dashboard."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from prefect.client.schemas.actions import BlockDocumentUpdate, BlockSchemaCreate

from deployments.block import ensure_block
from flows.configuration import NAME, PhotoEffects, configured
from flows.generate import generate
from flows.outcomes import outcome_of
from tasks.errors import BadInput
from tests.conftest import CHELSEA

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from prefect.client.orchestration import PrefectClient

    from deployments.sandbox.server import Sandbox

pytestmark = pytest.mark.timeout(300)
"""The first test waits for the server, and for everything to be deployed."""

SLUG = "photo-effects"


@pytest.fixture(autouse=True)
async def emptied(client: PrefectClient) -> AsyncIterator[None]:
    """The next test finds the block as the command made it."""
    assert client
    yield
    await PhotoEffects().asave(NAME, overwrite=True)


async def test_without_a_word_in_it_everything_is_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty field is not set: it is neither an empty target nor a budget of nothing."""
    monkeypatch.setenv("EFFECTS_TARGET", "/from/environment")
    settings = await configured()
    assert settings.target == "/from/environment"
    assert (settings.inbox, settings.budget_usd, settings.max_in_flight) == (None, None, 20)


async def test_where_there_is_none_nothing_is_missing(client: PrefectClient) -> None:
    """Whoever never ran the command has no block, and need not have one."""
    document = await client.read_block_document_by_name(NAME, SLUG)
    await client.delete_block_document(document.id)
    assert (await configured()).target == "./videos"
    assert await ensure_block() == f"created    block {SLUG}/{NAME}: fill it in, in the dashboard"


async def test_parameters_win_over_the_environment_and_that_over_the_block(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Field by field; `.env` counts as environment."""
    said = PhotoEffects(api_key="block-key", target="/block", inbox="/block/in", budget_usd=0, max_in_flight=3)
    await said.asave(NAME, overwrite=True)
    monkeypatch.setenv("EFFECTS_INBOX", "/environment/in")
    (tmp_path / ".env").write_text("EFFECTS_MAX_IN_FLIGHT=7\n")
    settings = await configured(target="/parameter")
    assert settings.target == "/parameter"
    assert settings.inbox == "/environment/in"
    assert settings.max_in_flight == 7
    assert settings.budget_usd == 0  # said, and the strictest that there is
    assert settings.require_key() == "block-key"
    assert (await configured(target=None)).target == "/block"
    monkeypatch.setenv("AIMLAPI_KEY", "environment-key")
    assert (await configured()).require_key() == "environment-key"


async def test_a_run_goes_where_the_block_says(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The video lies in the target that an operator typed in, bought with the key that stands beside it."""
    monkeypatch.delenv("EFFECTS_API_KEY")
    await PhotoEffects(api_key="from-the-block", target=str(tmp_path / "operators")).asave(NAME, overwrite=True)
    run: Any = generate
    outcome = outcome_of(await run("squish", [CHELSEA], return_state=True))
    assert outcome.state == "completed"
    assert str(outcome.video).startswith(str(tmp_path / "operators" / "squish"))
    assert sandbox.counters.billed == 1


async def test_what_does_not_fit_is_named_with_the_block(client: PrefectClient) -> None:
    """Else somebody looks for a variable that nobody has set."""
    document = await client.read_block_document_by_name(NAME, SLUG)
    change = BlockDocumentUpdate(data={"max_in_flight": 0}, merge_existing_data=True)
    await client.update_block_document(document.id, change)
    with pytest.raises(BadInput, match=rf"block {SLUG}/{NAME}: EFFECTS_MAX_IN_FLIGHT: .*greater than or equal to 1"):
        await configured()


async def test_the_key_is_not_shown(client: PrefectClient) -> None:
    """Neither in the dashboard nor in what a run may print of it."""
    block = PhotoEffects(api_key="very-secret")
    await block.asave(NAME, overwrite=True)
    shown = await client.read_block_document_by_name(NAME, SLUG, include_secrets=False)
    assert "very-secret" not in str(shown)
    assert "very-secret" not in repr(block)


async def test_nobody_can_send_the_key_elsewhere_through_the_block() -> None:
    """Whoever edits a block does not thereby get the key of the environment, nor at a worker's files."""
    assert not {"api_url", "catalogue", "allow_private_hosts"} & set(PhotoEffects.model_fields)


async def test_a_block_of_an_older_release_gets_the_fields_of_this_one(client: PrefectClient) -> None:
    """What it says stays, the secret too; only then does the dashboard show what is new."""
    await PhotoEffects(api_key="kept", target="/kept").asave(NAME, overwrite=True)
    document = await client.read_block_document_by_name(NAME, SLUG)
    kind = await client.read_block_type_by_slug(SLUG)
    fields = copy.deepcopy(PhotoEffects._to_block_schema(block_type_id=kind.id).fields)
    fields["properties"]["long_gone"] = fields["properties"].pop("model")
    schema = await client.create_block_schema(BlockSchemaCreate(fields=fields, block_type_id=kind.id))
    change = BlockDocumentUpdate(block_schema_id=schema.id, data={"long_gone": "y"}, merge_existing_data=True)
    await client.update_block_document(document.id, change)
    assert (await ensure_block()).startswith("updated")
    assert (await ensure_block()).startswith("unchanged")
    settings = await configured()
    assert (settings.target, settings.require_key()) == ("/kept", "kept")
    shown = (await client.read_block_document_by_name(NAME, SLUG)).block_schema
    assert shown
    assert set(shown.fields["properties"]) == set(PhotoEffects.model_fields)
