"""The front desk: checks keys, lets faults strike, acts on requests and answers them."""

import random
from collections.abc import Awaitable, Callable, Collection

from starlette.requests import Request
from starlette.responses import Response

from deployments.sandbox import answers, faults
from deployments.sandbox.answers import Problem
from deployments.sandbox.counters import Counters
from deployments.sandbox.generations import Clock
from deployments.sandbox.knobs import Knobs

Act = Callable[[], Awaitable[Response]]


class Desk:
    """What all routes share.

    Attributes:
        knobs, counters, clock: as given.

    Args:
        knobs: the key, and the faults.
        counters: counts faults that struck.
        clock: seconds since the epoch.
        sleep: waits, for slow answers.
        chance: decides which faults strike.
    """

    def __init__(
        self,
        knobs: Knobs,
        counters: Counters,
        *,
        clock: Clock,
        sleep: Callable[[float], Awaitable[object]],
        chance: random.Random,
    ) -> None:
        self.knobs, self.counters, self.clock = knobs, counters, clock
        self._sleep, self._chance = sleep, chance

    def strike(self, route: faults.Route, kinds: Collection[str], *names: str) -> faults.Fault | None:
        """The fault that strikes now, if any, counted: see `faults.draw`."""
        fault = faults.draw(self.knobs.faults, self._chance, route, kinds, *names)
        if fault is not None:
            self.counters.strike(fault.kind)
        return fault

    def new_request_id(self) -> str:
        """An id of the provider's own for one request."""
        return f"{self._chance.getrandbits(84):021x}"

    async def answer(self, request: Request, route: faults.Route, act: Act, *names: str) -> Response:
        """Act on a request and answer it, as far as the faults let that happen.

        Args:
            request: what came in; its `state.request_id` is set.
            route: where.
            act: acts and makes the true answer; may raise `Problem`.
            names: scene and client request id it is about, for faults that match those.
        """
        request.state.request_id = self.new_request_id()
        slow = self.strike(route, faults.SLOW, *names)
        fault = self.strike(route, faults.ANSWERS, *names)
        if slow is not None and slow.when == "before":
            await self._sleep(slow.seconds)
        if fault is None:
            answer = await self._acted(request, act)
        elif fault.kind == "malformed_json":
            answer = answers.cut(await self._acted(request, act))
        else:
            if fault.when == "after":
                await self._acted(request, act)
            answer = answers.faulty(fault, request.url.path, self.clock(), request.state.request_id)
        if slow is not None and slow.when == "after":
            await self._sleep(slow.seconds)
        answer.headers["x-request-id"] = request.state.request_id
        return answer

    def authorize(self, request: Request) -> None:
        """Let a request with an acceptable key pass.

        Raises:
            Problem: 401.
        """
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        wanted = self.knobs.api_key
        if scheme.lower() != "bearer" or not key.strip() or (wanted is not None and key.strip() != wanted):
            raise answers.unauthorized()

    async def no_route(self, request: Request, _: Exception) -> Response:
        """404, for what no route serves."""
        problem = Problem(404, f"Cannot {request.method} {request.url.path}")
        return problem.answer(request.url.path, self.clock(), self.new_request_id())

    async def _acted(self, request: Request, act: Act) -> Response:
        try:
            return await act()
        except Problem as problem:
            return problem.answer(request.url.path, self.clock(), request.state.request_id)
