"""The one program of ours that runs in the sandbox: reads what to do, does it, prints one line of JSON."""

import ctypes
import json
from pathlib import Path
from typing import Any

from runtime.project.probe.readme import execute
from runtime.project.probe.starting import try_out

ORDER = Path(__file__).with_name("order.json")
_PR_SET_DUMPABLE = 4


def main() -> None:
    # What is tried out runs as the same user: without this it could write into what we print.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    print(json.dumps(_done(json.loads(ORDER.read_text())), ensure_ascii=False), flush=True)


def _done(order: dict[str, Any]) -> Any:
    match order["do"]:
        case "start":
            return try_out(
                order["command"],
                Path(order["screenshot"]),
                starts_s=order["starts_s"],
                answers_s=order["answers_s"],
                browsers=order["browsers"],
            )
        case "readme":
            return execute(order["commands"], total_s=order["total_s"])
        case _:
            raise ValueError(order["do"])


if __name__ == "__main__":
    main()
