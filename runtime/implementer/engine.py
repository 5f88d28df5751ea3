"""What carries out an edit: files and an instruction in, files out. It sees nothing else of a project."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from runtime.implementer.work import Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class EditRequest:
    """One instruction. Paths are relative to the project's root."""

    instruction: str
    files: Mapping[str, bytes | None]
    """What may be edited; None for a file that does not exist yet."""
    read_only: Mapping[str, bytes]
    """What may be read beside it."""
    model: str
    """`provider/model`, as the gateway names it."""
    gateway_url: str
    """Base URL with `/v1`."""
    token: str
    timeout_s: float = 300.0
    output_tokens_max: int = 8_192
    """For each of the model's replies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EditOutcome:
    """`files` holds what the engine wrote, None for what it removed, and nothing it left alone; the caller decides
    which of it to keep. A renamed file is one that was removed and one that was written.

    `error` is empty, or says why the work was not finished; then there are no files, so that half of an edit is never
    taken for the whole.
    """

    files: Mapping[str, bytes | None]
    error: str
    cause: Cause = "edits"
    """What an error is about: the model's edits, a call that the gateway did not answer, or the engine itself."""
    gateway_status: int = 0
    """With cause `gateway`, the HTTP status it answered; 0 when it did not."""
    log: str
    engine: str
    """Which program did it: `aider 0.86.2 (pid 4711, /path/to/python)`."""


class EditEngine(Protocol):
    """Carries out requests that share nothing; one that works on one at a time lets the others wait their turn."""

    async def start(self) -> None:
        """Makes the first edit quick. Idempotent. Raises EngineUnavailableError or SandboxUnavailableError."""

    async def edit(self, request: EditRequest) -> EditOutcome:
        """Starts the engine when it is not running. Raises as `start` does; every later failure is in the outcome.

        Cancelling it ends the work; a model call that was under way may still be charged.
        """

    async def stop(self) -> None:
        """Ends every process of the engine. Idempotent."""
