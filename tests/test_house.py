"""The rules of the house, read off its source: who may import whom, how long a file may be, what the README names."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tasks.settings import Settings

HOUSE = Path(__file__).parents[1]
STEPS = {"fetch", "validate", "submit", "poll", "persist"}
LONGEST = 350
FILES = sorted(path for folder in ("flows", "tasks", "deployments") for path in (HOUSE / folder).rglob("*.py"))
TASKS = [path for path in FILES if path.parent.name == "tasks"]
README = (HOUSE / "README.md").read_text()


def _name(path: Path) -> str:
    return str(path.relative_to(HOUSE))


def _imports(path: Path) -> set[str]:
    """Modules by full name, wherever in the file they are imported; `from a import b` counts as `a` and as `a.b`."""
    package, found = path.relative_to(HOUSE).parent.parts, set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


def _roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in _imports(path)}


def test_there_is_something_to_look_at() -> None:
    """Else the rules below would hold of nothing."""
    assert {_name(path) for path in FILES} >= {"flows/generate.py", "tasks/ledger.py", "deployments/cli.py"}
    assert "prefect" in _roots(HOUSE / "tasks" / "fetch.py")


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_imports_run_one_way(path: Path) -> None:
    """Deployments may know flows, flows may know tasks, tasks know neither; nobody knows the tests."""
    forbidden = {"tasks": {"flows", "deployments"}, "flows": {"deployments"}, "deployments": set[str]()}
    assert not _roots(path) & (forbidden[_name(path).partition("/")[0]] | {"tests"})


@pytest.mark.parametrize("path", TASKS, ids=_name)
def test_prefect_is_known_to_the_steps_alone(path: Path) -> None:
    """And to what shows them in its dashboard; everything under them is plain Python that a notebook can use."""
    if path.stem not in STEPS | {"visibility", "bulk"}:
        assert "prefect" not in _roots(path)


@pytest.mark.parametrize("path", TASKS, ids=_name)
def test_the_steps_stand_on_the_rest_and_not_the_other_way(path: Path) -> None:
    """The order of the steps is the flows' to say; the words know nothing but each other."""
    known = {name.split(".")[1] for name in _imports(path) if name.startswith("tasks.")}
    assert not known & STEPS
    if path.stem in {"jobs", "errors", "settings"}:
        assert known <= {"jobs", "errors", "settings"}


def test_the_sandbox_knows_nothing_of_the_pipeline() -> None:
    """It stands in for the provider: a mistake about the provider must not be on both sides."""
    for path in (HOUSE / "deployments" / "sandbox").glob("*.py"):
        assert not _roots(path) & {"tasks", "flows", "prefect"}, path.name


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_no_file_is_longer_than_a_person_reads(path: Path) -> None:
    """What grows beyond that is two things."""
    assert len(path.read_text().splitlines()) <= LONGEST


def test_the_folders_are_four() -> None:
    """Whoever opens the house finds every room by its name."""
    if not (HOUSE / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a clone")
    listed = subprocess.run(["git", "ls-files"], cwd=HOUSE, capture_output=True, text=True, check=True)  # noqa: S607
    folders = {line.partition("/")[0] for line in listed.stdout.splitlines() if "/" in line}
    assert {name for name in folders if not name.startswith(".")} == {"flows", "tasks", "deployments", "tests"}


def _variables(text: str) -> set[str]:
    return set(re.findall(r"EFFECTS_[A-Z_]+", text))


def test_every_setting_that_is_named_to_people_exists() -> None:
    """In the README, in `.env.example` and in the messages of the code."""
    exist = {f"EFFECTS_{name.upper()}" for name in Settings.model_fields}
    table = set(re.findall(r"^\| `(EFFECTS_[A-Z_]+)` \|", README, re.MULTILINE))
    assert len(table) >= 10
    assert table <= exist
    assert _variables(README) <= exist
    assert _variables((HOUSE / ".env.example").read_text()) <= exist
    for path in FILES:
        assert _variables(path.read_text()) <= exist, _name(path)


def test_the_readme_tells_the_true_defaults() -> None:
    """Of every setting that has one."""
    rows = re.findall(r"^\| `(EFFECTS_[A-Z_]+)` \| `([^`]+)` \|", README, re.MULTILINE)
    assert len(rows) >= 5
    for name, told in rows:
        default = Settings.model_fields[name.removeprefix("EFFECTS_").lower()].default
        assert told == (f"{default:g}" if isinstance(default, float) else "false" if default is None else str(default))
