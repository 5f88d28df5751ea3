"""The edit engine with a real Aider, against a small stand-in for the gateway.

Needs bubblewrap, and Aider's own environment: AIDER_VENV, or `.venv-aider` in the project's folder.
"""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from aiohttp import web

from runtime.errors import EngineUnavailableError
from runtime.implementer.aider_engine import AiderEngine
from runtime.implementer.engine import EditOutcome, EditRequest
from runtime.implementer.implementer import Implementer
from runtime.implementer.sandbox import Sandbox
from runtime.implementer.work import EditWork
from runtime.project.repository import Author, ProjectRepository

AIDER_VENV = Path(os.environ.get("AIDER_VENV") or Path(__file__).parents[2] / ".venv-aider").absolute()
PYTHON = AIDER_VENV / "bin" / "python"

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
    pytest.mark.skipif(not PYTHON.exists(), reason=f"no Aider environment in {AIDER_VENV}; set AIDER_VENV"),
]

TASK_LINE = "masterbuilder task=code.edit id=T-001 attempt=1 brief=9f86d081884c"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def edit_block(path: str, search: str, replace: str) -> str:
    return f"{path}\n```python\n<<<<<<< SEARCH\n{search}=======\n{replace}>>>>>>> REPLACE\n```\n"


def completion(text: str, finish_reason: str = "stop") -> web.Response:
    message = {"role": "assistant", "content": text}
    return web.json_response(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-4o-mini",
            "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        }
    )


def refusal(status: int, text: str) -> web.Response:
    return web.json_response({"error": {"type": "refused", "code": "refused", "message": text}}, status=status)


@dataclass
class Gateway:
    """Answers with the next of `replies`, the last one again and again, and keeps what it was asked."""

    replies: list[web.Response | Handler] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    url: str = ""

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        self.tokens.append(request.headers["authorization"])
        reply = self.replies[min(len(self.bodies), len(self.replies)) - 1]
        if isinstance(reply, web.Response):
            return web.Response(body=reply.body, status=reply.status, content_type="application/json")
        return await reply(request)

    def prompt(self, call: int = 0) -> str:
        return "\n".join(str(message["content"]) for message in self.bodies[call]["messages"])


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(scratch: Path) -> AsyncIterator[AiderEngine]:
    engine = AiderEngine(python=PYTHON, sandbox=Sandbox(), scratch_dir=scratch)
    yield engine
    await engine.stop()
    assert os.listdir(scratch) == []


@pytest_asyncio.fixture(loop_scope="module")
async def gateway() -> AsyncIterator[Gateway]:
    gateway = Gateway()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", gateway.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    gateway.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield gateway
    await runner.cleanup()


def request(gateway: Gateway, **changes: Any) -> EditRequest:
    given: dict[str, Any] = {
        "instruction": f"{TASK_LINE}\nMake a two.",
        "files": {"src/app.py": b"a = 1\n"},
        "read_only": {},
        "model": "openai/gpt-4o-mini",
        "gateway_url": gateway.url,
        "token": "mbt-task-1",
        "timeout_s": 60.0,
    }
    return EditRequest(**{**given, **changes})


def pid_of(outcome: EditOutcome) -> int:
    return int(outcome.engine.split("pid ")[1].split(",")[0])


TWO = completion("Done.\n\n" + edit_block("src/app.py", "a = 1\n", "a = 2\n"))


async def test_engine__edits_and_creates_the_files_it_was_given(engine: AiderEngine, gateway: Gateway) -> None:
    # given
    gateway.replies = [
        completion(edit_block("src/app.py", "a = 1\n", "a = 2\n") + edit_block("src/new/mod.py", "", "b = 'ö'\n"))
    ]
    files = {"src/app.py": b"a = 1\n", "src/new/mod.py": None, "src/new/__init__.py": None, "src/unused.py": None}
    # when
    outcome = await engine.edit(request(gateway, files=files, read_only={"docs/api.md": b"# The interface\n"}))
    # then
    assert outcome.error == ""
    assert outcome.files == {
        "src/app.py": b"a = 2\n",
        "src/new/mod.py": "b = 'ö'\n".encode(),
        "src/new/__init__.py": b"",
    }
    assert outcome.engine.startswith("aider 0.86.2 (pid ")
    assert psutil.Process(pid_of(outcome)).is_running()
    assert "Applied edit to src/app.py" in outcome.log


async def test_engine__makes_one_call_however_long_the_reply(engine: AiderEngine, gateway: Gateway) -> None:
    """Aider would summarise a long talk in the background: a second call that nobody asked for, and somebody pays."""
    # given
    long = "".join(f"line_{number} = 'a value that makes the reply long'\n" for number in range(1_500))
    gateway.replies = [completion(edit_block("src/new.py", "", long)), TWO]
    # when
    outcome = await engine.edit(request(gateway, files={"src/new.py": None}))
    await engine.edit(request(gateway))
    # then
    assert outcome.files == {"src/new.py": long.encode()}
    assert len(gateway.bodies) == 2


async def test_engine__asks_the_gateway_as_it_was_told(engine: AiderEngine, gateway: Gateway) -> None:
    gateway.replies = [TWO]
    await engine.edit(
        request(gateway, read_only={"docs/api.md": b"# The interface\n"}, token="mbt-x", output_tokens_max=777)
    )
    (body,) = gateway.bodies
    assert body["model"] == "openai/gpt-4o-mini"
    assert body["max_tokens"] == 777
    assert not body.get("stream")
    assert gateway.tokens == ["Bearer mbt-x"]
    users = [message["content"] for message in body["messages"] if message["role"] == "user"]
    assert any(content.startswith(TASK_LINE) for content in users)
    assert "# The interface" in gateway.prompt()
    assert "src/app.py" in gateway.prompt()


@pytest.mark.parametrize("model", ["anthropic/claude-sonnet-4", "openrouter/meta/llama-3:free", "simulate/architect"])
async def test_engine__passes_every_model_name_on_whole(engine: AiderEngine, gateway: Gateway, model: str) -> None:
    gateway.replies = [TWO]
    outcome = await engine.edit(request(gateway, model=model))
    assert outcome.files == {"src/app.py": b"a = 2\n"}
    assert gateway.bodies[0]["model"] == model


@pytest.mark.parametrize("status", [400, 401, 402, 429, 500])
async def test_engine__tells_the_gateways_refusal_at_once(engine: AiderEngine, gateway: Gateway, status: int) -> None:
    gateway.replies = [refusal(status, "The wallet cannot cover this call. See https://example.com/credits")]
    outcome = await engine.edit(request(gateway, files={"src/app.py": b"a = 1\n", "src/new.py": None}))
    assert len(gateway.bodies) == 1
    assert "The wallet cannot cover this call." in outcome.error
    assert (outcome.cause, outcome.gateway_status) == ("gateway", status)
    assert outcome.files == {}


async def test_engine__tries_again_when_the_gateway_is_away_for_a_moment(engine: AiderEngine, gateway: Gateway) -> None:
    gateway.replies = [refusal(503, "Restarting."), TWO]
    outcome = await engine.edit(request(gateway))
    assert (outcome.files, outcome.error) == ({"src/app.py": b"a = 2\n"}, "")


async def test_engine__gives_up_on_edits_that_never_fit(engine: AiderEngine, gateway: Gateway) -> None:
    gateway.replies = [completion(edit_block("src/app.py", "no such line\n", "a = 2\n"))]
    outcome = await engine.edit(request(gateway))
    assert outcome.files == {}
    assert "could not be applied" in outcome.error
    assert len(gateway.bodies) == 4


async def test_engine__says_when_the_reply_was_cut_off(engine: AiderEngine, gateway: Gateway) -> None:
    gateway.replies = [completion("src/app.py\n```\n<<<<<<< SEARCH\na", "length")]
    outcome = await engine.edit(request(gateway))
    assert "cut off at the output limit" in outcome.error
    assert len(gateway.bodies) == 1


async def test_engine__reports_what_is_not_a_reply_at_all(engine: AiderEngine, gateway: Gateway) -> None:
    gateway.replies = [web.Response(body=b"<html>")]
    outcome = await engine.edit(request(gateway))
    assert outcome.error
    assert outcome.files == {}


async def test_engine__cannot_be_talked_out_of_its_folder(engine: AiderEngine, gateway: Gateway) -> None:
    gateway.replies = [
        completion(
            edit_block("../escaped.py", "", "x = 1\n")
            + edit_block("/work/escaped.py", "", "x = 1\n")
            + edit_block("src/app.py", "a = 1\n", "a = 2\n")
            + "```bash\ntouch /tmp/project/src/ran\n```\n"
        )
    ]
    outcome = await engine.edit(request(gateway, files={"src/app.py": b"a = 1\n"}))
    assert set(outcome.files) <= {"src/app.py"}


async def test_engine__keeps_nothing_of_one_request_for_the_next(engine: AiderEngine, gateway: Gateway) -> None:
    # given
    gateway.replies = [TWO]
    await engine.edit(
        request(gateway, instruction=f"{TASK_LINE}\nfirst-secret", read_only={"notes.md": b"note-secret"}, token="one")
    )
    # when
    outcome = await engine.edit(request(gateway, files={"src/app.py": b"a = 1\n"}, token="two"))
    # then
    assert "secret" not in gateway.prompt(1)
    assert gateway.tokens == ["Bearer one", "Bearer two"]
    assert set(outcome.files) == {"src/app.py"}


async def test_engine__serves_requests_one_after_another(engine: AiderEngine, gateway: Gateway) -> None:
    gateway.replies = [TWO]
    outcomes = await asyncio.gather(*(engine.edit(request(gateway)) for _ in range(3)))
    assert [outcome.files for outcome in outcomes] == [{"src/app.py": b"a = 2\n"}] * 3
    assert len({pid_of(outcome) for outcome in outcomes}) == 1


async def hang(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def test_engine__is_stopped_at_the_time_out_and_replaced(engine: AiderEngine, gateway: Gateway) -> None:
    # given
    gateway.replies = [TWO, hang, TWO]
    first = await engine.edit(request(gateway))
    # when
    stopped = await engine.edit(request(gateway, timeout_s=1.0))
    # then
    assert "had not finished after 1 s" in stopped.error
    assert stopped.files == {}
    assert not psutil.pid_exists(pid_of(first))
    again = await engine.edit(request(gateway))
    assert again.files == {"src/app.py": b"a = 2\n"}
    assert pid_of(again) != pid_of(first)


async def test_engine__survives_a_crash_in_the_middle_of_a_request(engine: AiderEngine, gateway: Gateway) -> None:
    # given a process that is killed while the model thinks
    async def kill(request: web.Request) -> web.StreamResponse:
        os.kill(pid, signal.SIGKILL)
        return await hang(request)

    gateway.replies = [TWO, kill, TWO]
    pid = pid_of(await engine.edit(request(gateway)))
    # when
    crashed = await engine.edit(request(gateway))
    # then
    assert "ended (status 137)" in crashed.error
    assert crashed.files == {}
    assert (await engine.edit(request(gateway))).files == {"src/app.py": b"a = 2\n"}


async def test_engine__ends_its_work_when_cancelled(engine: AiderEngine, gateway: Gateway) -> None:
    # given a request whose model call is under way
    asked = asyncio.Event()

    async def ask(request: web.Request) -> web.StreamResponse:
        asked.set()
        return await hang(request)

    gateway.replies = [TWO, ask]
    pid = pid_of(await engine.edit(request(gateway)))
    task = asyncio.create_task(engine.edit(request(gateway)))
    await asked.wait()
    # when
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # then
    assert not psutil.pid_exists(pid)


async def test_engine__leaves_nothing_behind_when_stopped(tmp_path: Path, gateway: Gateway) -> None:
    # given
    engine = AiderEngine(python=PYTHON, sandbox=Sandbox(), scratch_dir=tmp_path / "s")
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    await engine.start()
    started = {process.pid for process in psutil.Process().children(recursive=True)} - before
    assert len(started) >= 2
    # when
    await engine.stop()
    # then
    assert not [pid for pid in started if psutil.pid_exists(pid)]
    assert os.listdir(tmp_path / "s") == []
    await engine.stop()


async def test_engine__without_its_environment_says_where_it_should_be(tmp_path: Path, gateway: Gateway) -> None:
    python = tmp_path / "aider-venv" / "bin" / "python"
    engine = AiderEngine(python=python, sandbox=Sandbox(), scratch_dir=tmp_path / "s")
    with pytest.raises(EngineUnavailableError) as caught:
        await engine.edit(request(gateway))
    assert str(python) in caught.value.message
    assert "make setup" in caught.value.next_step


async def test_engine__with_a_broken_environment_tells_its_last_words(tmp_path: Path, gateway: Gateway) -> None:
    # given a Python without Aider
    python = tmp_path / "aider-venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho 'No module named aider' >&2\nexit 3\n")
    python.chmod(0o755)
    engine = AiderEngine(python=python, sandbox=Sandbox(), scratch_dir=tmp_path / "s")
    # when
    with pytest.raises(EngineUnavailableError, match="No module named aider"):
        await engine.start()
    # then
    await engine.stop()


async def test_implementer__turns_an_instruction_into_a_checked_patch(
    engine: AiderEngine, gateway: Gateway, tmp_path: Path
) -> None:
    # given
    gateway.replies = [
        completion(
            edit_block("src/app.py", "a = 1\n", "a = 2\n")
            + edit_block("tests/test_app.py", "", "import app\nassert app.a == 2\n")
            + edit_block("README.md", "", "mine\n")
        )
    ]
    repository = ProjectRepository.init(tmp_path / "project", Author(name="Ann", email="ann@example.com"))
    repository.write_and_commit(
        {"src/app.py": "a = 1\n", "README.md": "ours\n"}, "Start", Author(name="Ann", email="ann@example.com")
    )
    implementer = Implementer(sandbox=Sandbox(), engine=engine, scratch_dir=tmp_path / "s")
    # when
    result = await implementer.edit(
        EditWork(
            bundle=repository.bundle(),
            instruction=f"{TASK_LINE}\nMake a two.",
            files=["src/app.py", "tests/test_app.py"],
            read_only=[],
            model="openai/gpt-4o-mini",
            gateway_url=gateway.url,
            token="mbt-task-1",
            checks=["PYTHONPATH=src python tests/test_app.py"],
        )
    )
    # then
    assert result.checks.passed, result.checks.text()
    assert list(result.changed) == ["src/app.py", "tests/test_app.py"]
    assert "discarded, because not among the task's files: README.md" in result.engine_log
    repository.apply_patch(result.patch)
    assert repository.read("src/app.py") == b"a = 2\n"
    assert repository.read("README.md") == b"ours\n"
    assert [path.name for path in (tmp_path / "s").glob("*/*")] == []
