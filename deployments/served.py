"""What `effects up` serves: the deployments of prefect.yaml, so that the file and the stack cannot differ."""

from __future__ import annotations

import importlib
import shutil
import subprocess
from dataclasses import fields
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentTriggerTypes
from prefect.schedules import Schedule
from prefect.types.entrypoint import EntrypointType
from prefect.utilities.templating import apply_values
from pydantic import TypeAdapter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prefect.flows import Flow

HERE = Path(__file__).parent

SAME = frozenset({"name", "description", "parameters", "tags", "version", "enforce_parameter_schema"})
"""Keys of a deployment in the file that mean the same here."""

KNOWN = SAME | {"entrypoint", "schedules", "concurrency_limit", "triggers", "work_pool"}

TRIGGER: TypeAdapter[DeploymentTriggerTypes] = TypeAdapter(DeploymentTriggerTypes)


def prefect_yaml() -> Path:
    """The file: beside this package in a clone, inside it when installed from a wheel."""
    installed = HERE / "prefect.yaml"
    return installed if installed.exists() else HERE.parent / "prefect.yaml"


def read_deployments(path: Path) -> list[RunnerDeployment]:
    """The deployments of a prefect.yaml, ready to be served by this machine.

    Raises:
        ValueError: one has a key that would not be served.
    """
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    release = {"release": {"stdout": version("photo-effects-pipeline")}, "commit": {"stdout": _commit(path.parent)}}
    return [_deployment(given, release) for given in document["deployments"]]


def _deployment(given: Mapping[str, Any], release: dict[str, Any]) -> RunnerDeployment:
    if unknown := given.keys() - KNOWN:
        raise ValueError(f"{given['name']}: cannot serve {', '.join(sorted(unknown))}")
    limit = given.get("concurrency_limit")
    deployment: RunnerDeployment = RunnerDeployment.from_flow(
        _flow(given["entrypoint"]),
        **apply_values({key: given[key] for key in SAME & given.keys()}, release),
        schedules=[_schedule(schedule) for schedule in given.get("schedules", ())],
        concurrency_limit=ConcurrencyLimitConfig.model_validate(limit) if isinstance(limit, dict) else limit,
        triggers=[TRIGGER.validate_python(trigger) for trigger in given.get("triggers", ())],
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    # Set, not left out: where `prefect deploy` has been before, its work pool would keep the runs from this machine.
    deployment.work_pool_name = None
    deployment.work_queue_name = None
    return deployment


def _flow(entrypoint: str) -> Flow[..., Any]:
    file, _, name = entrypoint.partition(":")
    module = importlib.import_module(".".join(Path(file).with_suffix("").parts))
    flow: Flow[..., Any] = getattr(module, name)
    return flow


def _schedule(given: Mapping[str, Any]) -> Schedule:
    if unknown := given.keys() - {field.name for field in fields(Schedule)}:
        raise ValueError(f"a schedule cannot have {', '.join(sorted(unknown))}")
    made = dict(given)
    if "interval" in made:
        made["interval"] = timedelta(seconds=made["interval"])
    if "anchor_date" in made:
        made["anchor_date"] = datetime.fromisoformat(made["anchor_date"])
    return Schedule(**made)


def _commit(clone: Path) -> str:
    """As in the file's own build step; `no-git` outside of a clone."""
    git = shutil.which("git")
    if git is None or not (clone / ".git").exists():
        return "no-git"
    command = [git, "describe", "--always", "--dirty", "--exclude", "*"]
    told = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False)  # noqa: S603 - our own clone
    return told.stdout.strip() or "no-git"
