"""`effects doctor`: everything that a run stands on, a line each, with what to do about it."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import httpx
from rich.console import Console
from rich.table import Table

from tasks.effects import load_catalogue
from tasks.errors import BadInput, EffectsError
from tasks.provider import Provider
from tasks.settings import load_settings
from tasks.storage import Storage

if TYPE_CHECKING:
    from tasks.effects import Catalogue
    from tasks.settings import Settings

RACERS = 8
Verdict = Literal["ok", "warning", "failed"]
MARKS = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "failed": "[red]✗[/]"}


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it stands, and what to do where it does not stand well."""

    subject: str
    verdict: Verdict
    finding: str
    advice: str = ""


def doctor(*, as_json: bool) -> int:
    """Check and report; returns 1 where something must be mended, 2 where a setting does not fit."""
    settings = load_settings()
    findings = asyncio.run(_examine(settings, load_catalogue(settings.catalogue)))
    if as_json:
        sys.stdout.write(json.dumps([asdict(finding) for finding in findings]) + "\n")
    else:
        table = Table.grid(padding=(0, 2))
        for finding in findings:
            advice = f"\n[dim]→ {finding.advice}[/]" if finding.advice else ""
            table.add_row(MARKS[finding.verdict], f"[bold]{finding.subject}[/]", finding.finding + advice)
        Console(highlight=False).print(table)
    return 1 if any(finding.verdict == "failed" for finding in findings) else 0


async def _examine(settings: Settings, catalogue: Catalogue) -> list[Finding]:
    findings: list[Finding] = []
    try:
        key = settings.require_key()
    except BadInput:
        findings.append(Finding("key", "failed", "no key is set", "put EFFECTS_API_KEY=… into the environment or .env"))
        key = ""
    model = settings.model or catalogue.provider.default_model
    async with Provider(settings.api_url, key, catalogue.provider.path) as provider:
        if key:
            findings += [await _account(provider, settings, catalogue.price_usd(model, 5))]
        findings += [await _model(provider, model)]
    findings += [await _target(settings), await _delivery(settings)]
    return findings


async def _account(provider: Provider, settings: Settings, price_usd: float) -> Finding:
    try:
        balance = await provider.balance_usd()
    except EffectsError as error:
        return Finding("account", "failed", error.reason, error.next_move)
    if balance is None:
        return Finding("account", "warning", f"{settings.api_url} accepts the key, but does not tell the balance")
    text = f"{settings.api_url} accepts the key; ${balance:.2f} left, about {balance / price_usd:.0f} videos of 5 s"
    if balance < price_usd:
        return Finding("account", "failed", text, "top up the account")
    return Finding("account", "ok", text)


async def _model(provider: Provider, model: str) -> Finding:
    try:
        deprecation, listed = await provider.deprecation(model), await provider.is_listed(model)
    except EffectsError as error:
        return Finding("model", "warning", f"whether {model} is served cannot be told: {error.reason}")
    status, replaced_by = deprecation or ("", None)
    advice = f"set EFFECTS_MODEL={replaced_by}" if replaced_by else "set EFFECTS_MODEL to a model that is served"
    if status == "withdrawn":
        return Finding("model", "failed", f"{model} is withdrawn", advice)
    if status:
        return Finding("model", "warning", f"{model} is {status}: it still answers, but will go", advice)
    if not listed:
        return Finding("model", "failed", f"{model} is not in the provider's list", advice)
    return Finding("model", "ok", f"{model} is served")


async def _target(settings: Settings) -> Finding:
    path = f"_doctor/{uuid.uuid4().hex}"
    try:
        storage = Storage(settings.target)
        won = sum(await asyncio.gather(*(storage.create(path, b"one") for _ in range(RACERS))))
        await storage.delete(path)
    except EffectsError as error:
        return Finding("target", "failed", error.reason, "set EFFECTS_TARGET to a place that can be written")
    if won != 1:
        return Finding(
            "target",
            "failed",
            f"{settings.target}: {won} of {RACERS} racing writers created the same file: jobs could be paid for twice",
            "use a target with exclusive creation: a local disk, or S3 with conditional writes",
        )
    return Finding("target", "ok", f"{settings.target} can be written, and exactly one of {RACERS} racing writers won")


async def _delivery(settings: Settings) -> Finding:
    way = settings.delivery
    if way == "inline":
        advice = "set EFFECTS_STAGING to a bucket and EFFECTS_DELIVERY=auto"
        return Finding("delivery", "warning", "images go inline, which the provider does not document", advice)
    if way == "link" or not settings.staging:
        advice = "" if way == "link" else "set EFFECTS_STAGING to a bucket, or use images that are on the web"
        text = "images on the public web go as links"
        others = "" if way == "link" else "; others are signed where their home can sign, else go inline (undocumented)"
        return Finding("delivery", "ok" if way == "link" else "warning", text + others, advice)
    path, content = f"_doctor/{uuid.uuid4().hex}.txt", uuid.uuid4().hex.encode()
    advice = "set EFFECTS_STAGING to a bucket whose filesystem signs URLs, such as s3://…"
    try:
        staging = Storage(settings.staging)
        await staging.write(path, content)
        url = await staging.sign(path)
        if url is None:
            return Finding("delivery", "failed", f"{settings.staging} cannot sign URLs", advice)
        async with httpx.AsyncClient(follow_redirects=True, timeout=20) as web:
            answer = await web.get(url)
        await staging.delete(path)
    except EffectsError as error:
        return Finding("delivery", "failed", error.reason, advice)
    except httpx.HTTPError as error:
        return Finding("delivery", "failed", f"a signed URL of {settings.staging} does not answer: {error}", advice)
    if not answer.is_success or answer.content != content:
        return Finding(
            "delivery", "failed", f"a signed URL of {settings.staging} answers HTTP {answer.status_code}", advice
        )
    return Finding("delivery", "ok", f"images are copied to {settings.staging}, signed, and can be fetched")
