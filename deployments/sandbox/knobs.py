"""The knobs of the stand-in: everything about it that can be set when it starts and while it runs."""

from pydantic import BaseModel, ConfigDict, Field

from deployments.sandbox.faults import Fault


class Knobs(BaseModel):
    """Settings; assigning to a field takes effect with the next request.

    Raises:
        pydantic.ValidationError: a value out of range or an unknown name, at the start and at each assignment.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    generate_seconds: float = Field(default=3.0, ge=0, description="median time from submit to the end")
    sigma: float = Field(default=0.0, ge=0, description="log-normal spread of that time; 0: always the same")
    queue_fraction: float = Field(default=0.3, ge=0, le=1, description="the share of that time spent queued")
    render: bool = Field(default=True, description="render videos of the images; else a tiny MP4 of the right length")
    fetch_images: bool = Field(default=True, description="fetch and decode the images; needed to render")
    fetch_timeout_s: float = Field(default=10.0, gt=0, description="how long fetching one image may take")
    balance_usd: float = Field(default=50.0, description="what the account was filled up with, all in all")
    api_key: str | None = Field(default=None, description="the only key it accepts; None: any key")
    unverified_card: bool = Field(default=False, description="every submission gets 403 err_unverified_card")
    withdrawn_models: list[str] = Field(default_factory=list, description="submissions of these get 404")
    deprecations: list[dict[str, object]] = Field(default_factory=list, description="rows of /v1/models/deprecations")
    seed: int | None = Field(default=None, description="makes chance repeatable; read once, at the start")
    log_delay_seconds: float = Field(default=0.0, ge=0, description="how late a row appears in /v2/logs")
    logs_running_rows: bool = Field(default=True, description="whether a generation has a row before it has ended")
    logs_per_minute: int = Field(default=200, ge=0, description="requests to /v2/logs before 429")
    cdn_url: str | None = Field(default=None, description="base of video links; None: the address asked for the status")
    faults: list[Fault] = Field(default_factory=list, description="asked in this order")
