"""The chaos plan's load, from any node of `Nodes`."""

import json
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.chaos import diary
from tests.cluster.nodes import HEAD, Nodes

ANSWERED_S_MAX = 60.0
DRAIN_S_MAX = 90.0
_CALLERS = 16


def start_load(nodes: Nodes, address: str, path: Path, seed: int) -> "subprocess.Popen[str]":
    return nodes.run_python(address, "-m", "tests.chaos.load", str(path), str(seed), str(_CALLERS))


def wait_until_answered(paths: Iterable[Path], count: int) -> None:
    """Until each of the diaries has `count` acknowledged messages."""
    deadline = time.monotonic() + ANSWERED_S_MAX
    for path in paths:
        while len(diary.read(path).accepted) < count:
            assert time.monotonic() < deadline, f"the load of {path.name} is not answered"
            time.sleep(0.2)


def drain(load: "subprocess.Popen[str]") -> None:
    """Everything it has sent is answered when this returns."""
    told, _ = load.communicate("drain\n", DRAIN_S_MAX)
    assert told.endswith("drained\n"), "the load ended before it was answered"


def read_all(nodes: Nodes, diaries: Mapping[int, Path]) -> Mapping[str, Any]:
    """What stands in the entities, by seed and diary of what was sent."""
    given = [f"{seed}={path}" for seed, path in diaries.items()]
    readings: Mapping[str, Any] = json.loads(
        nodes.run_python(HEAD, "-m", "tests.chaos.readings", *given).communicate("", DRAIN_S_MAX)[0]
    )
    return readings
