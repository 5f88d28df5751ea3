"""How a finished product is started and looked at in the sandbox. Needs bubblewrap; pictures need Chromium."""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from runtime.implementer.implementer import Implementer
from runtime.implementer.sandbox import Sandbox
from runtime.implementer.work import CheckReport
from runtime.project.probe.browser import PROGRAMS, find_browser
from runtime.project.proof import Proof, proof_of, readme_report, readme_work, start_work
from tests.no_engine import NoEngine

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
needs_chromium = pytest.mark.skipif(find_browser() is None, reason="Chromium is not installed")

PNG = b"\x89PNG\r\n\x1a\n"
SERVER = """
import http.server, socket, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response({status})
        self.send_header("Content-Type", "{content_type}")
        self.end_headers()
        self.wfile.write(b"{body}")

class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ":" in "{host}" else socket.AF_INET

Server(("{host}", {port}), Handler).serve_forever()
"""


async def start(folder: Path, files: Mapping[str, str], run: str, browsers: Sequence[str] = PROGRAMS) -> Proof:
    implementer = Implementer(sandbox=Sandbox(), engine=NoEngine(), scratch_dir=folder / "scratch")
    tree = {path: text.encode() for path, text in files.items()}
    work = start_work(tree, ["true"], run, starts_s=3.0, answers_s=1.0, browsers=browsers)
    try:
        return proof_of(await implementer.check(work), run)
    finally:
        await implementer.stop()


def server(
    host: str = "127.0.0.1", port: int = 8000, status: int = 200, body: str = "ok", content_type: str = "text/plain"
) -> dict[str, str]:
    return {"app.py": SERVER.format(host=host, port=port, status=status, body=body, content_type=content_type)}


async def test_program__that_ends_well_passes_and_shows_what_it_printed(tmp_path: Path) -> None:
    proof = await start(tmp_path, {"cli.py": "print('usage: cli')"}, "python3 cli.py")
    assert proof.report.passed
    assert proof.started is not None
    assert (proof.started.kind, proof.started.exit_status) == ("command", 0)
    assert "usage: cli" in proof.report.text()


async def test_program__that_ends_badly_is_a_finding(tmp_path: Path) -> None:
    proof = await start(tmp_path, {"cli.py": "raise SystemExit(3)"}, "python3 cli.py")
    assert not proof.report.passed
    assert "it ended with status 3" in proof.report.text()


async def test_program__that_neither_ends_nor_listens_is_a_finding(tmp_path: Path) -> None:
    proof = await start(tmp_path, {}, "sleep 60")
    assert not proof.report.passed
    assert "it still runs after 3 s, and listens on no port" in proof.report.text()


@pytest.mark.parametrize(
    ("host", "address"), [("127.0.0.1", "127.0.0.1:8000"), ("0.0.0.0", "127.0.0.1:8000"), ("::1", "[::1]:8000"),
                          ("::", "[::1]:8000")],
)  # fmt: skip
async def test_server__is_found_wherever_it_listens(tmp_path: Path, host: str, address: str) -> None:
    proof = await start(tmp_path, server(host), "python3 app.py")
    assert proof.started is not None, proof.report.text()
    assert (proof.started.kind, proof.started.address, proof.started.http_status) == ("server", address, 200)
    assert proof.report.passed
    assert proof.screenshot is None


async def test_server__without_a_front_page_is_fine(tmp_path: Path) -> None:
    proof = await start(tmp_path, server(status=404), "python3 app.py")
    assert proof.report.passed, proof.report.text()


async def test_server__that_answers_500_is_a_finding_with_its_words(tmp_path: Path) -> None:
    proof = await start(tmp_path, server(status=500, body="KeyError: HOME"), "python3 app.py")
    assert not proof.report.passed
    assert "GET http://127.0.0.1:8000/ was answered 500: KeyError: HOME" in proof.report.text()


async def test_server__that_hangs_is_a_finding(tmp_path: Path) -> None:
    code = "import socket, time; socket.create_server(('127.0.0.1', 8000)); time.sleep(60)"
    code = code.replace("socket.create_server", "listener = socket.create_server")
    proof = await start(tmp_path, {"app.py": code}, "python3 app.py")
    assert not proof.report.passed
    assert "gives no HTTP answer to GET / within 1 s" in proof.report.text()


async def test_server__that_does_not_come_up_is_a_finding_with_what_it_printed(tmp_path: Path) -> None:
    proof = await start(tmp_path, {"app.py": "import no_such_module"}, "python3 app.py")
    assert not proof.report.passed
    assert "No module named 'no_such_module'" in proof.report.text()


@needs_chromium
async def test_page_of_a_server__is_opened_and_photographed(tmp_path: Path) -> None:
    page = "<!doctype html><title>Shop</title><h1>Welcome</h1>"
    proof = await start(tmp_path, server(body=page, content_type="text/html"), "python3 app.py")
    assert proof.report.passed, proof.report.text()
    assert proof.started is not None
    assert proof.started.title == "Shop"
    assert proof.screenshot is not None
    assert proof.screenshot.startswith(PNG)
    assert len(proof.screenshot) > 2_000


@needs_chromium
async def test_site_without_a_server__is_shown_by_ours(tmp_path: Path) -> None:
    files = {
        "index.html": "<!doctype html><body><script src='app.js'></script></body>",
        "app.js": "document.title = 'Built'; document.body.append('here')",
    }
    proof = await start(tmp_path, files, "true")
    assert proof.report.passed, proof.report.text()
    assert proof.started is not None
    assert (proof.started.kind, proof.started.title) == ("site", "Built")
    assert proof.screenshot is not None


@needs_chromium
async def test_page_with_errors__is_a_finding_each_and_what_is_elsewhere_is_told(tmp_path: Path) -> None:
    page = (
        "<!doctype html><title>x</title><p>text</p><script src='https://cdn.invalid/x.js'></script>"
        "<script src='missing.js'></script><script>console.error('told', 7); undefinedFunction()</script>"
    )
    proof = await start(tmp_path, {"index.html": page}, "true")
    text = proof.report.text()
    assert not proof.report.passed
    assert "the page says: told 7" in text
    assert "ReferenceError: undefinedFunction is not defined" in text
    assert "missing.js" in text
    assert "Not loaded, because there is no network here" in text
    assert proof.started is not None
    assert not any("cdn.invalid" in finding for finding in proof.started.findings)


@needs_chromium
async def test_page__that_is_blank_or_loops_is_a_finding(tmp_path: Path) -> None:
    proof = await start(tmp_path, {"index.html": "<!doctype html><title>x</title><div></div>"}, "true")
    assert "the page is blank" in proof.report.text()
    assert not proof.report.passed


async def test_picture__without_a_browser_is_none_and_no_fault(tmp_path: Path) -> None:
    proof = await start(tmp_path, {"index.html": "<p>text</p>"}, "true", browsers=())
    assert proof.report.passed
    assert proof.screenshot is None
    assert "No picture was taken: there is no Chromium here." in proof.report.text()


async def test_started_program__cannot_speak_for_the_probe(tmp_path: Path) -> None:
    code = """
import os, sys
tried = opened = 0
for pid in filter(str.isdigit, os.listdir("/proc")):
    if "runtime.project.probe.main" in open(f"/proc/{pid}/cmdline").read():
        for file, mode in (("fd/1", "wb"), ("mem", "r+b"), ("environ", "rb")):
            tried += 1
            try:
                open(f"/proc/{pid}/{file}", mode).close()
                opened += 1
            except OSError:
                pass
print("tried", tried, "opened", opened)
sys.exit(1)
"""
    proof = await start(tmp_path, {"cli.py": code}, "python3 cli.py")
    assert not proof.report.passed
    assert re.search(r"^tried [1-9]\d* opened 0$", proof.report.text(), re.MULTILINE)


async def test_artifact__that_is_a_link_or_no_picture_does_not_come_out(tmp_path: Path) -> None:
    run = "mkdir -p docs/screenshots && ln -s /etc/hosts docs/screenshots/home.png"
    assert (await start(tmp_path, {}, run)).screenshot is None
    run = "mkdir -p docs/screenshots && echo no picture > docs/screenshots/home.png"
    assert (await start(tmp_path / "again", {}, run)).screenshot is None


async def type_all(folder: Path, files: Mapping[str, str], commands: list[str]) -> CheckReport:
    implementer = Implementer(sandbox=Sandbox(), engine=NoEngine(), scratch_dir=folder / "scratch")
    tree = {path: text.encode() for path, text in files.items()}
    try:
        return readme_report(await implementer.check(readme_work(tree, commands)), commands)
    finally:
        await implementer.stop()


async def test_readme__is_typed_into_one_shell(tmp_path: Path) -> None:
    report = await type_all(
        tmp_path, {}, ["export GREETING='good day'", "mkdir -p sub && cd sub", 'echo "$GREETING $PWD"']
    )
    assert report.passed, report.text()
    assert report.results[2].output == "good day /work/sub\n"


async def test_readme__servers_are_left_running_for_what_follows(tmp_path: Path) -> None:
    ask = "python3 -c \"import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000').read())\""
    report = await type_all(tmp_path, server(), ["python3 app.py", ask, "python3 app.py"])
    assert report.passed, report.text()
    assert "ok" in report.results[1].output


async def test_readme__server_in_the_background_is_awaited(tmp_path: Path) -> None:
    ask = "python3 -c \"import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000').read())\""
    report = await type_all(tmp_path, server(), ["python3 app.py &", ask])
    assert report.passed, report.text()
    assert "ok" in report.results[1].output


async def test_readme__tests_that_listen_for_a_moment_are_no_server(tmp_path: Path) -> None:
    code = (
        "import socket, time\nserver = socket.create_server(('127.0.0.1', 8000))\ntime.sleep({})\nraise SystemExit(5)"
    )
    files = {"short.py": code.format(1), "long.py": code.format(4)}
    report = await type_all(tmp_path, files, ["python3 short.py", "python3 long.py", "sleep 2"])
    assert [result.exit_status for result in report.results] == [5, 5, 0]


async def test_readme__failures_are_told_each_and_the_rest_goes_on(tmp_path: Path) -> None:
    report = await type_all(tmp_path, {}, ["false", "no-such-program", "echo still", "exit 4"])
    assert [result.exit_status for result in report.results] == [1, 127, 0, 4]
    assert not report.passed
