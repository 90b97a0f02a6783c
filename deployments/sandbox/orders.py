"""Reads the body of a submission, and says all that is wrong with it at once."""

import json
import re
from collections.abc import Collection
from urllib.parse import urlsplit

from deployments.sandbox import models
from deployments.sandbox.answers import invalid, withdrawn
from deployments.sandbox.generations import Order

_SCENE = re.compile(rb'"effect_scene"\s*:\s*"([^"]*)"')
_CLIENT_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def client_request_id(header: str | None) -> str | None:
    """The X-Client-Request-Id, or None when it is not 1–128 of `A-Za-z0-9._:-`: then it is dropped in silence."""
    return header if header is not None and _CLIENT_REQUEST_ID.fullmatch(header) else None


def scene(body: bytes) -> str:
    """The scene that a body names, as far as can be told before it is read; empty when it cannot."""
    found = _SCENE.search(body)
    return found[1].decode(errors="replace") if found else ""


def read(body: bytes, *, withdrawn_models: Collection[str], header: str | None, request_id: str) -> Order:
    """Read a submission.

    Args:
        body: of the POST.
        withdrawn_models: ids that are not served any more.
        header: its X-Client-Request-Id.
        request_id: the stand-in's own id of the request.

    Raises:
        answers.Problem: 404 for a model that is not served; 400 with every issue for the rest.
    """
    try:
        fields = json.loads(body)
    except ValueError:
        raise invalid([_issue("", "Body is not valid JSON", "invalid_json")]) from None
    if not isinstance(fields, dict):
        raise invalid([_issue("", "Expected object", "invalid_type")])
    issues: list[dict[str, object]] = []
    model, effect, duration = fields.get("model"), fields.get("effect_scene"), fields.get("duration", 5)
    if not isinstance(model, str):
        issues.append(_issue("model", "Required" if model is None else "Expected string", "invalid_type"))
    elif model not in models.MODELS or model in withdrawn_models:
        raise withdrawn(model)
    if effect is None:
        issues.append(_issue("effect_scene", "Required", "invalid_type"))
    elif effect not in models.SCENES:
        expected = " | ".join(f"'{name}'" for name in models.SCENES)
        message = f"Invalid enum value. Expected {expected}, received '{effect}'"
        issues.append(_issue("effect_scene", message, "invalid_enum_value"))
    if isinstance(duration, bool) or duration not in models.DURATIONS:
        issues.append(_issue("duration", "Invalid enum value. Expected 5 | 10", "invalid_enum_value"))
    urls = fields.get("image_url")
    urls = [urls] if isinstance(urls, str) else urls
    issues += _image_issues(urls, effect)
    if issues:
        raise invalid(issues)
    return Order.model_validate(
        {
            "scene": effect,
            "model": model,
            "duration": duration,
            "image_urls": urls,
            "client_request_id": client_request_id(header),
            "request_id": request_id,
        }
    )


def _image_issues(urls: object, effect: object) -> list[dict[str, object]]:
    if urls is None:
        return [_issue("image_url", "Required", "invalid_type")]
    if not isinstance(urls, list):
        return [_issue("image_url", "Expected string or array of strings", "invalid_union")]
    issues = [_issue("image_url", "Invalid url", "invalid_string") for url in urls if not _is_uri(url)]
    wanted = 2 if effect in models.PAIR_SCENES else 1
    if effect in models.SCENES and len(urls) != wanted:
        code = "too_small" if len(urls) < wanted else "too_big"
        issues.append(_issue("image_url", f"Effect '{effect}' takes exactly {wanted} image(s), not {len(urls)}", code))
    return issues


def _is_uri(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    return bool(parts.scheme and (parts.netloc or parts.path))


def _issue(field: str, message: str, code: str) -> dict[str, object]:
    return {"path": [field] if field else [], "message": message, "code": code}
