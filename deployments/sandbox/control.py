"""The stand-in's own routes, under /sandbox: counters, knobs and faults, over HTTP and without a key."""

import dataclasses

from pydantic import ValidationError
from starlette import routing
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deployments.sandbox.desk import Desk
from deployments.sandbox.faults import Fault
from deployments.sandbox.knobs import Knobs


class Control:
    """Routes that read and set one desk's knobs."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.routes = [
            routing.Route("/sandbox/counters", self._counters),
            routing.Route("/sandbox/knobs", self._knobs),
            routing.Route("/sandbox/knobs", self._turn, methods=["POST"]),
            routing.Route("/sandbox/faults", self._faults),
            routing.Route("/sandbox/faults", self._replace, methods=["POST"]),
            routing.Route("/sandbox/faults", self._clear, methods=["DELETE"]),
        ]

    async def _counters(self, _: Request) -> Response:
        return JSONResponse(dataclasses.asdict(self._desk.counters))

    async def _knobs(self, _: Request) -> Response:
        return JSONResponse(self._desk.knobs.model_dump(mode="json", exclude={"api_key"}))

    async def _turn(self, request: Request) -> Response:
        """Set the fields that the JSON object names; all of them or, when one is wrong, none."""
        try:
            changes = await request.json()
            turned = Knobs.model_validate({**self._desk.knobs.model_dump(exclude_unset=True), **changes})
        except (ValueError, TypeError) as error:
            return _refused(error)
        for name in changes:
            setattr(self._desk.knobs, name, getattr(turned, name))
        return await self._knobs(request)

    async def _faults(self, _: Request) -> Response:
        return JSONResponse([fault.model_dump(mode="json") for fault in self._desk.knobs.faults])

    async def _replace(self, request: Request) -> Response:
        """Put a JSON array, of objects or of `KIND[@ROUTE][:RATE]` strings, in place of all faults."""
        try:
            body = await request.json()
            if not isinstance(body, list):
                raise TypeError("expected an array of faults")  # noqa: TRY301  # one place says what is wrong
            self._desk.knobs.faults = [
                Fault.parse(item) if isinstance(item, str) else Fault.model_validate(item) for item in body
            ]
        except (ValueError, TypeError) as error:
            return _refused(error)
        return await self._faults(request)

    async def _clear(self, request: Request) -> Response:
        self._desk.knobs.faults = []
        return await self._faults(request)


def _refused(error: Exception) -> Response:
    lines = [str(error)]
    if isinstance(error, ValidationError):
        lines = [f"{'.'.join(map(str, line['loc']))}: {line['msg']}".removeprefix(": ") for line in error.errors()]
    return JSONResponse({"message": "; ".join(lines)}, 400)
