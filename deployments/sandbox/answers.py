"""The bodies of the stand-in's answers: error envelopes, the answers that faults give, and what a look shows."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from http import HTTPStatus

from starlette.responses import HTMLResponse, JSONResponse, Response

from deployments.sandbox.connection import Reset
from deployments.sandbox.faults import Fault

# 524 is not in the registry: it is what Cloudflare says when the origin took too long.
_TITLES = {524: "A Timeout Occurred"}
_NAMES = {
    400: "BadRequestException",
    401: "UnauthorizedException",
    403: "ForbiddenException",
    404: "NotFoundException",
    429: "ThrottlerException",
    500: "InternalServerErrorException",
}
HTML = "<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><h1>Bad gateway</h1></body></html>"


def iso(moment: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Problem(Exception):  # noqa: N818  # the provider's word for it, not an error of the stand-in
    """An answer that is an error: raised where it is found, sent by the provider's app."""

    def __init__(self, status: int, message: str, *, data: object = None) -> None:
        super().__init__(message)
        self.status, self.message, self.data = status, message, data

    def answer(self, path: str, now: float, request_id: str, *, old: bool = False) -> JSONResponse:
        """The error body (`old`: in its older shape), as `application/problem+json`."""
        if old:
            body: dict[str, object] = {
                "message": self.message,
                "path": path,
                "requestId": request_id,
                "statusCode": str(self.status),
                "timestamp": iso(now),
            }
            return JSONResponse(body, self.status)
        error: dict[str, object] = {"name": _NAMES.get(self.status, "HttpException"), "message": self.message}
        if self.data is not None:
            error["data"] = self.data
        title = _TITLES.get(self.status) or HTTPStatus(self.status).phrase
        body = {
            "title": title,
            "status": self.status,
            "message": self.message,
            "instance": path,
            "requestId": request_id,
            "timestamp": iso(now),
            "error": error,
        }
        return JSONResponse(body, self.status, media_type="application/problem+json")


def invalid(issues: Sequence[dict[str, object]]) -> Problem:
    """400, with its issues `{path, message, code}`."""
    return Problem(400, "Body validation error!", data=list(issues))


def unauthorized() -> Problem:
    """401."""
    return Problem(401, "You provided an empty or wrong API key. You can create a new one on the Billing page.")


def out_of_credits() -> Problem:
    """403, spelled as the provider spells it."""
    return Problem(
        403,
        "You have run out of credits. Please top up your balance or update your payment method.",
        data={"kind": "err_insufficent_credits"},
    )


def unverified_card() -> Problem:
    """403: the account must be verified first."""
    return Problem(403, "Please verify your payment card to go on.", data={"kind": "err_unverified_card"})


def withdrawn(model: str) -> Problem:
    """404 for a model that is not served, or not any more."""
    return Problem(404, f"Model {model} is not found or has been withdrawn.")


def inference_not_found() -> Problem:
    """404 for an id that is not known, or not yet."""
    return Problem(404, "Inference not found")


_REFUSALS: dict[str, Callable[[], Problem]] = {
    "unauthorized": unauthorized,
    "no_credits": out_of_credits,
    "unverified_card": unverified_card,
    "withdrawn": lambda: withdrawn("you asked for"),
    "invalid": lambda: invalid([{"path": ["image_url"], "message": "Invalid url", "code": "invalid_string"}]),
    "not_found": inference_not_found,
}


def faulty(fault: Fault, path: str, now: float, request_id: str) -> Response:
    """The answer of a fault that takes the whole answer over; `fault.kind` is one of `faults.ANSWERS`."""
    if fault.kind == "reset":
        return Reset()
    if fault.kind in {"html_200", "html_502"}:
        return HTMLResponse(HTML, 200 if fault.kind == "html_200" else 502)
    refuse = _REFUSALS.get(fault.kind)
    problem = refuse() if refuse else Problem(int(fault.kind), "Please, try again later.")
    answer = problem.answer(path, now, request_id, old=fault.old_envelope)
    if fault.retry_after is not None:
        at = format_datetime(datetime.fromtimestamp(now + fault.retry_after, UTC), usegmt=True)
        answer.headers["retry-after"] = at if fault.retry_after_date else f"{fault.retry_after:g}"
    return answer


def cut(answer: Response) -> Response:
    """An answer with the second half of its body missing, and no trace of that in its headers."""
    body = bytes(answer.body)
    return Response(body[: len(body) // 2], answer.status_code, media_type="application/json")


def failure(fault: Fault, image_url: str) -> object:
    """The `error` of a generation that a fault makes fail; `fault.kind` is one of `faults.OUTCOMES`."""
    match fault.kind:
        case "error_string":
            return "Generation failed: the upstream service returned an error"
        case "error_named":
            return {"name": "GenerationError", "message": "The upstream service returned an error"}
        case "error_text":
            return {"detail": "No media was generated for this request"}
        case "error_detail":
            return detail(fault.error_type, f"The generation failed: {fault.error_type}", image_url)
    return None


def detail(kind: str, message: str, image_url: str) -> dict[str, object]:
    """The `error` that blames an image."""
    # A whole data URI would be megabytes; links are repeated as they came, with their query.
    shown = image_url if not image_url.startswith("data:") else image_url[:100]
    return {"detail": [{"loc": ["body", "image_url"], "msg": message, "type": kind, "input": shown}]}
