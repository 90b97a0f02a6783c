"""The settings of a run: what the environment does not say, operators may say in a block, without a deploy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from prefect import get_client
from prefect.blocks.core import Block
from prefect.exceptions import ObjectNotFound
from pydantic import Field, SecretStr

from tasks.errors import BadInput
from tasks.settings import load_settings

if TYPE_CHECKING:
    from prefect.client.schemas.objects import BlockDocument

    from tasks.settings import Settings

NAME = "default"


class PhotoEffects(Block):
    """The provider's key, and what holds for runs that do not say otherwise. The workers' environment wins over it.

    Where the key is sent to is not among them: whoever may edit a block must not be able to send it elsewhere. Nor is
    what a worker may read: see `EFFECTS_API_URL`, `EFFECTS_CATALOGUE` and `EFFECTS_ALLOW_PRIVATE_HOSTS`.
    """

    _block_type_name = "Photo effects"
    _block_type_slug = "photo-effects"
    _description = "The provider's key and the defaults of the photo effects pipeline; empty fields are not set."

    # Text is empty where it is not set, rather than None: the dashboard then shows one plain field.
    api_key: Annotated[SecretStr, Field(title="AIML API key")] = SecretStr("")
    target: Annotated[str, Field(title="Target", description="Where videos and the ledger go: any fsspec URL.")] = ""
    inbox: Annotated[str, Field(title="Inbox", description="The watched location: any fsspec URL.")] = ""
    staging: Annotated[
        str,
        Field(title="Staging", description="Where images are copied to be signed, when their own home cannot sign."),
    ] = ""
    model: Annotated[str, Field(title="Model", description="Model id; the catalogue's default where empty.")] = ""
    max_in_flight: Annotated[int | None, Field(title="Jobs under way at once, in one run", ge=1)] = None
    budget_usd: Annotated[float | None, Field(title="Budget of one run, US$", ge=0)] = None


async def configured(**overrides: object) -> Settings:
    """The settings of this run: its parameters, then environment and `.env`, then the block, then the defaults.

    Args:
        overrides: parameters of the run; None where it was not given.

    Raises:
        BadInput: naming every variable, or every field of the block, that does not fit.
    """
    settings = load_settings(**overrides)
    unsaid = {name: value for name, value in (await _block()).items() if name not in settings.model_fields_set}
    if not unsaid:
        return settings
    try:
        return load_settings(**overrides | unsaid)
    except BadInput as error:
        block = f"block {PhotoEffects.get_block_type_slug()}/{NAME}"
        raise BadInput([f"{block}: {problem}" for problem in error.problems]) from None


async def _block() -> dict[str, Any]:
    """What the block says; nothing where there is none."""
    async with get_client() as client:
        try:
            return said_in(await client.read_block_document_by_name(NAME, PhotoEffects.get_block_type_slug()))
        except ObjectNotFound:
            return {}


def said_in(document: BlockDocument) -> dict[str, Any]:
    """The fields of a block that are not empty, of those that there are by now."""
    fields = PhotoEffects.model_fields
    return {name: value for name, value in document.data.items() if name in fields and value not in ("", None)}
