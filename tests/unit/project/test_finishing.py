"""The final pass, with a sandbox and an architect that do as they are told."""

import hashlib
import io
import json
import zipfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from runtime.entity.journal import EventRecord
from runtime.errors import RefusedError
from runtime.ids import BlobId, EntityId, ProjectId
from runtime.implementer.work import CheckReport, CheckWork, CommandResult
from runtime.ledger.port import Receipt
from runtime.project.finishing import Finishing
from runtime.project.prompts import Prompt, Subject
from runtime.project.proof import SCREENSHOT
from runtime.project.schemas import Commands, MarkdownReply, StackChoice, StackReply
from runtime.project.state import State
from runtime.project.todo import Todo
from runtime.project.tree import TreeAt
from runtime.project.workbench import Committed

KEY = "sk-" + "a1B2c3D4e5F6g7H8i9J0"
PICTURE = b"\x89PNG\r\n\x1a\n picture"
README = (
    "# Shop\nSells.\n## Prerequisites\nPython.\n## Installation\nNone.\n## Configuration\nNone.\n"
    "## Running\n```sh\npython3 app.py\n```\n## Features\nMany.\n"
)
STACK = StackReply(
    choices=[StackChoice(layer="l", choice="c", reason="r")],
    commands=Commands(install="", build="make", test="test {tests}", run="python3 app.py"),
)
SERVES: Mapping[str, Any] = {
    "kind": "server", "findings": [], "address": "127.0.0.1:8000", "http_status": 200, "title": "Shop",
}  # fmt: skip


class Desk:
    """Everything around the final pass. Tests change `files`, `started`, `typed` and `readmes` before they run it."""

    def __init__(self) -> None:
        self.state = State(id=ProjectId("p1"), commit="c0", stack=STACK, todo=Todo(phases=(), items=()))
        self.records: list[EventRecord] = []
        self.files: dict[str, bytes] = dict.fromkeys(
            (
                "docs/requirements.md",
                "docs/architecture.md",
                "docs/api_documentation.md",
                "TODO.md",
                ".gitignore",
                "tests/test_a.py",
                "app.py",
            ),
            b"x",
        )
        self.started: Mapping[str, Any] = SERVES
        self.artifacts: dict[str, bytes] = {}
        self.typed: Callable[[str], bool] = lambda command: True
        """Whether a command of the README works."""
        self.readmes: list[str] = [README]
        self.asked: list[Prompt] = []
        self.blobs: dict[str, bytes] = {}

    def finishing(self) -> Finishing:
        shop = SimpleNamespace(ledger=self, implementers=self)
        building = SimpleNamespace(todo=Todo(phases=("one",), items=()))
        finder = SimpleNamespace(evidence=self.evidence)
        return Finishing(self, self, building, self, finder, shop)  # type: ignore[arg-type]

    def event(self, type: str) -> Mapping[str, Any]:
        return next(record.data for record in self.records if record.type == type)

    # The activation.

    async def emit(self, type: str, key: str, data: Mapping[str, Any]) -> None:
        record = EventRecord(
            entity=EntityId("project:p1"), seq=len(self.records) + 1, epoch=1, type=type, version=1, key=key,
            at=datetime(2026, 11, 28, tzinfo=UTC), data=dict(data),
        )  # fmt: skip
        self.records.append(record)
        self.state = self.state.after(record)

    # The architect and the index.

    def subject(self) -> Subject:
        return Subject(brief="a shop", answers={}, title="Shop", stack=STACK)

    async def ask(self, step: str, prompt: Prompt, shape: type[MarkdownReply], *, attempt: int = 1) -> MarkdownReply:
        self.asked.append(prompt)
        text = self.readmes[min(attempt, len(self.readmes)) - 1] if prompt.task == "docs.readme" else "text"
        return shape(markdown=text)

    async def evidence(self, queries: Sequence[str]) -> str:
        return ""

    # The workbench, the ledger's blobs and receipt, the sandbox.

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[SimpleNamespace]:
        yield SimpleNamespace(contents=lambda: dict(self.files))

    async def tree(self) -> TreeAt:
        return TreeAt(f"c{len(self.records)}", dict(self.files))

    async def commit_files(self, files: Mapping[str, str | bytes], message: str) -> Committed:
        self.files |= {path: data.encode() if isinstance(data, str) else data for path, data in files.items()}
        return Committed(commit=f"c{len(self.records)}", bundle=BlobId("b"))

    async def put_blob(self, data: bytes) -> BlobId:
        name = hashlib.sha256(data).hexdigest()
        self.blobs[name] = data
        return BlobId(name)

    async def get_blob(self, blob: BlobId) -> bytes:
        return self.blobs[blob]

    async def receipt(self, project: ProjectId) -> Receipt:
        return Receipt(
            project=project, charged=[], losses=[], pending=[],
            total_cost_pusd=0, total_ucredits=7_000_000, refunded_ucredits=2_000_000,
        )  # fmt: skip

    async def check(self, work: CheckWork) -> CheckReport:
        order = next(json.loads(content) for path, content in work.tools.items() if path.endswith("order.json"))
        if order["do"] == "start":
            told: Any = self.started
        else:
            told = [
                {"command": command, "exit_status": 0 if works else 1, "serves": False, "timed_out": False,
                 "passed": works, "duration_s": 0.1, "output": "told"}
                for command in order["commands"] for works in [self.typed(command)]
            ]  # fmt: skip
        before = [
            CommandResult(command=command, exit_status=0, duration_s=0.1, output="Ran 3 tests in 0.1s")
            for command in work.commands[:-1]
        ]
        last = CommandResult(command=work.commands[-1], exit_status=0, duration_s=1.0, output=json.dumps(told))
        return CheckReport(results=[*before, last], artifacts=self.artifacts)


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def finished(desk: Desk) -> None:
    finishing = desk.finishing()
    report = await finishing.prove()
    assert report.passed, report.text()
    await finishing.write_documents()
    await finishing.package()


async def test_final_pass__tells_its_figures_and_delivers_its_evidence(desk: Desk) -> None:
    desk.artifacts[SCREENSHOT] = PICTURE
    desk.files["requirements.txt"] = b"flask==3.0\n"
    await finished(desk)
    told = desk.event("qa.finished")
    assert (told["kind"], told["http_status"], told["page_title"]) == ("server", 200, "Shop")
    assert (told["screenshots"], told["dependencies"], told["licences_to_look_at"]) == ([SCREENSHOT], 1, 1)
    assert told["readme_commands"] == ["python3 app.py"]
    assert "1 screenshot" in told["summary"]
    ready = desk.event("package.ready")
    assert ready["spent_ucredits"] == 5_000_000
    with zipfile.ZipFile(io.BytesIO(desk.blobs[ready["blob"]])) as archive:
        packed = {name.removeprefix("generated_project/"): archive.read(name) for name in archive.namelist()}
    assert packed[SCREENSHOT] == PICTURE
    assert b"flask" in packed["docs/dependencies.md"]
    assert json.loads(packed["docs/receipt.json"])["net_ucredits"] == 5_000_000
    assert {"docs/receipt.txt", "docs/receipt.csv", "docs/traceability.md"} <= set(packed)
    report = packed["docs/quality_report.md"].decode()
    assert "![What the browser showed](screenshots/home.png)" in report
    assert "listens on 127.0.0.1:8000 and answers GET / with 200, titled 'Shop'" in report


async def test_picture_that_cannot_be_taken__is_said_in_the_report(desk: Desk) -> None:
    desk.started = {**SERVES, "no_picture": "there is no Chromium here"}
    await finished(desk)
    assert desk.event("qa.finished")["no_picture"] == "there is no Chromium here"
    assert "No picture was taken: there is no Chromium here." in desk.files["docs/quality_report.md"].decode()


@pytest.mark.parametrize(
    ("started", "words"),
    [
        ({**SERVES, "findings": ["the page is blank"]}, "the page is blank"),
        ({"kind": "boat"}, "boat"),
        ("nothing", "nothing"),
    ],
)
async def test_start_that_is_wrong_or_unreadable__is_red_and_proves_nothing(
    desk: Desk, started: Any, words: str
) -> None:
    desk.started = started
    report = await desk.finishing().prove()
    assert not report.passed
    assert words in report.text()
    assert desk.records == []


async def test_secret_in_the_tree__fails_the_proof_with_file_and_line(desk: Desk) -> None:
    desk.files["src/pay.py"] = f"\n\nkey = '{KEY}'\n".encode()
    report = await desk.finishing().prove()
    assert not report.passed
    assert "src/pay.py:3 looks like a model provider's key" in report.text()
    assert KEY not in report.text()


async def test_readme__without_sections_is_sent_back_with_what_is_missing(desk: Desk) -> None:
    desk.readmes = [README.replace("## Configuration\nNone.\n", ""), README]
    await finished(desk)
    readmes = [prompt.user for prompt in desk.asked if prompt.task == "docs.readme"]
    assert len(readmes) == 2
    assert "no section for: configuration" in readmes[1]


@pytest.mark.parametrize(
    ("readme", "words"),
    [
        (README.replace("Many.", ""), "no section for: features and usage"),
        (README.replace("Sells.", KEY), "README.md:2 looks like a model provider's key"),
        (README.replace("```sh", "```text"), "no command in a ```sh block"),
        (README.replace("python3 app.py", "git clone x && cd x"), "no command in a ```sh block"),
        (README.replace("python3 app.py", "true\n" * 61), "61 commands"),
        (README.replace("python3 app.py", "broken"), "$ broken\ntold\n[exit 1]"),
    ],
)
async def test_readme__that_stays_wrong_fails_with_the_reason(desk: Desk, readme: str, words: str) -> None:
    desk.readmes, desk.typed = [readme], lambda command: command != "broken"
    finishing = desk.finishing()
    await finishing.prove()
    with pytest.raises(RefusedError) as error:
        await finishing.write_documents()
    assert words in str(error.value)
    assert len([prompt for prompt in desk.asked if prompt.task == "docs.readme"]) == 3


@pytest.mark.parametrize("path", ["docs/architecture.md", "TODO.md", ".gitignore", "docs/deployment_guide.md"])
async def test_package__without_a_document_is_refused_by_its_name(desk: Desk, path: str) -> None:
    finishing = desk.finishing()
    await finishing.prove()
    await finishing.write_documents()
    desk.files[path] = b""
    with pytest.raises(RefusedError, match=path):
        await finishing.package()
    assert not [record for record in desk.records if record.type == "package.ready"]


async def test_proof_of_before__is_read_without_what_it_did_not_know(desk: Desk) -> None:
    await desk.emit("qa.proved", "old", {"evidence": {"tests/test_a.py": "Ran 3 tests, passed"}})
    await desk.finishing().write_documents()
    assert desk.event("qa.finished")["tests"] == 1


async def test_known_gaps__are_listed_in_the_report_and_in_the_event(desk: Desk) -> None:
    skipped = {"T-008": "skipped by the owner"}
    desk.state = replace(desk.state, gaps={"T-007": "its test stays red"}, skipped=skipped)
    await finished(desk)
    assert desk.event("qa.finished")["known_gaps"] == ["T-007", "T-008"]
    report = desk.files["docs/quality_report.md"].decode()
    assert "- T-007: its test stays red\n- T-008: skipped by the owner\n" in report


async def test_files_like_env__are_left_out_with_a_notice(desk: Desk) -> None:
    desk.files[".env"] = b"TOKEN=1"
    await finished(desk)
    assert desk.event("project.notice")["text"] == "Left out of the package: .env"
