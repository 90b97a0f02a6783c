"""The settings block, as operators find it in the dashboard."""

from __future__ import annotations

from prefect import get_client
from prefect.exceptions import ObjectNotFound

from flows.configuration import NAME, PhotoEffects, said_in


async def ensure_block() -> str:
    """Make the kind of block known to the server, and an empty one to fill in; what one says already stays.

    Returns:
        What was done, in a line.
    """
    await PhotoEffects.aregister_type_and_schema()
    slug = PhotoEffects.get_block_type_slug()
    async with get_client() as client:
        try:
            document = await client.read_block_document_by_name(NAME, slug)
        except ObjectNotFound:
            await PhotoEffects().asave(NAME)
            return f"created    block {slug}/{NAME}: fill it in, in the dashboard"
    if document.block_schema_id == PhotoEffects._block_schema_id:  # noqa: SLF001 - Prefect has no other name for it
        return f"unchanged  block {slug}/{NAME}"
    # Made by another release: the dashboard would go on showing the fields of then.
    await PhotoEffects(**said_in(document)).asave(NAME, overwrite=True)
    return f"updated    block {slug}/{NAME}: it has the fields of this release, and says what it said"
