"""The Bot API over HTTP: who calls, what is limited, what goes wrong on purpose, and the answer."""

import asyncio
import inspect
import re
from collections.abc import Callable
from typing import Any

from aiohttp import web

from cluster.simulator.telegram.calls import Call, CallLog
from cluster.simulator.telegram.faults import Fault, Faults
from cluster.simulator.telegram.files import DOWNLOAD_BYTES_MAX, Files
from cluster.simulator.telegram.limits import Limits
from cluster.simulator.telegram.methods import Method, Methods
from cluster.simulator.telegram.parameters import Parameters, read_parameters
from cluster.simulator.telegram.refusal import TelegramRefusal

_TOKEN = re.compile(r"\d{1,20}:[A-Za-z0-9_-]{1,80}")


class BotDoors:
    """`clock` counts seconds from anywhere."""

    def __init__(
        self,
        token: str,
        methods: Methods,
        files: Files,
        faults: Faults,
        limits: Limits,
        calls: CallLog,
        clock: Callable[[], float],
    ) -> None:
        self._token = token
        self._methods = methods
        self._files = files
        self._faults = faults
        self._limits = limits
        self._calls = calls
        self._clock = clock

    def add_to(self, application: web.Application) -> None:
        for verb in ("GET", "POST"):
            application.router.add_route(verb, "/bot{token:[^/]*}/{method:[^/]*}", self._call)
        application.router.add_get("/file/bot{token:[^/]*}/{path:.*}", self._download)

    async def _call(self, request: web.Request) -> web.StreamResponse:
        try:
            self._check_token(request)
            asked = await read_parameters(request)
            return await self._known_call(request, asked)
        except TelegramRefusal as refusal:
            return _refused(refusal)

    async def _known_call(self, request: web.Request, asked: Parameters) -> web.StreamResponse:
        name = request.match_info["method"]
        found = self._methods.find(name)
        method = found[0] if found else name
        call = self._calls.begin(method, self._clock(), _chat_id(asked), asked.logged())
        try:
            if found is None:
                self._calls.unknown[name] += 1
                raise TelegramRefusal(404, "method not found")
            self._limits.note(method, call.chat_id)
            fault = self._take_fault(call, asked)
            if fault is not None and fault.kind == "dropped_before":
                return _dropped(request)
            result = await _carried_out(found[1], asked)
            self._calls.end(call, result)
            return _dropped(request) if fault and fault.kind == "dropped_after" else await _answered(result, fault)
        except TelegramRefusal as refusal:
            self._calls.refuse(call, refusal.error_code, refusal.description)
            raise

    def _take_fault(self, call: Call, asked: Parameters) -> Fault | None:
        """Raises TelegramRefusal where the fault is an answer."""
        fault = self._faults.take(call.method, call.chat_id, with_markup=bool(asked.text("parse_mode")))
        if fault is not None:
            call.fault = fault.kind
            refusal = fault.refusal()
            if refusal is not None:
                raise refusal
        return fault

    async def _download(self, request: web.Request) -> web.StreamResponse:
        try:
            self._check_token(request)
            file = self._files.by_path(request.match_info["path"])
            if file is None or file.size_bytes > DOWNLOAD_BYTES_MAX:
                raise TelegramRefusal(404)
        except TelegramRefusal as refusal:
            return _refused(refusal)
        return web.Response(body=file.content, content_type="application/octet-stream")

    def _check_token(self, request: web.Request) -> None:
        token = request.match_info["token"]
        if not _TOKEN.fullmatch(token):
            raise TelegramRefusal(404)
        if token != self._token:
            raise TelegramRefusal(401)


async def _carried_out(method: Method, asked: Parameters) -> Any:
    result = method(asked)
    return await result if inspect.isawaitable(result) else result


async def _answered(result: Any, fault: Fault | None) -> web.Response:
    if fault is not None and fault.kind == "slow":
        await asyncio.sleep(fault.delay_s)
    return web.json_response({"ok": True, "result": result})


def _refused(refusal: TelegramRefusal) -> web.Response:
    headers = {} if refusal.retry_after_s is None else {"Retry-After": str(refusal.retry_after_s)}
    return web.json_response(refusal.body(), status=refusal.error_code, headers=headers)


def _dropped(request: web.Request) -> web.Response:
    """The client sees the connection end without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _chat_id(asked: Parameters) -> int | None:
    value = str(asked.values.get("chat_id", ""))
    return int(value) if re.fullmatch(r"-?\d{1,19}", value) else None
