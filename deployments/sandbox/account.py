"""The account's and the catalogue's routes: request logs, balance, transactions, models and their deprecations."""

import re
from collections import deque
from collections.abc import Sequence

from starlette import routing
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deployments.sandbox import models
from deployments.sandbox.answers import Problem, invalid, iso
from deployments.sandbox.desk import Desk
from deployments.sandbox.generations import Book

_PERIOD = re.compile(r"([1-9][0-9]{0,3})([mhd])")
_UNIT_S = {"m": 60, "h": 3_600, "d": 86_400}
_DEFAULT_LIMIT = 50
_MAX_LIMIT = 100


class Account:
    """Routes over one book."""

    def __init__(self, desk: Desk, book: Book) -> None:
        self._desk, self._book = desk, book
        self._log_calls: deque[float] = deque()
        self.routes = [
            routing.Route("/v2/logs", self._logs),
            routing.Route("/v2/billing", self._balance),
            routing.Route("/v2/billing/transactions", self._transactions),
            routing.Route("/v1/models/deprecations", self._deprecations),
            routing.Route("/v1/models", self._models),
        ]

    async def _logs(self, request: Request) -> Response:
        self._desk.counters.logs += 1

        async def act() -> Response:
            self._desk.authorize(request)
            now = self._desk.clock()
            while self._log_calls and self._log_calls[0] <= now - 60:
                self._log_calls.popleft()
            if len(self._log_calls) >= self._desk.knobs.logs_per_minute:
                raise Problem(429, "Too Many Requests")
            self._log_calls.append(now)
            period = _PERIOD.fullmatch(request.query_params.get("period", "24h"))
            if period is None:
                raise invalid([{"path": ["period"], "message": "Expected such as 1h or 7d", "code": "invalid_string"}])
            return _page(request, self._book.rows(now - int(period[1]) * _UNIT_S[period[2]]))

        return await self._desk.answer(request, "logs", act)

    async def _balance(self, request: Request) -> Response:
        self._desk.counters.billing += 1

        async def act() -> Response:
            self._desk.authorize(request)
            return JSONResponse({"current_balance": models.usd(self._book.balance), "currency": "USD"})

        return await self._desk.answer(request, "billing", act)

    async def _transactions(self, request: Request) -> Response:
        self._desk.counters.billing += 1

        async def act() -> Response:
            self._desk.authorize(request)
            now = self._desk.clock()
            return _page(request, [generation.transaction(now) for generation in self._book])

        return await self._desk.answer(request, "billing", act)

    async def _deprecations(self, request: Request) -> Response:
        async def act() -> Response:
            rows = self._desk.knobs.deprecations
            return JSONResponse({"object": "list", "generated_at": iso(self._desk.clock()), "data": rows})

        return await self._desk.answer(request, "models", act)

    async def _models(self, request: Request) -> Response:
        async def act() -> Response:
            wanted = request.query_params.getlist("id")
            rows: list[dict[str, object]] = []
            for model, credit_price in models.MODELS.items():
                if model in self._desk.knobs.withdrawn_models or (wanted and model not in wanted):
                    continue
                row: dict[str, object] = {"id": model, "type": "video", "info": {"name": "Kling V1.6 effects"}}
                if "pricing" in request.query_params.getlist("include"):
                    row["pricing"] = {"unit": "second", "usd": models.usd(credit_price), "credits": credit_price}
                rows.append(row)
            return JSONResponse({"object": "list", "data": rows})

        return await self._desk.answer(request, "models", act)


def _page(request: Request, rows: Sequence[dict[str, object]]) -> Response:
    limit = _whole(request, "limit", default=_DEFAULT_LIMIT, least=1, most=_MAX_LIMIT)
    offset = _whole(request, "offset", default=0, least=0)
    pagination = {"limit": limit, "offset": offset, "total": len(rows), "has_more": offset + limit < len(rows)}
    return JSONResponse({"data": rows[offset : offset + limit], "pagination": pagination})


def _whole(request: Request, name: str, *, default: int, least: int, most: int | None = None) -> int:
    text = request.query_params.get(name, str(default))
    if re.fullmatch(r"[0-9]{1,9}", text):
        number = int(text)
        if number >= least and (most is None or number <= most):
            return number
    message = f"Expected a whole number from {least}" + ("" if most is None else f" to {most}")
    raise invalid([{"path": [name], "message": message, "code": "invalid_type"}])
