"""Nobody but the pools and the processes that call providers ever has a provider's key, whatever goes wrong.

The keys are planted, traffic and a build go on and fail in many ways, and then every byte is searched.
"""

import json
import re
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest

from cluster.processes import owned
from cluster.simulator.scenario import SCENARIOS
from runtime.config import Secrets
from serve_apps import api_routes, payment_routes
from tests.e2e.indiscreet import LAST, STATUSES, STREAMED, Indiscreet, indiscreet
from tests.e2e.live import Live
from tests.e2e.needles import Haystack, memory_of
from tests.e2e.upstream import CLAUDE, GEMINI, GPT

SCENARIO = SCENARIOS / "expense_tracker"
GROK, DEEPSEEK = "grok/grok-2", "deepseek/deepseek-chat"
"""The first has a key that an operator added, the second two from a list."""
TASK_TOKEN = re.compile(rb"mbt-[A-Za-z0-9_-]{43}")
PUBLIC = ("/live", "/health")
WITHOUT_TOKEN = {"POST /api/v1/auth/register": 400, "POST /api/v1/auth/link": 401}
"""Whoever comes to these has no token yet: a proof is asked for, or the bot's own."""
NOT_SOLD = {route.path for route in payment_routes.router.routes}  # type: ignore[attr-defined]
EDIT_S = 40.0
"""How long the first edit of the build is kept waiting."""


@dataclass(slots=True)
class Scene:
    """A service with planted keys, and everything it ever answered."""

    live: Live
    simulator: str
    provider: Indiscreet
    keys: Mapping[str, str]
    said: list[bytes] = field(default_factory=list)

    @property
    def haystack(self) -> Haystack:
        return Haystack(self.keys)

    def run(self, *arguments: str, stdin: str = "", succeeds: bool = True, **variables: str) -> str:
        ran = self.live.run(*arguments, stdin=stdin, **variables)
        self.said.append((ran.stdout + ran.stderr).encode())
        assert (ran.returncode == 0) == succeeds, f"{arguments}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def post(self, path: str, body: Mapping[str, Any], token: str = "") -> httpx.Response:
        headers = {"Authorization": f"Bearer {token or self.live.client_token}"}
        answer = httpx.post(f"{self.live.url}{path}", json=body, headers=headers, timeout=60.0, trust_env=False)
        self.said += [answer.content, repr(answer.headers.raw).encode(), answer.reason_phrase.encode()]
        return answer


@pytest.fixture(scope="module")
def scene(live: Live) -> Iterator[Scene]:
    names = ("openai", "openai more", "claude", "gemini", "gemini more", "deepseek 1", "deepseek 2", "grok")
    keys = {name: f"sim-{secrets.token_hex(12)}.{secrets.token_urlsafe(24)}" for name in names}
    simulator = live.start_simulator()["OPENAI_BASE_URL"].removesuffix("/v1")
    with indiscreet() as provider:
        blab = provider.url
        scene = Scene(live=live, simulator=simulator, provider=provider, keys=keys)
        started = live.run(
            "up",
            OPENAI_BASE_URL=f"{simulator}/v1",
            OPENAI_API_KEY=keys["openai"],
            OPENAI_API_KEYS_JSON=json.dumps([{"key": keys["openai more"], "label": "another"}]),
            ANTHROPIC_BASE_URL=blab,
            ANTHROPIC_API_KEY=keys["claude"],
            GEMINI_BASE_URL=blab,
            GEMINI_API_KEY=keys["gemini"],
            GOOGLE_API_KEYS_JSON=json.dumps([{"key": keys["gemini more"]}]),
            DEEPSEEK_BASE_URL=f"{blab}/v1",
            DEEPSEEK_API_KEYS_JSON=json.dumps([{"key": keys["deepseek 1"]}, {"key": keys["deepseek 2"]}]),
            KEY_COOLDOWN_SECONDS="0",
            KEY_WAIT_SECONDS="1",
        )
        assert started.returncode == 0, started.stderr
        added = live.run("keys", "add", "grok", "--base-url", f"{blab}/v1", "--label", "mine", stdin=keys["grok"])
        assert added.returncode == 0, added.stderr
        scene.said.append((started.stdout + started.stderr + added.stdout + added.stderr).encode())
        yield scene


# While an implementer is at work


@pytest.fixture(scope="module")
def implementer(scene: Scene) -> psutil.Process:
    """The confined edit engine of a build that waits for its first edit."""
    if not shutil.which("bwrap") or not Path(scene.live.environment.get("AIDER_VENV", "/nowhere")).exists():
        pytest.skip("a build needs bubblewrap, and Aider in AIDER_VENV")
    httpx.post(
        f"{scene.simulator}/simulator/faults",
        json={"kind": "slow_first_byte", "task": "code.edit", "count": 99, "delay_s": EDIT_S},
        trust_env=False,
    ).raise_for_status()
    brief, answers = str(SCENARIO / "brief.md"), str(SCENARIO / "answers.yaml")
    ordered = scene.run("build", brief, "--answers", answers, "--yes", "--no-follow", "--json")
    project = json.loads(ordered)["id"]
    for event in scene.live.client.events(project, 0):
        assert event.type != "project.finished", event.data
        if event.type == "task.started":
            break
    deadline = time.monotonic() + 120.0
    while time.monotonic() < deadline:
        for process in _edit_engines(scene.live):
            if _task_tokens(process):
                return process
        time.sleep(0.2)
    raise AssertionError("no edit engine has a token")


@pytest.fixture(scope="module")
def task_token(scene: Scene, implementer: psutil.Process) -> str:
    """As whatever runs inside the sandbox can find it: of several strings that look like one, the one that works."""
    for token in _task_tokens(implementer):
        headers = {"Authorization": f"Bearer {token}"}
        if httpx.get(f"{scene.live.url}/v1/models", headers=headers, trust_env=False).status_code == 200:
            return token
    raise AssertionError("no token of a task works")


def test_implementers__have_no_key_in_their_environment_or_memory(scene: Scene, implementer: psutil.Process) -> None:
    own = Secrets.load(scene.live.instance.data_dir, {})
    sealing = {"the admin's token": own.admin_token, "the master key": own.api_key_encryption_key.hex()}
    haystack = Haystack({**scene.keys, **sealing})
    processes = [implementer, *_named(scene.live, "ray::ImplementerActor"), *_named(scene.live, "ray::ImplementerPool")]
    assert len(processes) >= 3
    assert {process.pid: found for process in processes if (found := haystack.in_process(process))} == {}
    # The search would have found them: here they are.
    assert haystack.in_process(psutil.Process()) == {*scene.keys, *sealing}


def test_task_token__opens_no_other_door(scene: Scene, task_token: str) -> None:
    headers = {"Authorization": f"Bearer {task_token}"}
    app = api_routes.create_app(SimpleNamespace())  # type: ignore[arg-type]
    routes = [route for included in app.routes for route in included.original_router.routes]  # type: ignore[attr-defined]
    closed = [route for route in routes if route.path not in PUBLIC]
    assert len(closed) > 15
    opened = {}
    with httpx.Client(base_url=scene.live.url, headers=headers, trust_env=False, timeout=60.0) as client:
        for route in closed:
            path = re.sub(r"\{\w+\}", "6f1c0000-0000-4000-8000-000000000000", route.path)
            for method in route.methods:
                answer = client.request(method, path, json={} if method in ("POST", "PUT", "PATCH") else None)
                # While credits are not sold, nobody is told that they could be.
                door = f"{method} {route.path}"
                if answer.status_code != WITHOUT_TOKEN.get(door, 404 if route.path in NOT_SOLD else 403):
                    opened[door] = answer.status_code
    assert opened == {}


def test_task_token__calls_its_own_model_only(scene: Scene, task_token: str) -> None:
    hello = [{"role": "user", "content": "synthetic tokens=3"}]
    own = scene.post("/v1/chat/completions", {"model": GPT, "messages": hello, "max_tokens": 9}, task_token)
    assert own.status_code == 200, own.text
    for path, model in (
        ("/v1/chat/completions", "openai/gpt-4o"),
        ("/v1/chat/completions", "deep"),
        ("/v1/chat/completions", "auto"),
        ("/v1/messages", CLAUDE),
    ):
        other = scene.post(path, {"model": model, "messages": hello, "max_tokens": 9}, task_token)
        assert other.status_code == 403, f"{model}: {other.text}"
    texts = {"model": "openai/text-embedding-3-small", "input": "a text"}
    assert scene.post("/v1/embeddings", texts, task_token).status_code == 403


def test_task_token__cannot_spend_more_than_its_task_may(scene: Scene, task_token: str) -> None:
    hello = [{"role": "user", "content": "synthetic tokens=3"}]
    body = {"model": GPT, "messages": hello, "max_tokens": 9_000_000}
    refused = scene.post("/v1/chat/completions", body, task_token)
    assert refused.status_code == 402, refused.text


def test_task_token__is_worth_nothing_after_its_task(scene: Scene, task_token: str) -> None:
    (project,) = scene.live.client.projects()
    scene.run("cancel", project.id, "--yes")
    deadline = time.monotonic() + 30.0
    body = {"model": GPT, "messages": [{"role": "user", "content": "synthetic"}], "max_tokens": 9}
    while (answer := scene.post("/v1/chat/completions", body, task_token)).status_code != 401:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.5)


# While providers misbehave


@pytest.mark.parametrize("model", [DEEPSEEK, GROK, CLAUDE, GEMINI])
def test_provider_that_repeats_its_key__is_not_quoted(scene: Scene, model: str) -> None:
    def ask(wanted: str, path: str, streams: bool) -> str:
        message = {"role": "user", "content": f"please {wanted}"}
        answer = scene.post(path, {"model": model, "messages": [message], "max_tokens": 9, "stream": streams})
        shown = answer.status_code == 500 or bool(scene.haystack.in_bytes(answer.content))
        return f"{wanted}: {answer.status_code} {answer.text}" if shown else ""

    ways = list(product(("/v1/chat/completions", "/v1/messages"), (False, True)))
    before = Counter(scene.provider.answered)
    with ThreadPoolExecutor(16) as pool:
        told = list(pool.map(lambda case: ask(case[0], *case[1]), product((*STATUSES, *STREAMED, "html"), ways)))
    for wanted in LAST:
        told += [ask(wanted, *way) for way in ways[:2]]
    assert [complaint for complaint in told if complaint] == []
    # Everything was asked for; a key that was refused is not shown again.
    assert {*STATUSES, *STREAMED, "html", LAST[0]} <= set(scene.provider.answered - before)


def test_calls_that_succeed__and_one_whose_key_is_revoked(scene: Scene) -> None:
    body = {"model": GPT, "messages": [{"role": "user", "content": "synthetic tokens=3"}], "max_tokens": 9}
    for _ in range(4):
        assert scene.post("/v1/chat/completions", body).status_code == 200
    fault = {"kind": "revoke_key", "key": scene.keys["openai more"]}
    httpx.post(f"{scene.simulator}/simulator/faults", json=fault, trust_env=False).raise_for_status()
    for _ in range(6):
        assert scene.post("/v1/chat/completions", body).status_code == 200


# And now everything is searched


def test_commands__show_no_key(scene: Scene) -> None:
    listed = scene.run("keys", "list", "--json")
    assert len(json.loads(listed)["keys"]) == len(scene.keys)
    scene.run("keys", "list")
    scene.run("status", "--json")
    scene.run("doctor", "--json")
    scene.run("tokens", "list", "--json")
    scene.run("keys", "add", "grok", stdin=f"{scene.keys['grok']} and a space", succeeds=False)
    scene.run("keys", "disable", scene.keys["grok"], succeeds=False)
    scene.run("up", DEEPSEEK_API_KEYS_JSON=json.dumps([{"kex": scene.keys["deepseek 1"]}]), succeeds=False)
    said = b"\n".join(scene.said)
    # What was typed on a command line is the caller's own to repeat; nothing else is.
    assert scene.haystack.in_bytes(said.replace(scene.keys["grok"].encode(), b"")) == set()


def test_no_file__holds_a_key_while_the_service_runs(scene: Scene) -> None:
    control = scene.live.instance.data_dir / "control"
    control.write_bytes(b"\0" * 100 + json.dumps({"key": scene.keys["openai"]}).encode())
    try:
        assert scene.haystack.in_files(_folders(scene.live)) == {str(control): {"openai"}}
    finally:
        control.unlink()


def test_no_process__was_started_with_a_key(scene: Scene) -> None:
    found = {}
    for process in owned(scene.live.instance):
        try:
            environment = Path(f"/proc/{process.pid}/environ").read_bytes()
            line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        except OSError:
            continue
        if names := scene.haystack.in_bytes(environment + line):
            found[process.pid] = names
    assert found == {}


def test_no_file__holds_a_key_after_the_service_was_stopped(scene: Scene) -> None:
    assert scene.live.run("down").returncode == 0
    assert scene.haystack.in_files(_folders(scene.live)) == {}


def _folders(live: Live) -> list[Path]:
    """The data folder and everything of Ray: logs, sockets, sessions, spilled objects, HAProxy's files."""
    prefix = Path(live.instance.temp_prefix)
    return [live.instance.data_dir, *prefix.parent.glob(f"{prefix.name}*"), *prefix.parent.glob("mb-scratch-*")]


def _named(live: Live, name: str) -> list[psutil.Process]:
    return [process for process, line in _command_lines(live) if line.startswith(name)]


def _edit_engines(live: Live) -> list[psutil.Process]:
    return [
        process
        for process, line in _command_lines(live)
        if "aider_worker.py" in line and not Path(line.split()[0]).name.startswith("bwrap")
    ]


def _command_lines(live: Live) -> Iterator[tuple[psutil.Process, str]]:
    for process in owned(live.instance):
        with suppress(psutil.NoSuchProcess):  # It ended meanwhile.
            yield process, " ".join(process.cmdline())


def _task_tokens(process: psutil.Process) -> set[str]:
    try:
        return {token.decode() for block in memory_of(process) for token in TASK_TOKEN.findall(block)}
    except PermissionError:
        pytest.skip("this user may not read the memory of its own processes")
