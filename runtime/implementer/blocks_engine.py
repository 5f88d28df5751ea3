"""The edit engine that is our own: it asks a model for search/replace blocks and carries them out in memory.

It runs no program and touches no file, so it needs no process and no sandbox of its own.
"""

import asyncio
from collections.abc import Sequence

from runtime.implementer.blocks_door import GatewayDoor, ModelDoor, NoReplyError
from runtime.implementer.blocks_draft import Applied, Draft
from runtime.implementer.blocks_parse import MalformedReplyError, parse
from runtime.implementer.blocks_prompt import Said, correction, opening
from runtime.implementer.engine import EditOutcome, EditRequest
from runtime.implementer.work import Cause

CORRECTIONS_MAX = 1
_FAULTS_MAX = 20
_ERROR_CHARACTERS_MAX = 4_000
_LOG_CHARACTERS_MAX = 32_000
_NAME = "blocks 1 (in process)"


class BlocksEngine:
    """Holds nothing between requests, so they may run side by side.

    All or nothing: an outcome with an error has no files, so that half of an edit is never taken for the whole.
    """

    def __init__(self, door: ModelDoor | None = None) -> None:
        self._door = door or GatewayDoor()

    async def start(self) -> None:
        """There is nothing to warm up."""

    async def stop(self) -> None:
        """There is nothing to end."""

    async def edit(self, request: EditRequest) -> EditOutcome:
        conversation = _Conversation(self._door, request)
        try:
            async with asyncio.timeout(request.timeout_s):
                return conversation.outcome(error=await conversation.hold())
        except TimeoutError:
            error = f"The edit engine was stopped: it had not finished after {request.timeout_s:g} s."
            return conversation.outcome(error=error, cause="engine")
        except NoReplyError as error:
            return conversation.outcome(error=error.text, cause="gateway", gateway_status=error.status)


class _Conversation:
    """One request: the model's reply is carried out, and what could not be is shown to it once."""

    def __init__(self, door: ModelDoor, request: EditRequest) -> None:
        self._door = door
        self._request = request
        self._draft = Draft(request.files)
        self._log: list[str] = []

    async def hold(self) -> str:
        """Returns what is wrong; an empty string when all was carried out. Raises NoReplyError."""
        said: list[Said] = list(await asyncio.to_thread(opening, self._request))
        faults: Sequence[str] = ()
        for _ in range(1 + CORRECTIONS_MAX):
            reply = await self._door.ask(self._request, said)
            self._log.append(reply.text)
            if reply.is_cut:
                return "The model's reply was cut off at the output limit."
            applied = await asyncio.to_thread(self._carry_out, reply.text)
            faults = applied.faults
            if not faults:
                return ""
            said += [Said(role="assistant", text=reply.text), correction(faults[:_FAULTS_MAX], len(applied.done))]
        told = "\n".join(faults)
        return f"The model's edits could not be applied: {told[:_ERROR_CHARACTERS_MAX]}"

    def outcome(self, *, error: str, cause: Cause = "edits", gateway_status: int = 0) -> EditOutcome:
        return EditOutcome(
            files={} if error else self._draft.changes(),
            error=error,
            cause=cause,
            gateway_status=gateway_status,
            log="\n".join(self._log)[-_LOG_CHARACTERS_MAX:],
            engine=_NAME,
        )

    def _carry_out(self, reply: str) -> Applied:
        """Blocking: it may take a moment with large files."""
        try:
            edits = parse(reply)
        except MalformedReplyError as error:
            return Applied(done=(), left_out=(), faults=[str(error)])
        applied = self._draft.apply(edits)
        self._log += applied.done
        self._log += [f"discarded, because not among the task's files: {path}" for path in applied.left_out]
        self._log += [f"not carried out: {fault}" for fault in applied.faults]
        return applied
