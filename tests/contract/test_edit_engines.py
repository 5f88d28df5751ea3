"""What every edit engine does, against a small stand-in for the gateway and, for a scenario's edits, the simulator.

Aider needs bubblewrap and its own environment: AIDER_VENV, or `.venv-aider` in the project's folder.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web

from cluster.simulator.server import Simulator
from runtime.implementer.aider_engine import AiderEngine
from runtime.implementer.blocks_engine import BlocksEngine
from runtime.implementer.engine import EditEngine
from runtime.implementer.implementer import Implementer
from runtime.implementer.sandbox import Sandbox
from runtime.implementer.work import EditWork
from runtime.project.repository import Author, ProjectRepository
from tests.contract.edit_gateway import TASK_LINE, TWO, EditGateway, completion, edit_block, refusal, serving
from tests.contract.scenario_edits import write_code

AIDER_VENV = Path(os.environ.get("AIDER_VENV") or Path(__file__).parents[2] / ".venv-aider").absolute()
PYTHON = AIDER_VENV / "bin" / "python"

needs_bwrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
needs_aider = pytest.mark.skipif(not PYTHON.exists(), reason=f"no Aider environment in {AIDER_VENV}; set AIDER_VENV")
pytestmark = pytest.mark.asyncio(loop_scope="module")

ANN = Author(name="Ann", email="ann@example.com")
CALLS_MAX = 4


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def aider(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AiderEngine]:
    engine = AiderEngine(python=PYTHON, sandbox=Sandbox(), scratch_dir=tmp_path_factory.mktemp("scratch"))
    yield engine
    await engine.stop()


@pytest.fixture(params=[pytest.param("aider", marks=[needs_bwrap, needs_aider]), "blocks"], scope="module")
def engine(request: pytest.FixtureRequest) -> EditEngine:
    made: EditEngine = request.getfixturevalue("aider") if request.param == "aider" else BlocksEngine()
    return made


@pytest_asyncio.fixture(loop_scope="module")
async def gateway() -> AsyncIterator[EditGateway]:
    async with serving() as gateway:
        yield gateway


async def test_engine__creates_and_changes_several_files(engine: EditEngine, gateway: EditGateway) -> None:
    # given two changes of one file, a new file, and files that nobody speaks of
    gateway.replies = [
        completion(
            "I do it.\n\n"
            + edit_block("src/app.py", "a = 1\n", "a = 2\n")
            + edit_block("src/new/mod.py", "", "b = 'ö'\n")
            + edit_block(".gitignore", "", "*.db\n")
            + edit_block("src/app.py", "c = 3\nd = 4\n", "c = 34\n")
        )
    ]
    files = {
        "src/app.py": b"a = 1\nb = 2\nc = 3\nd = 4\n",
        "src/new/mod.py": None,
        "src/unused.py": None,
        ".gitignore": b"k\n",
    }
    # when
    outcome = await engine.edit(gateway.request(files=files))
    # then
    assert outcome.error == ""
    assert outcome.files == {
        "src/app.py": b"a = 2\nb = 2\nc = 34\n",
        "src/new/mod.py": "b = 'ö'\n".encode(),
        ".gitignore": b"k\n*.db\n",
    }
    assert len(gateway.bodies) == 1


async def test_engine__removes_and_renames_files(engine: EditEngine, gateway: EditGateway) -> None:
    gateway.replies = [
        completion(
            "A better name.\n\n<<<<<<< RENAME src/old.py => src/sub/new.py\n<<<<<<< DELETE src/dead.py\n\n"
            + edit_block("src/sub/new.py", "a = 1\n", "a = 2\n")
        )
    ]
    files = {"src/old.py": b"a = 1\nb = 2\n", "src/sub/new.py": None, "src/dead.py": b"dead\n", "src/app.py": b"x\n"}
    outcome = await engine.edit(gateway.request(files=files))
    assert outcome.error == ""
    assert outcome.files == {"src/old.py": None, "src/dead.py": None, "src/sub/new.py": b"a = 2\nb = 2\n"}


async def test_engine__only_removes_what_the_task_may_change(engine: EditEngine, gateway: EditGateway) -> None:
    # given
    gateway.replies = [
        completion(
            "<<<<<<< DELETE tests/test_app.py\n<<<<<<< DELETE ../secret\n<<<<<<< RENAME src/app.py => tests/x.py\n"
            "<<<<<<< RENAME src/app.py => src/other.py\n"
        )
    ]
    files = {"src/app.py": b"a = 1\n", "src/other.py": b"b = 2\n"}
    # when
    outcome = await engine.edit(gateway.request(files=files, read_only={"tests/test_app.py": b"assert True\n"}))
    # then
    assert outcome.files == {}
    assert "tests/test_app.py" in outcome.log
    assert "there is a file src/other.py" in outcome.log


async def test_engine__has_no_moves_inside_of_a_block(engine: EditEngine, gateway: EditGateway) -> None:
    gateway.replies = [completion(edit_block("src/app.py", "a = 1\n", "a = '''\n<<<<<<< DELETE src/app.py\n'''\n"))]
    outcome = await engine.edit(gateway.request())
    assert outcome.files == {"src/app.py": b"a = '''\n<<<<<<< DELETE src/app.py\n'''\n"}


async def test_engine__makes_a_small_change_in_a_large_file(engine: EditEngine, gateway: EditGateway) -> None:
    large = "".join(f"line_{number} = 'some text of it'\n" for number in range(35_000))
    assert len(large) > 1_000_000
    gateway.replies = [
        completion(edit_block("src/app.py", "line_15000 = 'some text of it'\n", "line_15000 = 'another'\n"))
    ]
    outcome = await engine.edit(gateway.request(files={"src/app.py": large.encode()}))
    assert outcome.error == ""
    changed = large.replace("line_15000 = 'some text of it'", "line_15000 = 'another'")
    assert outcome.files == {"src/app.py": changed.encode()}


async def test_engine__makes_one_call_however_long_the_reply(engine: EditEngine, gateway: EditGateway) -> None:
    # given two requests, so that what goes on behind the first one's back would be seen
    long = "".join(f"line_{number} = 'a value that makes the reply long'\n" for number in range(1_500))
    gateway.replies = [completion(edit_block("src/new.py", "", long)), TWO]
    # when
    outcome = await engine.edit(gateway.request(files={"src/new.py": None}))
    await engine.edit(gateway.request())
    # then
    assert outcome.files == {"src/new.py": long.encode()}
    assert len(gateway.bodies) == 2


@pytest.mark.parametrize("text", ["There is nothing to do.", "", edit_block("src/app.py", "a = 1\n", "a = 1\n")])
async def test_engine__that_has_nothing_to_change_says_no_error(
    engine: EditEngine, gateway: EditGateway, text: str
) -> None:
    gateway.replies = [completion(text or " ")]
    outcome = await engine.edit(gateway.request())
    assert (outcome.files, outcome.error) == ({}, "")
    assert len(gateway.bodies) == 1


async def test_engine__asks_the_gateway_as_it_was_told(engine: EditEngine, gateway: EditGateway) -> None:
    gateway.replies = [TWO]
    await engine.edit(
        gateway.request(read_only={"docs/api.md": b"# The interface\n"}, token="mbt-x", output_tokens_max=777)
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
    assert "<<<<<<< DELETE" in gateway.prompt()


@pytest.mark.parametrize("model", ["anthropic/claude-sonnet-4", "openrouter/meta/llama-3:free"])
async def test_engine__passes_every_model_name_on_whole(engine: EditEngine, gateway: EditGateway, model: str) -> None:
    gateway.replies = [TWO]
    outcome = await engine.edit(gateway.request(model=model))
    assert outcome.files == {"src/app.py": b"a = 2\n"}
    assert gateway.bodies[0]["model"] == model


@pytest.mark.parametrize("status", [400, 402, 403, 429, 500])
async def test_engine__tells_the_gateways_refusal_at_once(
    engine: EditEngine, gateway: EditGateway, status: int
) -> None:
    gateway.replies = [refusal(status, "The wallet cannot cover this call. See https://example.com/credits")]
    outcome = await engine.edit(gateway.request(files={"src/app.py": b"a = 1\n", "src/new.py": None}))
    assert len(gateway.bodies) == 1
    assert "The wallet cannot cover this call." in outcome.error
    assert (outcome.cause, outcome.gateway_status) == ("gateway", status)
    assert outcome.files == {}


async def test_engine__tries_again_when_the_gateway_is_away_for_a_moment(
    engine: EditEngine, gateway: EditGateway
) -> None:
    gateway.replies = [refusal(503, "Restarting."), TWO]
    outcome = await engine.edit(gateway.request())
    assert (outcome.files, outcome.error) == ({"src/app.py": b"a = 2\n"}, "")


async def test_engine__shows_the_model_what_did_not_fit(engine: EditEngine, gateway: EditGateway) -> None:
    gateway.replies = [
        completion(edit_block("src/new.py", "", "n = 0\n") + edit_block("src/app.py", "no such line\n", "a = 2\n")),
        TWO,
    ]
    outcome = await engine.edit(gateway.request(files={"src/app.py": b"a = 1\n", "src/new.py": None}))
    assert outcome.error == ""
    assert outcome.files == {"src/app.py": b"a = 2\n", "src/new.py": b"n = 0\n"}
    last = gateway.bodies[1]["messages"][-1]
    assert last["role"] == "user"
    assert "src/app.py" in last["content"]
    assert "no such line" in last["content"]


@pytest.mark.parametrize(
    "reply",
    [
        edit_block("src/app.py", "no such line\n", "a = 2\n"),
        "src/app.py\n```python\n<<<<<<< SEARCH\na = 1\n>>>>>>> REPLACE\n```\n",
        "src/app.py\n```python\n<<<<<<< SEARCH\na = 1\n=======\na = 2\n",
        "```python\n<<<<<<< SEARCH\na = 1\n```\n",
    ],
    ids=["no such lines", "no divider", "no end", "no path"],
)
async def test_engine__gives_up_on_edits_that_never_fit(engine: EditEngine, gateway: EditGateway, reply: str) -> None:
    gateway.replies = [completion(reply)]
    outcome = await engine.edit(gateway.request())
    assert outcome.files == {}
    assert "could not be applied" in outcome.error
    assert outcome.cause == "edits"
    assert 1 < len(gateway.bodies) <= CALLS_MAX


@pytest.mark.parametrize(
    "second", [None, refusal(402, "The wallet cannot cover this call."), completion("x", "length")]
)
async def test_engine__that_did_not_finish_has_changed_nothing(
    engine: EditEngine, gateway: EditGateway, second: web.Response | None
) -> None:
    # given a reply of which a half fits, and a second one that never does, is refused, or is cut off
    half = completion(
        "<<<<<<< DELETE src/dead.py\n\n"
        + edit_block("src/new.py", "", "n = 0\n")
        + edit_block("src/app.py", "no such line\n", "a = 2\n")
    )
    gateway.replies = [half] if second is None else [half, second]
    # when
    outcome = await engine.edit(
        gateway.request(files={"src/app.py": b"a = 1\n", "src/new.py": None, "src/dead.py": b"x\n"})
    )
    # then
    assert outcome.error
    assert outcome.files == {}
    # and nothing of it is there for the next one
    gateway.replies = [TWO]
    gateway.bodies.clear()
    assert (await engine.edit(gateway.request())).files == {"src/app.py": b"a = 2\n"}


@pytest.mark.parametrize("text", ["src/app.py\n```\n<<<<<<< SEARCH\na", edit_block("src/app.py", "a = 1\n", "a = 2\n")])
async def test_engine__applies_nothing_of_a_reply_that_was_cut_off(
    engine: EditEngine, gateway: EditGateway, text: str
) -> None:
    gateway.replies = [completion(text, "length")]
    outcome = await engine.edit(gateway.request())
    assert outcome.files == {}
    assert "cut off at the output limit" in outcome.error
    assert outcome.cause == "edits"
    assert len(gateway.bodies) == 1


async def broken_off(request: web.Request) -> web.StreamResponse:
    """Half of an answer; then the line is dead."""
    response = web.StreamResponse(headers={"content-type": "application/json", "content-length": "100000"})
    await response.prepare(request)
    assert TWO.body is not None
    await response.write(bytes(TWO.body)[:200])  # type: ignore[arg-type]
    assert request.transport is not None
    request.transport.abort()
    return response


@pytest.mark.parametrize("reply", [broken_off, web.Response(body=b"<html>")])
async def test_engine__tells_the_gateway_that_sends_no_whole_answer(
    engine: EditEngine, gateway: EditGateway, reply: web.Response
) -> None:
    gateway.replies = [reply]
    outcome = await engine.edit(gateway.request())
    assert outcome.files == {}
    assert outcome.error
    assert outcome.cause == "gateway"


async def test_engine__cannot_be_talked_out_of_its_files(engine: EditEngine, gateway: EditGateway) -> None:
    tricks = ["../escaped.py", "/work/escaped.py", ".git/hooks/x", "src/../../up.py", "src\\up.py", "src/.GIT/config"]
    new = "".join(edit_block(path, "", "x = 1\n") for path in tricks)
    moves = "".join(f"<<<<<<< RENAME src/app.py => {path}\n<<<<<<< DELETE {path}\n" for path in tricks)
    gateway.replies = [completion(new + moves + "```bash\ntouch /tmp/project/src/ran\n```\n")]
    request = gateway.request(read_only={"src/readme.md": b"text\n"})
    outcome = await engine.edit(request)
    assert not set(outcome.files) & {"src/app.py", "src/readme.md"}
    assert not [made for made in outcome.files if "ran" in made or ".." in made or made.startswith("/")]
    assert not os.path.exists("/work/escaped.py")  # noqa: ASYNC240


async def test_engine__keeps_nothing_of_one_request_for_the_next(engine: EditEngine, gateway: EditGateway) -> None:
    # given
    gateway.replies = [TWO]
    await engine.edit(
        gateway.request(
            instruction=f"{TASK_LINE}\nfirst-secret", read_only={"notes.md": b"note-secret"}, token="one",
            files={"src/app.py": b"a = 1\n# file-secret\n"},
        )
    )  # fmt: skip
    # when
    outcome = await engine.edit(gateway.request(files={"src/app.py": b"a = 1\n"}, token="two"))
    # then
    assert "secret" not in gateway.prompt(1)
    assert gateway.tokens == ["Bearer one", "Bearer two"]
    assert outcome.files == {"src/app.py": b"a = 2\n"}
    assert "secret" not in outcome.log


async def test_engine__serves_all_who_ask_at_once(engine: EditEngine, gateway: EditGateway) -> None:
    gateway.replies = [TWO]
    outcomes = await asyncio.gather(*(engine.edit(gateway.request()) for _ in range(3)))
    assert [outcome.files for outcome in outcomes] == [{"src/app.py": b"a = 2\n"}] * 3


async def test_engine__is_stopped_at_the_time_out(engine: EditEngine, gateway: EditGateway) -> None:
    async def hang(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    gateway.replies = [hang, TWO]
    stopped = await engine.edit(gateway.request(timeout_s=1.0))
    assert "had not finished after 1 s" in stopped.error
    assert (stopped.files, stopped.cause) == ({}, "engine")
    assert (await engine.edit(gateway.request())).files == {"src/app.py": b"a = 2\n"}


async def test_engine__hangs_up_when_cancelled(engine: EditEngine, gateway: EditGateway) -> None:
    # given a request whose model call is under way
    asked, gone = asyncio.Event(), asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        raise AssertionError

    gateway.replies = [hang, TWO]
    task = asyncio.create_task(engine.edit(gateway.request()))
    await asked.wait()
    # when
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # then
    await asyncio.wait_for(gone.wait(), 60)
    assert (await engine.edit(gateway.request())).files == {"src/app.py": b"a = 2\n"}


@needs_bwrap
async def test_implementer__turns_an_instruction_into_a_checked_patch(
    engine: EditEngine, gateway: EditGateway, tmp_path: Path
) -> None:
    # given
    gateway.replies = [
        completion(
            "<<<<<<< RENAME src/app.py => src/main.py\n<<<<<<< DELETE src/dead.py\n\n"
            + edit_block("src/main.py", "a = 1\n", "a = 2\n")
            + edit_block("tests/test_app.py", "", "import main\nassert main.a == 2\n")
            + edit_block("mine.md", "", "mine\n")
        )
    ]
    repository = ProjectRepository.init(tmp_path / "project", ANN)
    repository.write_and_commit({"src/app.py": "a = 1\n", "src/dead.py": "x\n", "README.md": "ours\n"}, "Start", ANN)
    implementer = Implementer(sandbox=Sandbox(), engine=engine, scratch_dir=tmp_path / "s")
    # when
    result = await implementer.edit(
        EditWork(
            tree=repository.contents(),
            instruction=f"{TASK_LINE}\nMake a two.",
            files=["src/app.py", "src/main.py", "src/dead.py", "tests/test_app.py"],
            read_only=[],
            model="openai/gpt-4o-mini",
            gateway_url=gateway.url,
            token="mbt-task-1",
            checks=["PYTHONPATH=src python tests/test_app.py", "test ! -e src/app.py"],
        )
    )
    # then
    assert result.checks.passed, result.checks.text()
    assert list(result.changed) == ["src/app.py", "src/dead.py", "src/main.py", "tests/test_app.py"]
    assert "discarded, because not among the task's files: mine.md" in result.engine_log
    repository.apply_patch(result.patch)
    assert repository.files() == ["README.md", "src/main.py", "tests/test_app.py"]
    assert repository.read("src/main.py") == b"a = 2\n"
    assert [path.name for path in (tmp_path / "s").glob("*/*")] == []


@needs_bwrap
@needs_aider
async def test_scenario__comes_out_the_same_with_both_engines(aider: AiderEngine, tmp_path: Path) -> None:
    async with Simulator(usage_file=tmp_path / "usage.jsonl") as simulator:
        with_aider = await write_code(aider, simulator.base_url)
        with_blocks = await write_code(BlocksEngine(), simulator.base_url)
    assert with_blocks == with_aider
    assert len(with_blocks) > 20
