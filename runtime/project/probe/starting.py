"""Starts the product by its run command and looks whether it works as what it is.

A program that ends must end with status 0. One that still runs is a server: it must listen, and answer `/` with less
than 500. Where there is a page, a browser opens it.
"""

import contextlib
import functools
import http.client
import http.server
import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from runtime.project.probe import browser
from runtime.project.probe.listening import Address, listening
from runtime.project.probe.processes import Running

STARTS_S_MAX = 20.0
ANSWERS_S_MAX = 10.0
RETRIES_S = 3.0
"""For so long an answer of 500 or more may be that of a server that is not yet ready."""
OUTPUT_CHARACTERS_MAX = 4_000
_LOOK_EVERY_S = 0.05
_BODY_BYTES_MAX = 256 << 10
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_SITES = ("dist", "build", "out", ".", "public", "src/frontend", "src")
"""Where a site without a server has its `index.html`, what was built first."""


def try_out(
    command: str, screenshot: Path, *, starts_s: float, answers_s: float, browsers: Sequence[str]
) -> dict[str, Any]:
    """A JSON object; what is wrong is in its `findings`. `screenshot` is written when a page could be looked at."""
    already = listening()
    running = Running(command)
    told: dict[str, Any] = {"kind": "command", "findings": []}
    try:
        _wait(running, already, starts_s)
        addresses = sorted(listening() - already)
        told["exit_status"] = status = running.exit_status
        if addresses:
            told |= _served(addresses, screenshot, answers_s, browsers)
        elif status is None:
            told["findings"] = [f"it still runs after {starts_s:g} s, and listens on no port"]
        if status:
            told["findings"].append(f"it ended with status {status}")
        elif status == 0 and not addresses:
            told |= _site(screenshot, browsers)
        told["output"] = running.output(OUTPUT_CHARACTERS_MAX)
    finally:
        running.end()
    return told


def _wait(running: Running, already: set[Address], seconds: float) -> None:
    """Until it has ended or listens."""
    deadline_s = time.monotonic() + seconds
    while running.exit_status is None and not listening() - already and time.monotonic() < deadline_s:
        time.sleep(_LOOK_EVERY_S)


def _served(addresses: list[Address], screenshot: Path, answers_s: float, browsers: Sequence[str]) -> dict[str, Any]:
    """The first address that answers well is the one that counts."""
    findings, told = [], dict[str, Any]()
    for address in addresses:
        status, body, is_page = _get(address, answers_s)
        if status is None:
            findings.append(f"it listens on {address} and gives no HTTP answer to GET / within {answers_s:g} s")
            continue
        title = _TITLE.search(body)
        told = {
            "address": str(address),
            "http_status": status,
            "title": " ".join(title[1].split())[:200] if title else "",
        }
        if status < 500:
            seen = _seen(f"http://{address}/", screenshot, browsers) if is_page else {}
            return {"kind": "server", **told, **seen}
        findings.append(f"GET http://{address}/ was answered {status}: {' '.join(body.split())[:300]}")
    return {"kind": "server", **told, "findings": findings}


def _get(address: Address, answers_s: float) -> tuple[int | None, str, bool]:
    """Status, text, and whether it is a page."""
    deadline_s = time.monotonic() + RETRIES_S
    while True:
        connection = http.client.HTTPConnection(address.host, address.port, timeout=answers_s)
        try:
            connection.request("GET", "/", headers={"Accept": "text/html, */*"})
            answer = connection.getresponse()
            body = answer.read(_BODY_BYTES_MAX).decode(errors="replace")
        except (OSError, http.client.HTTPException):
            return None, "", False
        finally:
            connection.close()
        if answer.status < 500 or time.monotonic() > deadline_s:
            return answer.status, body, "html" in (answer.getheader("Content-Type") or "")
        time.sleep(_LOOK_EVERY_S * 10)


def _site(screenshot: Path, browsers: Sequence[str]) -> dict[str, Any]:
    """A site that needs no server is shown by one of ours."""
    folder = next((Path(each) for each in _SITES if (Path(each) / "index.html").is_file()), None)
    if folder is None:
        return {}
    with _shown(folder) as url:
        return {"kind": "site", "address": str(folder / "index.html"), **_seen(url, screenshot, browsers)}


@contextlib.contextmanager
def _shown(folder: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        return None


def _seen(url: str, screenshot: Path, browsers: Sequence[str]) -> dict[str, Any]:
    """What the browser says of the page. Without one there is no picture, and that is no fault of the page.

    The same page is told the same, whatever port it had.
    """
    program = browser.find_browser(browsers)
    if program is None:
        return {"no_picture": "there is no Chromium here"}
    try:
        page = browser.look_at(url, program)
    except browser.BrowserError as error:
        return {"no_picture": str(error)}
    findings = [f"the page says: {error.replace(url, '/')}" for error in page.errors]
    if page.blank:
        findings.append("the page is blank")
    if page.png:
        screenshot.parent.mkdir(parents=True, exist_ok=True)
        screenshot.write_bytes(page.png)
    return {"title": page.title, "findings": findings, "not_loaded": page.not_loaded}
