"""Settings: the environment and `.env`, read when they are needed and never at import."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from tasks.errors import BadInput

Delivery = Literal["auto", "link", "sign", "inline"]


def _web_address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise ValueError("it should be an address such as https://api.aimlapi.com")
    return url


class Settings(BaseSettings):
    """Everything that can be set. Credentials of buckets come from fsspec's and the clouds' own conventions."""

    model_config = SettingsConfigDict(
        env_prefix="EFFECTS_",
        env_file=".env",
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        env_ignore_empty=True,
    )

    api_key: Annotated[
        SecretStr | None,
        Field(
            description="The AIML API key.",
            validation_alias=AliasChoices("EFFECTS_API_KEY", "AIMLAPI_KEY", "AIMLAPI_API_KEY"),
        ),
    ] = None
    api_url: Annotated[str, AfterValidator(_web_address), Field(description="Where the AIML API answers.")] = (
        "https://api.aimlapi.com"
    )
    model: Annotated[str | None, Field(description="Model id; the catalogue's default where unset.")] = None
    target: Annotated[str, Field(description="Where videos and the ledger go: any fsspec URL.")] = "./videos"
    inbox: Annotated[str | None, Field(description="The watched location: any fsspec URL.")] = None
    uploads_queue: Annotated[
        str | None, Field(description="The SQS queue that the upload listener takes notifications from: its URL.")
    ] = None
    uploads_secret: Annotated[
        SecretStr | None, Field(description="What senders of HTTP notifications have to know, 16 characters or more.")
    ] = None
    staging: Annotated[
        str | None, Field(description="Where images are copied to be signed, when their own home cannot sign.")
    ] = None
    delivery: Annotated[Delivery, Field(description="How the provider gets the images.")] = "auto"
    max_in_flight: Annotated[int, Field(description="Jobs under way at once.", ge=1)] = 20
    budget_usd: Annotated[float | None, Field(description="Spend no more than this in one run, US$.", ge=0)] = None
    generation_timeout_s: Annotated[
        float, Field(description="How long to wait for one generation, seconds.", gt=0, allow_inf_nan=False)
    ] = 900.0
    poll_interval_s: Annotated[
        float | None,
        Field(description="One look every so many seconds; unset = looks are planned.", gt=0, allow_inf_nan=False),
    ] = None
    max_attempts: Annotated[int, Field(description="Submissions of one job, where those before failed.", ge=1)] = 2
    allow_private_hosts: Annotated[
        bool | None,
        Field(description="Read images from, and download videos from, hosts that are not public."),
    ] = None
    catalogue: Annotated[
        str | None, Field(description="A TOML file that adds to or overrides the built-in catalogue.")
    ] = None

    @property
    def private_hosts_allowed(self) -> bool:
        """As set; where it is not set, only with a provider that is on this machine itself."""
        if self.allow_private_hosts is not None:
            return self.allow_private_hosts
        return urlsplit(self.api_url).hostname in {"localhost", "127.0.0.1", "::1"}

    def require_key(self) -> str:
        """The key in the clear, for the one header that carries it.

        Raises:
            BadInput: when no key is set, or it cannot be one.
        """
        if self.api_key is None or not self.api_key.get_secret_value().strip():
            raise BadInput("no key is set: put EFFECTS_API_KEY=… into the environment or into .env")
        key = self.api_key.get_secret_value().strip()
        if not key.isascii() or not key.isprintable() or " " in key:
            raise BadInput("EFFECTS_API_KEY holds characters that no key has: was it copied whole, and nothing else?")
        return key


def load_settings(**overrides: object) -> Settings:
    """The settings as they stand now; `overrides` win where they are not None.

    Raises:
        BadInput: naming every variable that does not fit.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        problems = []
        for issue in error.errors(include_url=False, include_input=False):
            name = str(issue["loc"][0]).upper() if issue["loc"] else "settings"
            problems.append(
                f"{name if '_API' in name or name.startswith('EFFECTS') else 'EFFECTS_' + name}: "
                f"{issue['msg'].removeprefix('Value error, ')}"
            )
        raise BadInput(problems) from None
    except (OSError, UnicodeError) as error:
        raise BadInput(f".env cannot be read: {error}") from None
