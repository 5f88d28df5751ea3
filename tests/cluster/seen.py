"""What the observer on a node has seen so far, for a test that waits for something."""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from tests.cluster.nodes import HEAD, WORKER

Look = dict[str, Any]


class Seen:
    """Reads an observer's lines in a thread of its own; the newest fact of each name counts."""

    def __init__(self, observer: "subprocess.Popen[str]") -> None:
        self._observer = observer
        self._looks: list[Look] = []
        threading.Thread(target=self._read, name="observer", daemon=True).start()

    def say(self, text: str) -> None:
        assert self._observer.stdin is not None
        self._observer.stdin.write(f"{text}\n")
        self._observer.stdin.flush()

    def wait_for(
        self, what: str, fact: str, is_so: Callable[[Any], bool], patience_s: float, after: float = 0.0
    ) -> Look:
        """The first look after the Unix time `after` in which it is so."""
        deadline = time.monotonic() + patience_s
        at = 0
        while True:
            while at < len(self._looks):
                look = self._looks[at]
                if look["at"] > after and fact in look and is_so(look[fact]):
                    return look
                at += 1
            assert self._observer.poll() is None, "the observer ended"
            assert time.monotonic() < deadline, f"not within {patience_s:.0f} s: {what}; last: {self._looks[-2:]}"
            time.sleep(0.1)

    def last(self, fact: str) -> Any:
        return next(look[fact] for look in reversed(self._looks) if look.get(fact) is not None)

    def _read(self) -> None:
        assert self._observer.stdout is not None
        for line in self._observer.stdout:
            if line.startswith("{"):
                self._looks.append(json.loads(line))


def is_on_both(places: Mapping[str, str]) -> bool:
    """Hosts with partitions run on both nodes, and nowhere else."""
    return set(places.values()) == {HEAD, WORKER}
