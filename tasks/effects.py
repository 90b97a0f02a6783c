"""The catalogue: which effects there are, what each needs, which models make it, and what it costs.

The facts stand in `effects.toml`, so that a new scene, a new model or a new price is a row and never a release. A
file of the same shape, named by `EFFECTS_CATALOGUE`, adds rows or overrides single fields.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Mapping  # noqa: TC003 - pydantic reads it
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import fsspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.errors import BadInput
from tasks.jobs import public_url
from tasks.storage import explain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tasks.jobs import Job

MAX_CATALOGUE_BYTES = 1_000_000
"""A catalogue is some ten kilobytes: beyond this, the setting points at something else."""

MAX_SHOWN_CHARACTERS = 60
"""A wrong name in a message is cut here: it may come from any manifest."""

_Table = dict[str, Any]
_TABLES = ("provider", "models", "images", "defaults", "effects")
_COUNTS = ("none", "one", "two", "three", "four")


class _Row(BaseModel):
    # Strict: `images = "2"` in a file is a slip of the pen that should be seen, not interpreted.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


class Effect(_Row):
    """One scene.

    Attributes:
        name: as the provider calls it. It becomes a folder of the target, so it is safe in a path, and begins with a
            letter or a digit: the names with a leading underscore are the ledger's own.
        images: how many it takes (AIML API's page).
        order: what the order of two images means, in words; empty where there is nothing to say.
        durations: seconds that can be asked for (Kling's limits).
        models: ids of the models that make it.
        sound: whether the video carries sound.
        face: whether each image needs a face that can be found (Kling's limits).
        core: whether it is one of the five that the project promises.
        description: what happens in it, in a line; empty where nobody has written one.
        source: who says so.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_'-]*$", max_length=100)]
    images: Annotated[int, Field(ge=1, le=2)]
    order: str = ""
    durations: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1, strict=False)]
    models: Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
    sound: bool = False
    face: bool = False
    core: bool = False
    description: str = ""
    source: str


class Model(_Row):
    """One model of the provider.

    Attributes:
        id: the provider's.
        usd_per_second: US$ for one second of video.
        confidence: whether the provider itself was seen to state the price.
        source: who says so.
    """

    id: Annotated[str, Field(min_length=1)]
    usd_per_second: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    confidence: Literal["confirmed", "unconfirmed"] = "unconfirmed"
    source: str


class ImageLimits(_Row):
    """What an image must be for the provider to take it (Kling's limits; AIML API states none for effects).

    Attributes:
        max_bytes: of the file.
        min_side: pixels, for width and height each.
        max_aspect: the longer side over the shorter.
        formats: by content, whatever the file's name says.
    """

    max_bytes: Annotated[int, Field(gt=0)]
    min_side: Annotated[int, Field(gt=0)]
    max_aspect: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    formats: Annotated[tuple[Literal["jpeg", "png"], ...], Field(min_length=1, strict=False)]


class ProviderFacts(_Row):
    """What holds for the provider whatever the effect.

    Attributes:
        default_model: id of the model that is used where none is named.
        path: of the route for submitting and looking, below the provider's base URL.
        models: by id.
        images: what every image must be.
    """

    default_model: str
    path: Annotated[str, Field(pattern=r"^/[^\s?#]*$")]
    models: Mapping[str, Model]
    images: ImageLimits


class Catalogue(_Row):
    """Everything that can be asked for: the provider's facts, and the effects by name in the order of the file."""

    provider: ProviderFacts
    effects: Mapping[str, Effect]

    def effect(self, name: str) -> Effect:
        """The effect of that name.

        Raises:
            BadInput: when there is none; it names the closest match.
        """
        if name in self.effects:
            return self.effects[name]
        meant = _meant(name.strip().lower(), self.effects)
        raise BadInput(f"unknown effect {_shown(name)}{meant or ';'} `effects effects` lists all")

    def model(self, id: str) -> Model:  # noqa: A002 - the provider's word
        """The model of that id.

        Raises:
            BadInput: when there is none; it names those that there are, and says how one is added.
        """
        models = self.provider.models
        if id in models:
            return models[id]
        row = f"[models.{_key(id[:MAX_SHOWN_CHARACTERS])}] with usd_per_second"
        raise BadInput(
            f"unknown model {_shown(id)}: known are {', '.join(models)}; "
            f"set EFFECTS_MODEL to one of them, or add {row} to the file that EFFECTS_CATALOGUE names"
        )

    def price_usd(self, model_id: str, duration: int) -> float:
        """What one generation is expected to cost, US$; `duration` in seconds.

        Raises:
            BadInput: when the model is unknown.
        """
        # To a millionth: 0.103 for 10 s has to read 1.03 in every table, and sums are of thousands of these.
        return round(self.model(model_id).usd_per_second * duration, 6)


def load_catalogue(extra: str | None = None) -> Catalogue:
    """The built-in catalogue, with the rows and fields of `extra` added or put in their place.

    Args:
        extra: a TOML file of the same shape as `effects.toml`: a local path or any fsspec URL. A `[defaults]` in it
            holds for every scene that does not say otherwise in its own row, built-in ones too.

    Raises:
        BadInput: when `extra` cannot be read, is not TOML, or holds what a catalogue cannot; the file, the row and
            the field are named, and all problems are listed at once.
    """
    tables, where = _built_in(), public_url(extra) if extra else "effects.toml"
    if extra:
        tables = _merged(tables, _parse(_read(extra, where), where), where)
    problems: list[str] = []
    catalogue = _build(tables, problems)
    if catalogue is None or problems:
        raise BadInput([f"{where}: {problem}" for problem in problems])
    return catalogue


def check_job(job: Job, catalogue: Catalogue, *, default_model: str | None = None) -> tuple[Effect, Model]:
    """Check all that can be known of a job without its images.

    The rule for the number of images and their order is AIML API's; that for durations is Kling's.

    Args:
        job: what was asked for.
        catalogue: what can be asked for.
        default_model: used where the job names no model, before the catalogue's own default.

    Returns:
        The job's effect and model.

    Raises:
        BadInput: with every problem at once.
    """
    problems, effect, model = list[str](), None, None
    try:
        effect = catalogue.effect(job.effect)
    except BadInput as error:
        problems.extend(error.problems)
    try:
        model = catalogue.model(job.model or default_model or catalogue.provider.default_model)
    except BadInput as error:
        problems.extend(error.problems)
    if effect:
        given = len(job.images)
        if given != effect.images:
            order = f" ({effect.order})" if effect.order else ""
            needs = f"{_COUNTS[effect.images]} image{'s' if effect.images > 1 else ''}{order}"
            was = f"{_COUNTS[given] if given < len(_COUNTS) else given} {'was' if given < 2 else 'were'}"  # noqa: PLR2004
            problems.append(f"{effect.name} needs {needs}; {was} given")
        if job.duration not in effect.durations:
            lasts = " or ".join(str(duration) for duration in effect.durations)
            problems.append(f"{effect.name} lasts {lasts} seconds; a duration of {job.duration} was asked for")
        if model and model.id not in effect.models:
            makers = " or ".join(effect.models)
            problems.append(f"{effect.name} is not made by the model {model.id}; set EFFECTS_MODEL to {makers}")
    if effect is None or model is None or problems:
        raise BadInput(problems)
    return effect, model


@cache
def _built_in() -> _Table:
    """The tables of `effects.toml`, as read; never changed in place."""
    return tomllib.loads(files(__package__).joinpath("effects.toml").read_text(encoding="utf-8"))


def _read(url: str, where: str) -> bytes:
    try:
        with fsspec.open(url, "rb") as file:
            content: bytes = file.read(MAX_CATALOGUE_BYTES + 1)
    except Exception as error:  # noqa: BLE001 - each filesystem behind fsspec raises its own kinds
        # The words of an error may quote a signed URL in a spelling of their own: its kind says enough then.
        reason = explain(error) if url == where or isinstance(error, OSError) else type(error).__name__
        raise BadInput(f"{where}: the catalogue cannot be read: {reason} (EFFECTS_CATALOGUE)") from None
    if len(content) > MAX_CATALOGUE_BYTES:
        raise BadInput(f"{where}: over {MAX_CATALOGUE_BYTES // 1000} kB; that is no catalogue (EFFECTS_CATALOGUE)")
    return content


def _parse(content: bytes, where: str) -> _Table:
    try:
        return tomllib.loads(text := content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{where}: not a text in UTF-8 (at line {line})") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        reason = str(error).replace("at end of document", f"at line {text.count(chr(10)) + 1}, the end")
        raise BadInput(f"{where}: not valid TOML: {reason}") from None


def _merged(base: _Table, extra: _Table, where: str) -> _Table:
    """`base` with the fields of `extra`; a row that `extra` touches names it as its source.

    Raises:
        BadInput: when a table or a row is something else.
    """
    problems = []
    for name, table in extra.items():
        if name not in _TABLES:
            problems.append(f"there is no table [{_key(name)}]{_meant(name, _TABLES)}")
        elif not isinstance(table, dict):
            problems.append(f"[{name}] has to be a table of fields")
        elif name in {"models", "effects"}:
            rows = [key for key, row in table.items() if not isinstance(row, dict)]
            problems += [f"[{name}] {_key(key)}: has to be a table of fields" for key in rows]
    if problems:
        raise BadInput([f"{where}: {problem}" for problem in problems])
    tables = {name: {**base[name], **extra.get(name, {})} for name in _TABLES}
    for name in ("models", "effects"):
        for key, row in extra.get(name, {}).items():
            tables[name][key] = {**base[name].get(key, {}), "source": where, **row}
    return tables


def _build(tables: _Table, problems: list[str]) -> Catalogue | None:
    """The catalogue of these tables; what does not fit is added to `problems`."""
    models = {}
    for key, row in tables["models"].items():
        if model := _made(Model, row, f"[models.{_key(key)}]", problems, id=key):
            models[key] = model
    limits = _made(ImageLimits, tables["images"], "[images]", problems)
    # A slip in the defaults would be told once for every scene: it is told alone.
    fallback = {"models": list(tables["models"]), **tables["defaults"]}
    if not _made(Effect, fallback, "[defaults]", problems, name="defaults"):
        return None
    effects = {}
    for key, row in tables["effects"].items():
        place = f"[effects.{_key(key)}]"
        if effect := _made(Effect, {**fallback, **row}, place, problems, name=key):
            effects[key] = effect
            unknown = [id_ for id_ in effect.models if id_ not in tables["models"]]
            problems += [f"{place} models: {_shown(id_)} has no row in [models]" for id_ in unknown]
    fixed = {"models": models, "images": limits}
    provider = _made(ProviderFacts, tables["provider"], "[provider]", problems, **fixed) if limits else None
    if provider and provider.default_model not in tables["models"]:
        problems.append(f"[provider] default_model: {_shown(provider.default_model)} has no row in [models]")
    return Catalogue(provider=provider, effects=effects) if provider else None


_RowT = TypeVar("_RowT", bound=_Row)


def _made(kind: type[_RowT], row: _Table, place: str, problems: list[str], **given: object) -> _RowT | None:
    """A row out of its fields and of what is `given` from elsewhere; None where something does not fit."""
    fields = [field for field in kind.model_fields if field not in given]
    unknown = [f"{place} has no field {field}" for field in row if field in given]
    problems += unknown
    try:
        made = kind.model_validate({**row, **given})
    except ValidationError as error:
        first: dict[str, Any] = {}  # of several complaints about one field, the later ones follow from it
        for issue in error.errors(include_url=False):
            first.setdefault(str(issue["loc"][0]), issue)
        for field, issue in first.items():
            if issue["type"] == "extra_forbidden":
                problems.append(f"{place} has no field {_key(field)}{_meant(field, fields)}")
            elif issue["type"] == "missing":
                problems.append(f"{place} {field}: is missing")
            elif field == "name":
                problems.append(f"{place} the name may hold a-z, 0-9, _, ' and -, and begins with a letter or digit")
            else:
                message = issue["msg"][:1].lower() + issue["msg"][1:]
                problems.append(f"{place} {field}: {message}; it is {_shown(issue['input'])}")
        return None
    return None if unknown else made


def _meant(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name[:MAX_SHOWN_CHARACTERS], known, n=1)
    return f": did you mean {_shown(close[0])}?" if close else ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}…"


def _key(name: str) -> str:
    """The name as TOML writes it in a table's head."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)
