"""What Aider's engine does beside `test_edit_engines.py`: its process, its environment, and Aider's own ways.

Needs bubblewrap, and Aider's own environment: AIDER_VENV, or `.venv-aider` in the project's folder.
"""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from aiohttp import web

from runtime.errors import EngineUnavailableError
from runtime.implementer.aider_engine import AiderEngine
from runtime.implementer.engine import EditOutcome
from runtime.implementer.sandbox import Sandbox
from tests.contract.edit_gateway import TWO, EditGateway, completion, edit_block, serving

AIDER_VENV = Path(os.environ.get("AIDER_VENV") or Path(__file__).parents[2] / ".venv-aider").absolute()
PYTHON = AIDER_VENV / "bin" / "python"

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
    pytest.mark.skipif(not PYTHON.exists(), reason=f"no Aider environment in {AIDER_VENV}; set AIDER_VENV"),
]


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
async def gateway() -> AsyncIterator[EditGateway]:
    async with serving() as gateway:
        yield gateway


def pid_of(outcome: EditOutcome) -> int:
    return int(outcome.engine.split("pid ")[1].split(",")[0])


async def test_engine__makes_the_empty_files_that_a_task_wants(engine: AiderEngine, gateway: EditGateway) -> None:
    # given
    gateway.replies = [
        completion(edit_block("src/app.py", "a = 1\n", "a = 2\n") + edit_block("src/new/mod.py", "", "b = 'ö'\n"))
    ]
    files = {"src/app.py": b"a = 1\n", "src/new/mod.py": None, "src/new/__init__.py": None, "src/unused.py": None}
    # when
    outcome = await engine.edit(gateway.request(files=files, read_only={"docs/api.md": b"# The interface\n"}))
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


async def test_engine__serves_requests_one_after_another(engine: AiderEngine, gateway: EditGateway) -> None:
    gateway.replies = [TWO]
    outcomes = await asyncio.gather(*(engine.edit(gateway.request()) for _ in range(3)))
    assert [outcome.files for outcome in outcomes] == [{"src/app.py": b"a = 2\n"}] * 3
    assert len({pid_of(outcome) for outcome in outcomes}) == 1


async def hang(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def test_engine__is_stopped_at_the_time_out_and_replaced(engine: AiderEngine, gateway: EditGateway) -> None:
    # given
    gateway.replies = [TWO, hang, TWO]
    first = await engine.edit(gateway.request())
    # when
    stopped = await engine.edit(gateway.request(timeout_s=1.0))
    # then
    assert "had not finished after 1 s" in stopped.error
    assert stopped.files == {}
    assert not psutil.pid_exists(pid_of(first))
    again = await engine.edit(gateway.request())
    assert again.files == {"src/app.py": b"a = 2\n"}
    assert pid_of(again) != pid_of(first)


async def test_engine__survives_a_crash_in_the_middle_of_a_request(engine: AiderEngine, gateway: EditGateway) -> None:
    # given a process that is killed while the model thinks
    async def kill(request: web.Request) -> web.StreamResponse:
        os.kill(pid, signal.SIGKILL)
        return await hang(request)

    gateway.replies = [TWO, kill, TWO]
    pid = pid_of(await engine.edit(gateway.request()))
    # when
    crashed = await engine.edit(gateway.request())
    # then
    assert "ended (status 137)" in crashed.error
    assert crashed.files == {}
    assert (await engine.edit(gateway.request())).files == {"src/app.py": b"a = 2\n"}


async def test_engine__ends_its_work_when_cancelled(engine: AiderEngine, gateway: EditGateway) -> None:
    # given a request whose model call is under way
    asked = asyncio.Event()

    async def ask(request: web.Request) -> web.StreamResponse:
        asked.set()
        return await hang(request)

    gateway.replies = [TWO, ask]
    pid = pid_of(await engine.edit(gateway.request()))
    task = asyncio.create_task(engine.edit(gateway.request()))
    await asked.wait()
    # when
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # then
    assert not psutil.pid_exists(pid)


async def test_engine__leaves_nothing_behind_when_stopped(tmp_path: Path, gateway: EditGateway) -> None:
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


async def test_engine__without_its_environment_says_where_it_should_be(tmp_path: Path, gateway: EditGateway) -> None:
    python = tmp_path / "aider-venv" / "bin" / "python"
    engine = AiderEngine(python=python, sandbox=Sandbox(), scratch_dir=tmp_path / "s")
    with pytest.raises(EngineUnavailableError) as caught:
        await engine.edit(gateway.request())
    assert str(python) in caught.value.message
    assert "make setup" in caught.value.next_step


async def test_engine__with_a_broken_environment_tells_its_last_words(tmp_path: Path, gateway: EditGateway) -> None:
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
