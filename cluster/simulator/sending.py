"""One call under way, and how its answer leaves."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil

from aiohttp import web

from cluster.simulator.faults import Fault
from cluster.simulator.limits import Arrival
from cluster.simulator.refusal import Refusal
from cluster.simulator.reply import Part
from cluster.simulator.traffic import Lane
from cluster.simulator.usage import ServedCall, UsageFile, text_tokens
from cluster.simulator.wires.wire import Wire

_GONE = 499
_GONE_POLL_S = 0.1
_WHOLE_HEADERS = {"Content-Type": "application/json"}
_STREAM_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call under way: who it is of, what it suffers, and what will stand in the usage file."""

    request: web.Request
    wire: Wire
    lane: Lane
    arrival: Arrival
    id: str
    model: str
    task: str
    task_id: str
    attempt: int
    prompt_tokens: int
    user: str
    fault: Fault | None

    def suffers(self, kind: str) -> bool:
        return self.fault is not None and self.fault.kind == kind

    @property
    def hangs_at_once(self) -> bool:
        return self.fault is not None and self.fault.kind == "hang" and not self.fault.after_pieces

    @property
    def is_gone(self) -> bool:
        """The client went away."""
        return self.request.transport is None or self.request.transport.is_closing()

    def served(self, completion_tokens: int, *, complete: bool) -> ServedCall:
        return ServedCall(
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            call_id=self.arrival.call_id,
            model=self.model,
            task=self.task,
            id=self.task_id,
            attempt=self.attempt,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=completion_tokens,
            complete=complete,
            wire=self.wire.name,
            key=self.lane.fingerprint,
            user=self.user,
        )


class Sender:
    """Writes answers, and each into the usage file and the traffic before its last part leaves, so that no client knows
    more than the file or comes back before it counts."""

    def __init__(self, usage: UsageFile, clock: Callable[[], float]) -> None:
        self._usage = usage
        self._clock = clock

    async def nothing(self, call: Call) -> web.StreamResponse:
        """Hangs, and hangs up."""
        await _hang(call)
        return self._cut(call, 0, web.Response(status=_GONE))

    async def whole(self, call: Call, body: bytes, completion_tokens: int) -> web.StreamResponse:
        if call.suffers("malformed_wire"):
            body = body[: len(body) // 2]
        if call.suffers("cut_stream") or call.suffers("hang") or call.suffers("error_in_stream"):
            return await self._half(call, body)
        if call.is_gone:
            return self._cut(call, 0, web.Response(status=_GONE))
        try:
            self._record(call, completion_tokens, complete=True)
        except OSError as error:
            raise Refusal(500, f"The simulator cannot write its usage file: {error}.") from error
        return web.Response(body=body, headers={**_WHOLE_HEADERS, **self._headers(call)})

    async def _half(self, call: Call, body: bytes) -> web.StreamResponse:
        """Half of the bytes and then the end of the connection, where more were announced."""
        headers = {**_WHOLE_HEADERS, **self._headers(call), "Content-Length": str(len(body))}
        response = web.StreamResponse(headers=headers)
        with contextlib.suppress(ConnectionError):
            await response.prepare(call.request)
            await response.write(body[: len(body) // 2])
            if call.suffers("hang"):
                await _hang(call)
        return self._cut(call, 0, response)

    async def stream(
        self, call: Call, parts: Sequence[Part], piece_s: float, completion_tokens: int
    ) -> web.StreamResponse:
        """Sends the parts and records the call: complete just before the last part, else with the text sent so far."""
        response = web.StreamResponse(headers={**_STREAM_HEADERS, **self._headers(call)})
        stop_after = _pieces_before_the_stop(call, parts)
        sent: list[str] = []
        with contextlib.suppress(ConnectionError):
            await response.prepare(call.request)
            for part in parts[:-1]:
                if part.text:
                    if len(sent) == stop_after:
                        break
                    if piece_s:
                        await asyncio.sleep(piece_s)
                    if call.is_gone:
                        break
                    # Counted first: what is written may arrive, whatever is raised while it is waited for.
                    sent.append(part.text)
                data = part.data
                if part.text and len(sent) == 1 and call.suffers("malformed_wire"):
                    data = data.rstrip()[:-2] + b"\n\n"
                await response.write(data)
            if stop_after is not None:
                await self._stop(call, response)
            elif not call.is_gone:
                self._record(call, completion_tokens, complete=True)
                await response.write(parts[-1].data)
        return self._cut(call, text_tokens("".join(sent)), response)

    async def _stop(self, call: Call, response: web.StreamResponse) -> None:
        """In the middle of a stream."""
        if call.suffers("hang"):
            await _hang(call)
        elif call.suffers("error_in_stream"):
            await response.write(call.wire.error_event(Refusal(529, "Overloaded"), f"req_{call.id}"))

    def _record(self, call: Call, completion_tokens: int, *, complete: bool) -> None:
        self._usage.record(call.served(completion_tokens, complete=complete))
        call.lane.used(call.arrival, completion_tokens)
        call.lane.end(call.arrival, "served" if complete else "cut", 200)

    def _cut(self, call: Call, completion_tokens: int, response: web.StreamResponse) -> web.StreamResponse:
        """Ends the connection of a call that was not completed, and records what had been sent."""
        if call.arrival.outcome == "open":
            self._record(call, completion_tokens, complete=False)
            if call.request.transport is not None:
                call.request.transport.close()
        return response

    def _headers(self, call: Call) -> Mapping[str, str]:
        return call.wire.headers(f"req_{call.id}", *call.lane.allowances(self._clock()))


def _pieces_before_the_stop(call: Call, parts: Sequence[Part]) -> int | None:
    """None where nothing stops the stream."""
    fault = call.fault
    if fault is None or fault.kind not in ("cut_stream", "hang", "error_in_stream"):
        return None
    half = sum(bool(part.text) for part in parts) // 2
    return half if fault.after_pieces is None else fault.after_pieces


async def _hang(call: Call) -> None:
    """Says nothing, until the client goes or the fault's time is over."""
    assert call.fault is not None, "only a fault hangs"
    for _ in range(ceil(call.fault.wait_s / _GONE_POLL_S)):
        if call.is_gone:
            return
        await asyncio.sleep(_GONE_POLL_S)
