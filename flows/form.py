"""The choices of the form: what the catalogue offers, as the types of a flow's parameters.

They are asked for when Prefect draws up the form, that is when a flow is deployed: whoever changes the file that
`EFFECTS_CATALOGUE` names deploys again. What may be asked for is decided by the flow, with the catalogue of then.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Annotated

from tasks.effects import load_catalogue
from tasks.errors import EffectsError
from tasks.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pydantic import GetJsonSchemaHandler
    from pydantic_core import CoreSchema

    from tasks.effects import Catalogue

log = logging.getLogger("effects")


class Choice:
    """A parameter that the form shows as a select.

    Args:
        offered: its values, out of the catalogue.
    """

    def __init__(self, offered: Callable[[Catalogue], Sequence[str | int]]) -> None:
        self._offered = offered

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, object]:
        """The type's schema with the values; free text where the catalogue cannot be read, of which each run tells."""
        schema = handler(core)
        try:
            catalogue = _catalogue(load_settings().catalogue)
        except EffectsError as error:
            log.warning("the form offers no choices: %s", error)
            return schema
        return {**schema, "enum": list(self._offered(catalogue))}


@cache
def _catalogue(extra: str | None) -> Catalogue:
    """Read once a process: Prefect draws up a form several times over, and the file may lie in a bucket."""
    return load_catalogue(extra)


def _effects(catalogue: Catalogue) -> Sequence[str | int]:
    """The five that the project promises come first."""
    return [effect.name for effect in sorted(catalogue.effects.values(), key=lambda effect: not effect.core)]


def _durations(catalogue: Catalogue) -> Sequence[str | int]:
    return sorted({duration for effect in catalogue.effects.values() for duration in effect.durations})


Effect = Annotated[str, Choice(_effects)]
Duration = Annotated[int, Choice(_durations)]
