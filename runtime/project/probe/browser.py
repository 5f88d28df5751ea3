"""Opens one page in a headless Chromium and tells what a person would see of it.

Source: the Chrome DevTools Protocol over `--remote-debugging-pipe`: JSON texts, each ended by a zero byte; the browser
reads descriptor 3 and writes descriptor 4.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

LOAD_S_MAX = 15.0
SETTLE_S = 1.0
"""How long a loaded page may go on building itself."""
ERRORS_MAX = 20
PROGRAMS = ("/usr/lib/chromium/chromium", "chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--no-default-browser-check", "--mute-audio",
    "--hide-scrollbars", "--disable-extensions", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-breakpad", "--renderer-process-limit=1", "--window-size=1280,800",
    "--remote-debugging-pipe",
)  # fmt: skip
_AT_3_AND_4 = (
    "import fcntl, os, sys\n"
    "ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]\n"
    "os.dup2(ends[0], 3); os.dup2(ends[1], 4)\n"
    "os.execv(sys.argv[3], sys.argv[3:])"
)
_LOOK = """(() => {
  const body = document.body;
  const drawn = body && [...body.querySelectorAll('img,svg,canvas,video,iframe,input,button,select,textarea')]
    .some(each => each.getClientRects().length);
  return {title: document.title, blank: !body || !(body.innerText.trim() || drawn)};
})()"""


class BrowserError(Exception):
    """The browser could not be used: that says nothing about the page."""


@dataclass(kw_only=True)
class Page:
    title: str = ""
    blank: bool = True
    errors: list[str] = field(default_factory=list)
    """What the page itself did wrong."""
    not_loaded: list[str] = field(default_factory=list)
    """What it wanted from elsewhere: there is no network here."""
    png: bytes = b""


def find_browser(programs: Sequence[str] = PROGRAMS) -> str | None:
    found = map(shutil.which, programs)
    return next((program for program in found if program), None)


def look_at(url: str, program: str) -> Page:
    """Raises BrowserError."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = _Browser(program, Path(profile))
        try:
            return _looked(browser, url)
        finally:
            browser.close()


def _looked(browser: "_Browser", url: str) -> Page:
    page = Page()
    told = _Told(page)
    target = browser.ask("Target.createTarget", {"url": "about:blank"})["targetId"]
    session = browser.ask("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
    browser.on_event = lambda event: told.hear(browser, session, event)
    for domain in ("Page", "Runtime", "Log", "Inspector"):
        browser.ask(f"{domain}.enable", {}, session)
    failed = browser.ask("Page.navigate", {"url": url}, session).get("errorText")
    if failed:
        page.errors.append(f"{url} cannot be opened: {failed}")
        return page
    if not browser.wait(lambda: told.loaded or told.crashed, LOAD_S_MAX) and not told.crashed:
        page.errors.append(f"the page is still loading after {LOAD_S_MAX:g} s")
    browser.wait(lambda: told.crashed, SETTLE_S)
    if told.crashed:
        page.errors.append("the page crashed")
        return page
    seen = browser.ask("Runtime.evaluate", {"expression": _LOOK, "returnByValue": True}, session)["result"]
    value = seen.get("value", {})
    page.title, page.blank = str(value.get("title", ""))[:200], bool(value.get("blank", True))
    page.png = base64.b64decode(browser.ask("Page.captureScreenshot", {"format": "png"}, session)["data"])
    return page


class _Told:
    """What the page did while it was open."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.loaded = False
        self.crashed = False

    def hear(self, browser: "_Browser", session: str, event: dict[str, Any]) -> None:
        said = event.get("params", {})
        match event["method"]:
            case "Page.loadEventFired":
                self.loaded = True
            case "Inspector.targetCrashed":
                self.crashed = True
            case "Page.javascriptDialogOpening":
                browser.tell("Page.handleJavaScriptDialog", {"accept": True}, session)
            case "Runtime.exceptionThrown":
                details = said["exceptionDetails"]
                text = details.get("exception", {}).get("description") or details["text"]
                self._add(self._page.errors, text.splitlines()[0], details.get("url", ""))
            case "Runtime.consoleAPICalled" if said["type"] in ("error", "assert"):
                parts = (str(each.get("value", each.get("description", ""))) for each in said["args"])
                self._add(self._page.errors, " ".join(parts), "")
            case "Log.entryAdded" if said["entry"]["level"] == "error":
                entry = said["entry"]
                self._add(self._errors_for(entry.get("url", "")), entry["text"], entry.get("url", ""))

    def _errors_for(self, url: str) -> list[str]:
        host = urlsplit(url).hostname
        return self._page.errors if host in (None, "127.0.0.1", "::1", "localhost") else self._page.not_loaded

    def _add(self, errors: list[str], text: str, url: str) -> None:
        # Browsers ask for the icon of every site unasked.
        if len(errors) < ERRORS_MAX and not url.endswith("/favicon.ico"):
            errors.append(f"{text[:300]} ({url[:200]})" if url else text[:300])


class _Browser:
    def __init__(self, program: str, profile: Path) -> None:
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _AT_3_AND_4, str(to_read), str(to_write), program, *_FLAGS,
                 f"--user-data-dir={profile}"],
                pass_fds=(to_read, to_write),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(to_read)
            os.close(to_write)
        self.on_event: Callable[[dict[str, Any]], None] = lambda event: None
        self._last_id = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._unread = b""

    def ask(self, method: str, parameters: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        """Raises BrowserError: it ended, does not answer, or refuses."""
        number = self.tell(method, parameters, session)
        if not self.wait(lambda: number in self._answers, LOAD_S_MAX):
            raise BrowserError(f"the browser does not answer {method}")
        answer = self._answers.pop(number)
        if "error" in answer:
            raise BrowserError(f"the browser refuses {method}: {answer['error'].get('message', '')}")
        result: dict[str, Any] = answer["result"]
        return result

    def tell(self, method: str, parameters: dict[str, Any], session: str | None = None) -> int:
        """Its answer is kept. Raises BrowserError."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": parameters}
        text = json.dumps(message | ({"sessionId": session} if session else {}))
        try:
            os.write(self._write, text.encode() + b"\0")
        except OSError as error:
            raise BrowserError("the browser ended") from error
        return self._last_id

    def wait(self, happened: Callable[[], bool], seconds: float) -> bool:
        """Whether it happened in time. Raises BrowserError when the browser ends."""
        deadline_s = time.monotonic() + seconds
        while not happened():
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return False
            if select.select([self._read], [], [], left_s)[0]:
                self._hear()
        return True

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._read)
        os.close(self._write)

    def _hear(self) -> None:
        piece = os.read(self._read, 1 << 20)
        if not piece:
            raise BrowserError("the browser ended")
        *messages, self._unread = (self._unread + piece).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                self.on_event(message)
