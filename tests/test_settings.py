"""Settings: from the environment and `.env`; what does not fit is named, and the key is never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.errors import BadInput
from tasks.settings import Settings, load_settings


def _key(settings: Settings) -> str | None:
    return settings.api_key.get_secret_value() if settings.api_key else None


def test_the_defaults() -> None:
    """As they are promised; the key alone has none."""
    settings = load_settings()
    assert settings.model_dump() == {
        "api_key": None,
        "api_url": "https://api.aimlapi.com",
        "model": None,
        "target": "./videos",
        "inbox": None,
        "uploads_queue": None,
        "uploads_secret": None,
        "staging": None,
        "delivery": "auto",
        "max_in_flight": 20,
        "budget_usd": None,
        "generation_timeout_s": 900,
        "poll_interval_s": None,
        "max_attempts": 2,
        "allow_private_hosts": None,
        "catalogue": None,
    }
    assert settings.private_hosts_allowed is False


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("EFFECTS_API_URL", "http://127.0.0.1:8787/", "http://127.0.0.1:8787/"),
        ("EFFECTS_MODEL", "klingai/x", "klingai/x"),
        ("EFFECTS_TARGET", "s3://bucket/videos", "s3://bucket/videos"),
        ("EFFECTS_INBOX", "s3://bucket/inbox", "s3://bucket/inbox"),
        ("EFFECTS_STAGING", "s3://bucket/staging", "s3://bucket/staging"),
        ("EFFECTS_DELIVERY", "sign", "sign"),
        ("EFFECTS_MAX_IN_FLIGHT", "500", 500),
        ("EFFECTS_BUDGET_USD", "12.5", 12.5),
        ("EFFECTS_GENERATION_TIMEOUT_S", "60", 60.0),
        ("EFFECTS_POLL_INTERVAL_S", "0.5", 0.5),
        ("EFFECTS_MAX_ATTEMPTS", "3", 3),
        ("EFFECTS_ALLOW_PRIVATE_HOSTS", "true", True),
        ("EFFECTS_CATALOGUE", "mine.toml", "mine.toml"),
    ],
)
def test_each_variable_is_read(name: str, text: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the environment, from `.env`, and from the environment before `.env`."""
    field = name.removeprefix("EFFECTS_").lower()
    Path(".env").write_text(f"{name}={text}\n")
    assert getattr(load_settings(), field) == value
    Path(".env").unlink()
    monkeypatch.setenv(name, text)
    assert getattr(load_settings(), field) == value
    Path(".env").write_text(f"{name}=nonsense\n")
    assert getattr(load_settings(), field) == value


def test_the_key_has_three_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours wins over the provider's two."""
    for name in ("AIMLAPI_API_KEY", "AIMLAPI_KEY", "EFFECTS_API_KEY"):
        monkeypatch.setenv(name, name)
        assert _key(load_settings()) == name


@pytest.mark.parametrize("there", ["EFFECTS_API_KEY", "AIMLAPI_KEY", "AIMLAPI_API_KEY"])
@pytest.mark.parametrize("in_file", ["EFFECTS_API_KEY", "AIMLAPI_KEY", "AIMLAPI_API_KEY"])
def test_a_key_of_the_environment_wins_over_the_file(there: str, in_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under whichever name either of them stands."""
    Path(".env").write_text(f"{in_file}=file")
    assert _key(load_settings()) == "file"
    monkeypatch.setenv(there, "environment")
    assert _key(load_settings()) == "environment"


def test_a_copy_of_the_example_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """`.env.example` leaves the key empty: empty counts as unset, there and in the environment."""
    example = (Path(__file__).parents[1] / ".env.example").read_text()
    Path(".env").write_text(example)
    assert load_settings() == Settings(_env_file=None)
    monkeypatch.setenv("AIMLAPI_KEY", "key")
    assert _key(load_settings()) == "key"
    monkeypatch.setenv("EFFECTS_API_KEY", "")
    monkeypatch.setenv("EFFECTS_TARGET", "")
    monkeypatch.setenv("EFFECTS_BUDGET_USD", "")
    assert (_key(load_settings()), load_settings().target, load_settings().budget_usd) == ("key", "./videos", None)


def test_every_line_of_the_example_fits() -> None:
    """With the comment signs taken away, it is a configuration that works."""
    example = (Path(__file__).parents[1] / ".env.example").read_text()
    lines = [line.lstrip("#") for line in example.splitlines() if line.lstrip("#").startswith("EFFECTS_")]
    Path(".env").write_text("\n".join(lines))
    settings = load_settings()
    assert len(lines) >= 10
    assert (settings.target, settings.staging) == ("s3://my-bucket/videos", "s3://my-bucket/staging")


def test_overrides_win_where_they_say_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument of a command wins over the environment; one that was not given does not."""
    monkeypatch.setenv("EFFECTS_TARGET", "from-the-environment")
    monkeypatch.setenv("EFFECTS_API_KEY", "from-the-environment")
    assert load_settings(target="given").target == "given"
    assert load_settings(target=None).target == "from-the-environment"
    assert _key(load_settings(api_key="given")) == "given"


def test_settings_are_read_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never at import: a worker may set them later. What was read stays as it is."""
    before = load_settings()
    monkeypatch.setenv("EFFECTS_MAX_ATTEMPTS", "7")
    assert (before.max_attempts, load_settings().max_attempts) == (2, 7)
    with pytest.raises(ValueError, match="frozen"):
        before.max_attempts = 3  # type: ignore[misc]


WRONG = {
    "EFFECTS_API_URL": ["aimlapi", "ftp://host", "http://", "http://[oops", "http://host:99999"],
    "EFFECTS_DELIVERY": ["post"],
    "EFFECTS_MAX_IN_FLIGHT": ["0", "many", "1.5"],
    "EFFECTS_BUDGET_USD": ["-1", "lots", "nan"],
    "EFFECTS_GENERATION_TIMEOUT_S": ["0", "inf", "nan", "soon"],
    "EFFECTS_POLL_INTERVAL_S": ["0", "-1", "inf", "nan"],
    "EFFECTS_MAX_ATTEMPTS": ["0", "none"],
    "EFFECTS_ALLOW_PRIVATE_HOSTS": ["perhaps"],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in WRONG.items() for text in texts])
def test_a_value_that_does_not_fit_is_named_by_its_variable(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a person has to write it; in one line, without pydantic's own words about it."""
    monkeypatch.setenv(name, text)
    with pytest.raises(BadInput) as caught:
        load_settings()
    [problem] = caught.value.problems
    assert problem.startswith(f"{name}: ")
    assert "pydantic" not in problem
    assert "Value error" not in problem
    assert "\n" not in problem


def test_all_problems_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the environment, the file and the arguments."""
    Path(".env").write_text("EFFECTS_DELIVERY=post\n")
    monkeypatch.setenv("EFFECTS_API_URL", "nowhere")
    with pytest.raises(BadInput) as caught:
        load_settings(max_in_flight=0)
    assert sorted(problem.partition(":")[0] for problem in caught.value.problems) == [
        "EFFECTS_API_URL",
        "EFFECTS_DELIVERY",
        "EFFECTS_MAX_IN_FLIGHT",
    ]


def test_a_file_that_is_no_text_is_named() -> None:
    """A `.env` in another encoding."""
    Path(".env").write_bytes(b"\xff\xfeE\x00")
    with pytest.raises(BadInput, match=r"\.env cannot be read"):
        load_settings()


def test_the_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever prints or logs the settings, or meets an error in them, sees stars."""
    monkeypatch.setenv("EFFECTS_API_KEY", "s3cret")
    settings = load_settings()
    for shown in (str(settings), repr(settings), f"{settings.model_dump()}", settings.model_dump_json()):
        assert "s3cret" not in shown
    monkeypatch.setenv("EFFECTS_MAX_ATTEMPTS", "0")
    with pytest.raises(BadInput) as caught:
        load_settings()
    assert "s3cret" not in repr(caught.value)
    assert caught.value.__cause__ is None


def test_a_key_is_asked_for_by_name() -> None:
    """Where none is set, or what cannot be one; one with a line's end behind it works."""
    for key in (None, "  ", "two words", "a\nb", "schlüssel"):
        with pytest.raises(BadInput, match="EFFECTS_API_KEY"):
            load_settings(api_key=key).require_key()
    assert load_settings(api_key=" key\n").require_key() == "key"


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://127.0.0.1:8787", True),
        ("http://localhost:8787", True),
        ("http://[::1]:8787", True),
        ("https://api.aimlapi.com", False),
        ("http://localhost.example.com", False),
        ("http://localhost@example.com", False),
        ("http://10.0.0.1", False),
    ],
)
def test_private_hosts_are_allowed_only_with_a_provider_on_this_machine(
    url: str, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless somebody says otherwise, either way."""
    monkeypatch.setenv("EFFECTS_API_URL", url)
    assert load_settings().private_hosts_allowed is allowed
    for said in (True, False):
        monkeypatch.setenv("EFFECTS_ALLOW_PRIVATE_HOSTS", str(said))
        assert load_settings().private_hosts_allowed is said
