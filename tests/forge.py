"""A forge on this machine: repositories over git's own smart HTTP, and what GitHub's API says of them.

Git's half is `git http-backend`, the program that servers run. The API's half answers in GitHub's own shape. Source:
git-http-backend(1); https://docs.github.com/en/rest/repos/repos#get-a-repository
"""

import gzip
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_IDENTITY = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


@dataclass
class Answer:
    """What the API says instead of the truth."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None


class StubForge:
    """`requests` has every request, as `GET /repos/octocat/hello`; `downloads` counts those that asked for objects."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.requests: list[str] = []
        self.downloads = 0
        self.headers: list[Mapping[str, str]] = []
        self.sizes_kb: dict[str, int] = {}
        self.answers: dict[str, Answer] = {}
        """By the path that is asked."""
        self.git_delay_s = 0.0

    def commit(self, name: str, files: Mapping[str, str | bytes | None], branch: str = "main") -> str:
        """Makes the repository where there is none. A text that begins with `->` is a link to what follows."""
        work = self.folder / "work" / name
        if not work.exists():
            work.mkdir(parents=True)
            self._git(work, "init", "-q", "-b", branch)
            bare = self.folder / "served" / f"{name}.git"
            self._git(self.folder, "init", "-q", "--bare", "-b", branch, str(bare))
            for option in ("uploadpack.allowFilter", "http.getanyfile"):
                self._git(bare, "config", option, "true")
            self._git(work, "remote", "add", "origin", str(bare))
        self._git(work, "checkout", "-q", "-B", branch)
        for path, content in files.items():
            file = work / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)
            if isinstance(content, str) and content.startswith("->"):
                file.symlink_to(content[2:])
            elif content is not None:
                file.write_bytes(content.encode() if isinstance(content, str) else content)
        self._git(work, "add", "-A")
        self._git(work, "commit", "-q", "--allow-empty", "-m", "A change")
        self._git(work, "push", "-q", "-f", "origin", branch)
        return self._git(work, "rev-parse", "HEAD")

    def put(self, name: str, *arguments: str) -> str:
        """Git in the served repository itself, for trees that no working folder could hold."""
        return self._git(self.folder / "served" / f"{name}.git", *arguments)

    def described(self, name: str) -> Mapping[str, Any]:
        owner, _, short = name.partition("/")
        return {
            "id": 1296269,
            "node_id": "MDEwOlJlcG9zaXRvcnkxMjk2MjY5",
            "name": short,
            "full_name": name,
            "private": False,
            "owner": {"login": owner, "id": 1, "type": "User", "site_admin": False},
            "html_url": f"https://github.com/{name}",
            "description": None,
            "fork": False,
            "clone_url": f"https://github.com/{name}.git",
            "size": self.sizes_kb.get(name, 108),
            "default_branch": self.put(name, "symbolic-ref", "--short", "HEAD"),
            "visibility": "public",
            "pushed_at": "2011-01-26T19:06:43Z",
        }

    def named(self, name: str) -> str | None:
        """As it is written; GitHub's names do not heed capitals."""
        served = [str(path.relative_to(self.folder / "served"))[:-4] for path in self.folder.glob("served/*/*.git")]
        return next((each for each in served if each.lower() == name.lower()), None)

    def _git(self, folder: Path, *arguments: str) -> str:
        command = ["git", "-c", "safe.directory=*", *arguments]
        done = subprocess.run(command, cwd=folder, env={**os.environ, **_IDENTITY}, check=True, capture_output=True)
        return done.stdout.decode().strip()


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        plain = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
        self.server.forge.downloads += b"command=fetch" in plain
        self._answer(plain)

    def log_message(self, format: str, *args: Any) -> None:
        return None

    def _answer(self, body: bytes) -> None:
        forge, (path, _, query) = self.server.forge, self.path.partition("?")
        forge.requests.append(f"{self.command} {self.path}")
        forge.headers.append(dict(self.headers))
        if (instead := forge.answers.get(path)) is not None:
            self._send(instead.status, dict(instead.headers), json.dumps(instead.body).encode())
        elif path.startswith("/repos/"):
            name = forge.named(path.removeprefix("/repos/"))
            not_found = {"message": "Not Found", "documentation_url": "https://docs.github.com/rest", "status": "404"}
            said = forge.described(name) if name else not_found
            headers = {"content-type": "application/json; charset=utf-8", "x-ratelimit-remaining": "59"}
            self._send(200 if name else 404, headers, json.dumps(said).encode())
        else:
            time.sleep(forge.git_delay_s)
            self._send(*self._backend(path, query, body))

    def _backend(self, path: str, query: str, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """Runs it as CGI. Source: RFC 3875."""
        environment = {
            "PATH": os.environ["PATH"],
            **_IDENTITY,
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROJECT_ROOT": str(self.server.forge.folder / "served"),
            "GIT_PROTOCOL": self.headers.get("git-protocol") or "",
            "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": self.headers.get("content-type") or "",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REMOTE_ADDR": "127.0.0.1",
            "REQUEST_METHOD": self.command,
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        return int(headers.pop("Status", "200").split()[0]), headers, content

    def _send(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class _Server(ThreadingHTTPServer):
    forge: StubForge


@contextmanager
def stub_forge(folder: Path) -> Iterator[StubForge]:
    forge = StubForge(folder)
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.forge = forge
        forge.url = f"http://127.0.0.1:{server.server_port}"
        (folder / "served").mkdir(parents=True)
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        try:
            yield forge
        finally:
            server.shutdown()
            serving.join()
