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

from anthropic import Anthropic
from google import genai
from google.genai import types
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
        assert process.wait(timeout=60) == 0


def test_command__prints_settings_that_work_over_all_three_wires(tmp_path: Path) -> None:
    masterbuilder = [sys.executable, "-c", "from cluster.cli import main; main()"]
    command = [*masterbuilder, "simulate", "--port", "0", "--usage-file", str(tmp_path / "u.jsonl")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        lines = []
        while not lines or not lines[-1].startswith("Simulator ready"):
            lines.append(process.stdout.readline())
            assert lines[-1], "it ended before it was ready"
        exports = [line.split()[1:] for line in lines if line.startswith("  export ")]
        given = dict(setting.split("=", 1) for settings in exports for setting in settings)
        with (
            OpenAI(base_url=given["OPENAI_BASE_URL"], api_key=given["OPENAI_API_KEY"]) as openai,
            Anthropic(base_url=given["ANTHROPIC_BASE_URL"], api_key=given["ANTHROPIC_API_KEY"]) as anthropic,
        ):
            assert openai.models.list().data
            assert anthropic.models.list().data
        options = types.HttpOptions(base_url=given["GEMINI_BASE_URL"])
        gemini = genai.Client(api_key=given["GEMINI_API_KEY"], http_options=options)
        assert list(gemini.models.list())
        gemini.close()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_process__says_in_one_line_that_its_port_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "cluster.simulator", "--port", port, "--usage-file", str(tmp_path / "u.jsonl")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"127.0.0.1:{port}: it is in use" in done.stderr
