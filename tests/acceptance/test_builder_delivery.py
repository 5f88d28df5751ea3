"""Lines 38-48 of spec/builder.md §18: the final pass, and what is delivered.

One real build in this process serves most of them; what no delivery may do is tried in the same sandbox.
"""

import asyncio
import hashlib
import http.server
import io
import json
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from cluster.simulator.server import Simulator
from runtime.entity.journal import EventRecord
from runtime.ids import LOCAL_ADMIN, EntityId, project_entity
from runtime.implementer.implementer import Implementer
from runtime.implementer.sandbox import Sandbox
from runtime.implementer.work import CheckReport, CheckWork, Limits
from runtime.ledger.money import credits_text
from runtime.ledger.port import Movement
from runtime.project.delivery import Delivery, delivery_text, goes_by_link
from runtime.project.documents import missing_sections
from runtime.project.links import make_link
from runtime.project.messages import Describe, PackageView, ProjectView, Status
from runtime.project.state import State
from serve_apps.api_routes import create_app
from tests.e2e.world import World
from tests.no_engine import NoEngine

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")

KEY = b"k" * 32
DOCUMENTS = ("requirements", "architecture", "api_documentation", "deployment_guide")


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    events: Sequence[EventRecord]
    view: ProjectView
    archive: bytes
    movements: Sequence[Movement]
    balance_ucredits: int
    large: Sequence[tuple[int, int, str]]
    """(status, size, SHA-256) of a package above 50 MB by its link: in time, too late, and tampered with."""

    @property
    def package(self) -> PackageView:
        assert self.view.package is not None
        return self.view.package

    def files(self) -> dict[str, bytes]:
        with zipfile.ZipFile(io.BytesIO(self.archive)) as archive:
            return {name.removeprefix("generated_project/"): archive.read(name) for name in archive.namelist()}

    def event(self, type: str) -> Mapping[str, Any]:
        return next(event.data for event in self.events if event.type == type)

    def message(self) -> str:
        return delivery_text(
            Delivery(
                title=self.view.title,
                file_count=self.package.file_count,
                size_bytes=self.package.size_bytes,
                sha256=self.package.sha256,
                cost_credits=credits_text(self.view.spent_ucredits),
                balance_credits=credits_text(self.balance_ucredits),
                how_to_fetch="masterbuilder package last",
                how_to_rate="masterbuilder feedback last SCORE",
            )
        )


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Delivered:
    return asyncio.run(_build(tmp_path_factory.mktemp("delivery")))


async def _build(folder: Path) -> Delivered:
    usage_file = folder / "usage.jsonl"
    async with Simulator(usage_file=usage_file) as simulator:
        world = World(folder, simulator, usage_file)
        await world.open()
        try:
            view = await world.order()
            events = await world.until(view.id, "project.finished")
            view = await world.host.ask(project_entity(view.id), Describe())
            assert view.package is not None, view.failure_reason
            return Delivered(
                events=events,
                view=view,
                archive=await world.store.books.get_blob(view.package.blob),
                movements=await world.store.books.statement(LOCAL_ADMIN, None, 1_000),
                balance_ucredits=(await world.store.books.balance(LOCAL_ADMIN)).balance_ucredits,
                large=await _fetch_large(world, view),
            )
        finally:
            await world.close()


async def _fetch_large(world: World, view: ProjectView) -> Sequence[tuple[int, int, str]]:
    """The door's answers for a package that no bot could upload."""
    data = b"PK\x05\x06" + bytes(50 * 10**6)
    assert view.package is not None
    sha256 = hashlib.sha256(data).hexdigest()
    package = replace(view.package, blob=await world.store.books.put_blob(data), sha256=sha256, size_bytes=len(data))
    assert goes_by_link(package.size_bytes)

    class Entities:
        async def ask(self, entity: EntityId, message: Any, *, timeout_s: float = 30.0) -> ProjectView:
            return replace(view, package=package)

    system = SimpleNamespace(
        settings=world.settings, entities=Entities(), ledger=world.store.books, journal=world.store.journal
    )
    app = create_app(system, link_key=KEY)  # type: ignore[arg-type]
    good = make_link(KEY, view.id, sha256, datetime.now(UTC), timedelta(hours=24))
    late = make_link(KEY, view.id, sha256, datetime.now(UTC), timedelta(hours=-1))
    changed = replace(good, expires_s=good.expires_s + 1)
    answers = []
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api") as client:
        for link in (good, late, changed):
            answer = await client.get(link.path)
            answers.append((answer.status_code, len(answer.content), hashlib.sha256(answer.content).hexdigest()))
    return [*answers, (0, len(data), sha256)]


def test_38__the_final_pass_runs_the_tests_in_the_sandbox_and_stores_what_they_said(delivered: Delivered) -> None:
    evidence = delivered.event("qa.proved")["evidence"]
    assert len(evidence) >= 10
    assert all(shown.startswith("Ran ") and shown.endswith(", passed") for shown in evidence.values()), evidence
    finished = delivered.event("qa.finished")
    assert finished["passed"]
    assert finished["tests"] == len(evidence)
    assert finished["kind"] == "command"
    assert finished["secrets_found"] == 0
    assert finished["readme_exempt"] == [
        "git clone <URL> expense-tracker && cd expense-tracker", "docker compose run --rm expenses report",
    ]  # fmt: skip
    report = delivered.files()["docs/quality_report.md"].decode()
    assert "A program: it ended with status 0." in report
    for command in (*finished["commands"], *finished["readme_commands"], *finished["readme_exempt"]):
        assert f"`{command}" in report, command


async def test_39__generated_code_reads_no_variable_of_ours_and_reaches_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-product")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        code = f"""
import glob, os, socket
seen = [open(path, "rb").read() for path in glob.glob("/proc/[0-9]*/environ") if os.access(path, os.R_OK)]
assert "OPENAI_API_KEY" not in os.environ and not any(b"sk-of-the-product" in each for each in seen)
for address in (("127.0.0.1", {listener.server_port}), ("1.1.1.1", 53)):
    try:
        socket.create_connection(address, timeout=2)
    except OSError:
        continue
    raise SystemExit(f"reached {{address}}")
print("alone")
"""
        report = await check(tmp_path, {"test.py": code}, "python3 test.py", Limits())
        listener.shutdown()
    assert report.passed, report.text()
    assert report.results[0].output == "alone\n"


async def test_40__an_endless_loop_in_a_test_is_stopped_and_reported(tmp_path: Path) -> None:
    report = await check(tmp_path, {"test.py": "while True: pass"}, "python3 test.py", Limits(wall_s=1.0))
    assert not report.passed
    assert report.results[0].timed_out
    assert report.results[0].duration_s < 10
    assert "[timed out]" in report.text()


def test_41__the_readme_has_every_required_section(delivered: Delivered) -> None:
    readme = delivered.files()["README.md"].decode()
    assert missing_sections(readme) == []
    assert missing_sections(readme.replace("## Configuration", "## Colours")) == ["configuration"]


def test_42__the_four_documents_are_in_the_archive(delivered: Delivered) -> None:
    files = delivered.files()
    for path in (*(f"docs/{name}.md" for name in DOCUMENTS), "README.md", "TODO.md", ".gitignore"):
        assert files[path].strip(), path
    assert any(path.startswith("tests/") for path in files)


def test_43__no_index_no_history_and_no_secret_values_are_in_the_archive(delivered: Delivered) -> None:
    folders = {part for path in delivered.files() for part in path.split("/")[:-1]}
    names = {path.rpartition("/")[2] for path in delivered.files()}
    assert not {".git", ".code_index", "__pycache__", "node_modules"} & folders
    assert ".env" not in names


def test_44__the_archive_opens_with_standard_tools_and_is_the_one_of_the_message(
    delivered: Delivered, tmp_path: Path
) -> None:
    (tmp_path / "p.zip").write_bytes(delivered.archive)
    tools = [[sys.executable, "-m", "zipfile", "-t", "p.zip"]]
    if shutil.which("unzip"):
        tools.append(["unzip", "-tq", "p.zip"])
    for tool in tools:
        tested = subprocess.run(tool, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert tested.returncode == 0, tested.stderr
    assert f"SHA-256 {hashlib.sha256(delivered.archive).hexdigest()}" in delivered.message()


def test_45__an_archive_above_50_mb_goes_by_a_link_that_expires(delivered: Delivered) -> None:
    assert not goes_by_link(len(delivered.archive))
    in_time, late, changed, (_, size_bytes, sha256) = delivered.large
    assert in_time == (200, size_bytes, sha256)
    assert (late[0], changed[0]) == (410, 403)


def test_46__completed_comes_only_after_the_package_can_be_had(delivered: Delivered) -> None:
    state = State()
    for event in delivered.events:
        if event.type == "project.finished":
            assert state.package is not None
        else:
            assert state.completed_at is None
            assert state.status is not Status.COMPLETED
        state = state.after(event)
    assert state.status is Status.COMPLETED
    assert state.completed_at is not None


def test_47__the_final_cost_is_the_net_of_the_projects_transactions(delivered: Delivered) -> None:
    net = -sum(move.amount_ucredits for move in delivered.movements if move.project == delivered.view.id)
    assert net > 0
    assert delivered.view.spent_ucredits == net
    assert delivered.event("project.finished")["spent_ucredits"] == net
    assert delivered.event("package.ready")["spent_ucredits"] == net
    files = delivered.files()
    assert json.loads(files["docs/receipt.json"])["net_ucredits"] == net
    assert f"{credits_text(net)} credits" in files["docs/receipt.txt"].decode()
    assert files["docs/receipt.csv"].count(b"\ncharged,") == len(json.loads(files["docs/receipt.json"])["charged"])


def test_48__the_message_states_cost_and_balance(delivered: Delivered) -> None:
    cost, balance = credits_text(delivered.view.spent_ucredits), credits_text(delivered.balance_ucredits)
    assert f"It cost {cost} credits; {balance} credits are left." in delivered.message()
    assert delivered.view.spent_ucredits + delivered.balance_ucredits == 100 * 10**6


async def check(folder: Path, files: Mapping[str, str], command: str, limits: Limits) -> CheckReport:
    tree = {path: text.encode() for path, text in files.items()}
    implementer = Implementer(sandbox=Sandbox(), engine=NoEngine(), scratch_dir=folder / "scratch")
    try:
        return await implementer.check(CheckWork(tree=tree, commands=[command], limits=limits))
    finally:
        await implementer.stop()
