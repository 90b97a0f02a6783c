"""Faults: what can go wrong at a provider, by name, with a rate and a count. Plain data and decisions, no sockets."""

import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Route = Literal["submit", "poll", "logs", "billing", "models", "cdn"]

_API: tuple[Route, ...] = ("submit", "poll", "logs", "billing", "models")
_ANY: tuple[Route, ...] = (*_API, "cdn")


@dataclass(frozen=True)
class Kind:
    """What a fault does.

    Attributes:
        does: one line for a person.
        routes: where it strikes when a fault names no route.
        allowed: every route that a fault may name.
        after: whether it may strike after the request was acted on, so that only the answer is lost.
    """

    does: str
    routes: tuple[Route, ...]
    allowed: tuple[Route, ...]
    after: bool = False


def _kind(does: str, *routes: Route) -> Kind:
    return Kind(does, routes, routes)


# The whole answer is another one. The refusals among them (no `after`) never follow an accepted request: that is what
# makes them refusals, and what a client may rely on.
ANSWERS: dict[str, Kind] = {
    "429": Kind("too many requests", _API, _ANY),
    "408": Kind("request timeout", _API, _ANY, after=True),
    "500": Kind("internal server error", _API, _ANY, after=True),
    "502": Kind("bad gateway", _API, _ANY, after=True),
    "503": Kind("service unavailable", _API, _ANY, after=True),
    "504": Kind("gateway timeout", _API, _ANY, after=True),
    "524": Kind("the CDN in front gave up waiting", _API, _ANY, after=True),
    "html_200": Kind("an HTML page with status 200", _API, _ANY, after=True),
    "html_502": Kind("an HTML page with status 502", _API, _ANY, after=True),
    "reset": Kind("the connection is reset", _API, _ANY, after=True),
    "malformed_json": Kind("the true answer, cut in the middle, with status 2xx", _API, _API, after=True),
    "unauthorized": Kind("401: key missing or wrong", ("submit", "poll", "logs", "billing"), _API),
    "no_credits": _kind("403 err_insufficent_credits", "submit"),
    "unverified_card": _kind("403 err_unverified_card", "submit"),
    "withdrawn": _kind("404: the model was withdrawn", "submit"),
    "invalid": _kind("400 with issues in error.data", "submit"),
    "not_found": _kind("404 Inference not found", "poll"),
}
SLOW = {"slow": Kind("the answer takes `seconds` longer", _API, _ANY, after=True)}
SUBMIT_SHAPES = {
    "no_meta": _kind("the answer has no meta", "submit"),
    "generation_id_key": _kind("the answer says generation_id in place of id", "submit"),
}
ID_STYLES = {
    "id_uuid": _kind("an id with : and / in it", "submit"),
    "id_nanoid": _kind("an id of 21 characters (the usual one)", "submit"),
    "id_dash": _kind("an id of 21 characters that begins with -", "submit"),
}
OUTCOMES = {
    "error_null": _kind("the generation fails, error is null", "submit"),
    "error_string": _kind("the generation fails, error is a string", "submit"),
    "error_named": _kind("the generation fails, error is {name, message}", "submit"),
    "error_detail": _kind("the generation fails, error is {detail: [{loc, msg, type: `error_type`, input}]}", "submit"),
    "error_text": _kind('the generation fails, error is {detail: "text"}', "submit"),
    "stuck": _kind("the generation never ends", "submit"),
}
POLL_WORDS = {
    "status_succeeded": _kind("a finished generation says succeeded", "poll"),
    "status_unknown": _kind("a look says `word` as status, finished or not", "poll"),
}
VIDEO_SHAPES = {
    "video_list": _kind("video is a list of URLs", "poll"),
    "video_bare": _kind("video has nothing but a url", "poll"),
}
LINKS = {
    "cdn_404": _kind("the link answers 404", "cdn"),
    "cdn_503": _kind("the link answers 503", "cdn"),
    "cdn_expired": _kind("the link answers 403: expired", "cdn"),
}
FILES = {
    "cdn_html": _kind("the file is an HTML page", "cdn"),
    "cdn_truncated": _kind("fewer bytes than Content-Length says, then the connection closes", "cdn"),
    "cdn_short": _kind("half the file, as if that were all", "cdn"),
    "cdn_not_video": _kind("the file is a JPEG that calls itself video/mp4", "cdn"),
    "cdn_wrong_length": _kind("a video of 2 seconds", "cdn"),
}
KINDS: dict[str, Kind] = {
    **ANSWERS,
    **SLOW,
    **SUBMIT_SHAPES,
    **ID_STYLES,
    **OUTCOMES,
    **POLL_WORDS,
    **VIDEO_SHAPES,
    **LINKS,
    **FILES,
}


class Fault(BaseModel):
    """One fault: what, where, how often. `count` and `skip` go down as it strikes.

    Raises:
        pydantic.ValidationError: an unknown kind, a route or a moment that the kind does not have, a rate outside 0–1.
    """

    model_config = ConfigDict(extra="forbid")

    kind: str = Field(description="one of KINDS")
    route: Route | None = Field(default=None, description="where it strikes; None: wherever its kind usually does")
    rate: float = Field(default=1.0, ge=0, le=1, description="the share of requests it strikes")
    count: int | None = Field(default=None, ge=0, description="how often it strikes yet; None: without end")
    skip: int = Field(default=0, ge=0, description="how many requests it lets pass first")
    when: Literal["before", "after"] = Field(default="before", description="before or after the request is acted on")
    match: str | None = Field(
        default=None,
        description="strikes only generations of this scene, or whose client request id starts with this",
    )
    seconds: float = Field(default=5.0, ge=0, description="slow: by how much")
    retry_after: float | None = Field(default=None, ge=0, description="statuses: seconds to name in Retry-After")
    retry_after_date: bool = Field(default=False, description="Retry-After as an HTTP-date in place of seconds")
    old_envelope: bool = Field(default=False, description="statuses: the older error body, with statusCode as a string")
    word: str = Field(default="unknown", description="status_unknown: the word")
    error_type: str = Field(default="face_detection_error", description="error_detail: its type")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        kind = KINDS.get(self.kind)
        if kind is None:
            raise ValueError(f"unknown fault {self.kind!r}; known: {', '.join(KINDS)}")
        if self.route is not None and self.route not in kind.allowed:
            raise ValueError(f"{self.kind} does not strike {self.route}, only {', '.join(kind.allowed)}")
        if self.when == "after" and not kind.after:
            raise ValueError(f"{self.kind} cannot come after a request was acted on")
        return self

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `KIND[@ROUTE][:RATE]`, such as `503`, `reset@submit:0.1`.

        Raises:
            ValueError: it cannot be read (pydantic's error is one too).
        """
        name, _, rate = text.partition(":")
        kind, _, route = name.partition("@")
        return cls.model_validate({"kind": kind, "route": route or None, "rate": rate or 1.0})

    def concerns(self, route: Route, names: Iterable[str]) -> bool:
        """Whether it has to do with a request to `route` about a generation that goes by `names`."""
        routes = KINDS[self.kind].routes if self.route is None else (self.route,)
        return route in routes and (self.match is None or any(name.startswith(self.match) for name in names if name))

    def strikes(self, chance: random.Random) -> bool:
        """Decide about one request that it concerns, and keep count."""
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.count == 0 or (self.rate < 1 and chance.random() >= self.rate):
            return False
        if self.count is not None:
            self.count -= 1
        return True


def draw(
    faults: Iterable[Fault], chance: random.Random, route: Route, kinds: Collection[str], *names: str
) -> Fault | None:
    """The first of `faults` among `kinds` that strikes this request, or None.

    Args:
        faults: in the order in which they are asked; those behind one that strikes are not asked.
        chance: decides about rates; seeded, the same requests in the same order meet the same faults.
        route: where the request goes.
        kinds: names of kinds that could strike at this moment of the request.
        names: scene and client request id of the generation it is about, as far as known.
    """
    for fault in faults:
        if fault.kind in kinds and fault.concerns(route, names) and fault.strikes(chance):
            return fault
    return None
