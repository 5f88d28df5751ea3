"""The log of calls, in the order in which they came."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

CALLS_MAX = 100_000


@dataclass(slots=True, kw_only=True)
class Call:
    """`error_code` 0: carried out. None: it is not answered yet, or never was."""

    number: int
    method: str
    at_s: float
    chat_id: int | None
    parameters: dict[str, Any] = field(repr=False)
    error_code: int | None = None
    description: str = ""
    result: Any = None
    fault: str = ""

    def facts(self) -> dict[str, Any]:
        return asdict(self)


class CallLog:
    """Keeps the last `CALLS_MAX`, and counts all."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque(maxlen=CALLS_MAX)
        self._number = 0
        self.by_method: Counter[str] = Counter()
        self.by_error: Counter[int] = Counter()
        self.unknown: Counter[str] = Counter()

    def begin(self, method: str, at_s: float, chat_id: int | None, parameters: dict[str, Any]) -> Call:
        self._number += 1
        self.by_method[method] += 1
        call = Call(number=self._number, method=method, at_s=at_s, chat_id=chat_id, parameters=parameters)
        self._calls.append(call)
        return call

    def end(self, call: Call, result: Any) -> None:
        call.error_code, call.result = 0, result

    def refuse(self, call: Call, error_code: int, description: str) -> None:
        call.error_code, call.description = error_code, description
        self.by_error[error_code] += 1

    def since(self, number: int, method: str = "") -> Sequence[Call]:
        """Those after `number`; of one method where it is named."""
        return [call for call in self._calls if call.number > number and method in ("", call.method)]
