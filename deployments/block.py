"""The settings block, as operators find it in the dashboard."""

from __future__ import annotations

from prefect import get_client
from prefect.exceptions import ObjectNotFound

from flows.configuration import NAME, PhotoEffects


async def ensure_block() -> str:
    """Make the kind of block known to the server, and an empty one to fill in; what it says already stays.

    Returns:
        What was done, in a line.
    """
    await PhotoEffects.aregister_type_and_schema()
    slug = PhotoEffects.get_block_type_slug()
    async with get_client() as client:
        try:
            await client.read_block_document_by_name(NAME, slug, include_secrets=False)
        except ObjectNotFound:
            await PhotoEffects().asave(NAME)
            return f"created    block {slug}/{NAME}: fill it in, in the dashboard"
    return f"unchanged  block {slug}/{NAME}"
