"""Tokens by the command: what it sends, and settings that work as they are pasted."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fake_door import FakeDoor, Run

from cluster.terminal import CommandGroup
from cluster.token_commands import example_model, paste_settings, seconds_of, tokens
from runtime.errors import BadInputError

LINE = {
    "token_id": "0123456789ab", "state": "valid", "user": "ann", "kind": "user", "label": "[red]editor\x1b[0m",
    "project": None, "run": None, "models": ["openai/*"], "budget_credits": "5.00", "spent_credits": "0.0021",
    "requests_per_minute": 60,
    "created_at": "2026-11-21T12:00:00+00:00", "expires_at": "2026-12-21T12:00:00+00:00", "revoked_at": None,
}  # fmt: skip
ISSUED = {**LINE, "token": "mb-secret", "administers": False}


@pytest.fixture
def run(door: FakeDoor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    group = CommandGroup(commands={"tokens": tokens})
    variables = {
        "DATA_DIR": str(tmp_path / "data"),
        "MASTERBUILDER_URL": door.url,
        "MASTERBUILDER_TOKEN": "mb-test",
        "COLUMNS": "250",
    }
    return lambda *arguments: CliRunner(env={**os.environ, **variables}).invoke(group, ["tokens", *arguments])


def test_create__sends_what_was_said_and_prints_settings_for_four_tools(run: Run, door: FakeDoor) -> None:
    door.says("POST /api/v1/admin/tokens", ISSUED)
    result = run(
        "create", "--user", "ann", "--models", "openai/gpt-4o, eco", "--models", "groq/*", "--budget", "5",
        "--rate", "60", "--expires", "30d", "--label", "editor",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert door.asked[0][2] == {
        "user": "ann", "models": ["openai/gpt-4o", "eco", "groq/*"], "budget_credits": "5",
        "requests_per_minute": 60, "expires_in_s": 30 * 86_400, "label": "editor",
    }  # fmt: skip
    for line in (
        f"export OPENAI_BASE_URL={door.url}/v1",
        f"export ANTHROPIC_BASE_URL={door.url}\n",
        f"export OPENAI_API_BASE={door.url}/v1",
        "aider --model openai/openai/gpt-4o",
        f"curl -sS {door.url}/v1/chat/completions",
    ):
        assert line in result.output
    assert "administrator" not in result.output


def test_create__says_when_the_token_opens_more_than_the_gateway(run: Run, door: FakeDoor) -> None:
    door.says("POST /api/v1/admin/tokens", {**ISSUED, "administers": True})
    assert "operator's doors" in run("create").output


def test_create_as_json__is_facts_and_settings(run: Run, door: FakeDoor) -> None:
    door.says("POST /api/v1/admin/tokens", ISSUED)
    told = json.loads(run("create", "--json").stdout)
    assert (told["token"], sorted(told["settings"])) == ("mb-secret", ["Aider", "Anthropic SDK", "OpenAI SDK", "curl"])


def test_list__shows_terms_as_plain_text(run: Run, door: FakeDoor) -> None:
    door.says("GET /api/v1/admin/tokens", {"tokens": [LINE]})
    shown = run("list", "--user", "a/b").stdout
    assert door.asked[0][1] == "user=a%2Fb"
    for text in ("0123456789ab", "0.0021 / 5.00", "openai/*", "2026-12-21 12:00", "[red]editor[0m"):
        assert text in shown
    assert "\x1b" not in shown


def test_revoke__names_the_token(run: Run, door: FakeDoor) -> None:
    door.says("DELETE /api/v1/admin/tokens/0123456789ab", {"token_id": "0123456789ab", "revoked": True})
    assert "0123456789ab is revoked" in run("revoke", "0123456789ab").stdout


@pytest.mark.parametrize("text", ["", "30", "d", "0d", "-1d", "1y", "9999999d", "1.5h"])
def test_expiry_that_is_no_length_of_time__is_refused_before_anybody_is_asked(
    run: Run, door: FakeDoor, text: str
) -> None:
    with pytest.raises(BadInputError):
        seconds_of(text)
    if text:
        assert run("create", "--expires", text).exit_code == 2
    assert door.asked == []


@pytest.mark.parametrize(
    ("allowed", "model"),
    [
        ((), "openai/gpt-4o-mini"),
        (("openai/*",), "openai/gpt-4o-mini"),
        (("groq/*", "eco"), "eco"),
        (("groq/*",), "auto"),
        (("groq/llama", "openai/*"), "groq/llama"),
    ],
)
def test_example__is_a_model_the_token_may_call(allowed: tuple[str, ...], model: str) -> None:
    assert example_model(allowed, "openai/gpt-4o-mini") == model


class Gateway(BaseHTTPRequestHandler):
    """Answers one call as each wire format does, to the right token only."""

    calls: list[tuple[str, Any]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        token = self.headers.get("x-api-key") or self.headers.get("authorization", "").removeprefix("Bearer ")
        self.calls.append((self.path, body))
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, "input_tokens": 1, "output_tokens": 1}
        answer: dict[str, Any] = {"id": "x", "model": body["model"], "usage": usage}
        if self.path == "/v1/chat/completions":
            message = {"role": "assistant", "content": "Hello from the gateway."}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            answer |= {"object": "chat.completion", "created": 1, "choices": [choice]}
        else:
            content = [{"type": "text", "text": "Hello from the gateway."}]
            answer |= {"type": "message", "role": "assistant", "content": content, "stop_reason": "end_turn"}
        known = token == "mb-it's" and self.path in ("/v1/chat/completions", "/v1/messages")
        data = json.dumps(answer).encode()
        self.send_response(200 if known else 401)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[ThreadingHTTPServer]:
    Gateway.calls = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("tool", ["OpenAI SDK", "Anthropic SDK", "curl"])
def test_settings__run_as_they_are_printed(gateway: ThreadingHTTPServer, tool: str, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{gateway.server_address[1]}"
    script = paste_settings(url, "mb-it's", "openai/gpt-4o-mini")[tool]
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    ran = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "Hello from the gateway." in ran.stdout
    (_, body) = Gateway.calls[0]
    assert body["model"] == "openai/gpt-4o-mini"
