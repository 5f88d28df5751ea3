"""The simulator as a process of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openai import OpenAI

from cluster.simulator.scenario import SCENARIOS
from runtime.project.schemas import task_line

BRIEF = (SCENARIOS / "expense_tracker" / "brief.md").read_text()


@contextmanager
def started(usage_file: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "cluster.simulator", "--port", "0", "--usage-file", str(usage_file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().removeprefix("Simulator ready: ").strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_process__loses_no_call_when_it_is_killed(tmp_path: Path) -> None:
    usage_file = tmp_path / "usage.jsonl"
    with started(usage_file) as (process, base_url), OpenAI(base_url=base_url, api_key="sim-1") as client:
        line = task_line(task="plan.todo", id="project", attempt=1, brief=BRIEF)
        completion = client.chat.completions.create(model="gpt-4o", messages=[{"role": "system", "content": line}])
        process.kill()

    [recorded] = [json.loads(line) for line in usage_file.read_text().splitlines()]
    assert completion.usage is not None
    assert recorded["completion_tokens"] == completion.usage.completion_tokens


def test_process__ends_cleanly_when_asked(tmp_path: Path) -> None:
    with started(tmp_path / "usage.jsonl") as (process, base_url):
        assert base_url.startswith("http://127.0.0.1:")
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(timeout=20) == 0


def test_process__says_in_one_line_that_its_port_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "cluster.simulator", "--port", port, "--usage-file", str(tmp_path / "u.jsonl")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"127.0.0.1:{port}: it is in use" in done.stderr
