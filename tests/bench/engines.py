"""`make bench NAME=engines`: what a task costs in CPU, by edit engine, beside the model's own time.

The tasks are those of the demo's scenario, answered by a simulator in a process of its own that is not counted. Both
engines are warm: all tasks are carried out once before. Prints one JSON line per figure.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from runtime.implementer.aider_engine import AiderEngine
from runtime.implementer.blocks_engine import BlocksEngine
from runtime.implementer.engine import EditEngine
from runtime.implementer.sandbox import Sandbox
from tests.bench.figures import figure
from tests.contract.scenario_edits import TASKS, write_code

ROUNDS = 3
AIDER_CPU_S_MAX = 1.0
AIDER_VENV = Path(os.environ.get("AIDER_VENV") or Path(__file__).parents[2] / ".venv-aider").absolute()


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="mb-engines-") as folder, simulator(Path(folder)) as (url, other):
        aider = AiderEngine(
            python=AIDER_VENV / "bin" / "python", sandbox=Sandbox(), scratch_dir=Path(folder) / "scratch"
        )
        start_s, aider_s = asyncio.run(measure(aider, url, other))
        _, blocks_s = asyncio.run(measure(BlocksEngine(), url, other))
    figures = [
        figure("engines", "aider_start_cpu", start_s, "s"),
        figure(
            "engines", "aider_cpu_per_task", aider_s, "s",
            target=f"<= {AIDER_CPU_S_MAX:g}", holds=aider_s <= AIDER_CPU_S_MAX,
        ),
        figure(
            "engines", "blocks_cpu_per_task", blocks_s, "s",
            against="aider_cpu_per_task", ratio=blocks_s / aider_s, target="< 1", holds=blocks_s < aider_s,
        ),
    ]  # fmt: skip
    for each in figures:
        print(json.dumps(each))
    return 0 if all(each["holds"] for each in figures) else 1


async def measure(engine: EditEngine, url: str, other: int) -> tuple[float, float]:
    """CPU seconds of its start, and of one task; `other` is a process that does not count."""
    before_s = cpu_s(other)
    await engine.start()
    start_s = cpu_s(other) - before_s
    try:
        await write_code(engine, url)
        before_s = cpu_s(other)
        for _ in range(ROUNDS):
            await write_code(engine, url)
        return start_s, (cpu_s(other) - before_s) / (ROUNDS * len(TASKS))
    finally:
        await engine.stop()


def cpu_s(other: int) -> float:
    """Of this process and all that it has started; those must not end between two looks."""
    processes = [process for process in psutil.Process().children(recursive=True) if process.pid != other]
    times = [process.cpu_times() for process in processes]
    return time.process_time() + sum(each.user + each.system for each in times)


@contextmanager
def simulator(folder: Path) -> Iterator[tuple[str, int]]:
    """Its base URL with `/v1`, and its process."""
    command = [sys.executable, "-m", "cluster.simulator", "--port", "0", "--latency-ms", "0"]
    process = subprocess.Popen(
        [*command, "--usage-file", str(folder / "usage.jsonl")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        yield ready[ready.index("http") :].strip(), process.pid
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
