"""The service's HTTP API, as the command uses it."""

import hashlib
import json
import os
import time
import uuid
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import httpx
from pydantic import ValidationError

from cluster.wire import (
    AdminStatus,
    Answer,
    Backup,
    Checked,
    Compacted,
    DownloadLink,
    ErrorBody,
    Event,
    Health,
    Hits,
    Judged,
    Me,
    Pardoned,
    Project,
    Projects,
    Receipt,
    Related,
)
from runtime import errors
from runtime.errors import MasterbuilderError, RefusedError, UnavailableError

_T = TypeVar("_T", bound=Answer)
_KEEPING_S_MAX = 3_600.0
"""Checking and copying take as long as there is data."""
_HEARTBEAT_S_MAX = 40.0
"""The service sends at least a comment every 15 s; silence for longer means the connection is dead."""

_LOOKS_MAX = 10
_LOOK_AGAIN_S = 0.3


class ConnectionLostError(UnavailableError):
    """The service does not answer, or stopped in the middle: it may be starting again."""


class Client:
    """Raises the errors of `runtime.errors` as the service named them; a note on each holds its request id."""

    def __init__(self, url: str, token: str, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=httpx.Timeout(30.0, connect=5.0),
            transport=transport,
            trust_env=False,
        )

    def health(self) -> Health:
        """Also answered when the service says that it is not well."""
        with self._reaching():
            response = self._http.get("/health")
        return _parsed(Health, response)

    def me(self) -> Me:
        return self._get(Me, "/api/v1/me")

    def create(
        self,
        brief: str,
        answers: Mapping[str, str] | None,
        max_credits: str | None,
        confirm: bool,
        key: str,
        gates: Sequence[str] = (),
    ) -> Project:
        """Opens a project. The same `key` is the same project, so this may be repeated."""
        body: dict[str, Any] = {"brief": brief, "answers": dict(answers) if answers else None, "confirm": confirm}
        if max_credits is not None:
            body["max_credits"] = max_credits
        if gates:
            body["gates"] = list(gates)
        return self._post("/api/v1/projects", body, {"Idempotency-Key": key})

    def projects(self) -> list[Project]:
        """Newest first."""
        return self._get(Projects, "/api/v1/projects").projects

    def project(self, project: str) -> Project:
        return self._get(Project, _path(project))

    def answer(self, project: str, text: str) -> Project:
        return self._post(f"{_path(project)}/answers", {"text": text})

    def confirm(self, project: str, accept: bool, change: str = "") -> Project:
        return self._post(f"{_path(project)}/confirm", {"accept": accept, **({"change": change} if change else {})})

    def cancel(self, project: str) -> Project:
        return self.steer(project, "cancel")

    def resume(self, project: str, max_credits: str | None = None) -> Project:
        return self.steer(project, "resume", {} if max_credits is None else {"max_credits": max_credits})

    def steer(
        self, project: str, what: str, body: Mapping[str, Any] | None = None, *, key: str | None = None
    ) -> Project:
        """`pause`, `change`, `retry`, ...: the route of that name. The same `key` is the same request."""
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        return self._post(f"{_path(project)}/{what}", body or {}, headers)

    def search(self, project: str, asked: Mapping[str, Any]) -> Hits:
        """`query`, and what the route knows beside it."""
        return self._sent(Hits, f"{_path(project)}/search", asked)

    def related(self, project: str, symbol: str) -> Related:
        return self._get(Related, f"{_path(project)}/related?{urlencode({'symbol': symbol})}")

    def receipt(self, project: str) -> Receipt:
        return self._get(Receipt, f"{_path(project)}/receipt?format=json")

    def status(self) -> AdminStatus:
        """For administrators, as all that follows up to `pardon`."""
        return self._get(AdminStatus, "/api/v1/admin/status")

    def check(self) -> Checked:
        return self._keep(Checked, "check", {})

    def backup(self, folder: Path, with_secrets: bool) -> Backup:
        """Writes into `folder` on the service's machine."""
        return self._keep(Backup, "backup", {"folder": str(folder), "with_secrets": with_secrets})

    def compact(self) -> Compacted:
        return self._keep(Compacted, "compact", {})

    def pardon(self, entity: str) -> Pardoned:
        return self._keep(Pardoned, f"entities/{quote(entity, safe=':')}/pardon", {})

    def ask(self, shape: type[_T], method: str, path: str, body: Mapping[str, Any] | None = None) -> _T:
        """One of the operator's other routes, as `path` names it below `/api/v1/admin/`."""
        return self.ask_api(shape, method, f"admin/{path}", body)

    def ask_api(
        self,
        shape: type[_T],
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> _T:
        """Any other route, as `path` names it below `/api/v1/`."""
        json_body = None if body is None else dict(body)
        with self._reaching():
            response = self._http.request(method, f"/api/v1/{path}", json=json_body, headers=dict(headers or {}))
        return _parsed(shape, response)

    def admin_file(self, path: str) -> bytes:
        """What one of the operator's routes answers, as it is; making it may take a while."""
        with self._reaching():
            response = self._http.get(f"/api/v1/admin/{path}", timeout=httpx.Timeout(_KEEPING_S_MAX, connect=5.0))
        if response.status_code != 200:
            raise _told(response)
        return response.content

    def feedback(self, project: str, score: int, text: str) -> Judged:
        with self._reaching():
            response = self._http.post(f"{_path(project)}/feedback", json={"score": score, "text": text})
        return _parsed(Judged, response)

    def moved_on(self, project: Project) -> Project:
        """The project when its work has taken an answer up, or, where that takes more than seconds, as it is."""
        for _ in range(_LOOKS_MAX):
            if not project.moves_on:
                break
            time.sleep(_LOOK_AGAIN_S)
            project = self.project(project.id)
        return project

    def receipt_text(self, project: str, form: str) -> str:
        """`form` is `json`, `text` or `csv`."""
        with self._reaching():
            response = self._http.get(f"{_path(project)}/receipt", params={"format": form})
        if response.status_code != 200:
            raise _told(response)
        return response.text

    def link(self, project: str) -> DownloadLink:
        with self._reaching():
            response = self._http.post(f"{_path(project)}/link")
        return _parsed(DownloadLink, response)

    def save_package(self, project: str, path: Path, *, unfinished: bool = False) -> int:
        """Writes the ZIP to `path`, whole or not at all, and returns its size in bytes.

        With `unfinished`, of a project that has none, what was merged until now.
        """
        return self._save(f"{_path(project)}/package{'?unfinished=true' if unfinished else ''}", path)

    def save_repository(self, project: str, path: Path) -> int:
        """The same with the git bundle of what is built so far."""
        return self._save(f"{_path(project)}/repository", path)

    def _save(self, where: str, path: Path) -> int:
        with self._reaching():
            response = self._http.get(where, timeout=300.0)
        if response.status_code != 200:
            raise _told(response)
        stated = response.headers.get("x-sha256")
        if stated and stated != hashlib.sha256(response.content).hexdigest():
            raise UnavailableError("The package arrived damaged.", "Fetch it again.")
        beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            beside.write_bytes(response.content)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        return len(response.content)

    def save_export(self, user: str | None, path: Path) -> int:
        """Writes the ZIP of a person's data to `path` (mode 0600), whole or not at all; its size in bytes."""
        beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        timeout = httpx.Timeout(_KEEPING_S_MAX, connect=5.0)
        params = {"user": user} if user else {}
        try:
            with (
                self._reaching(),
                self._http.stream("GET", "/api/v1/me/export", params=params, timeout=timeout) as response,
            ):
                if response.status_code != 200:
                    response.read()
                    raise _told(response)
                with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    for piece in response.iter_bytes():
                        file.write(piece)
            if not zipfile.is_zipfile(beside):
                raise UnavailableError("The export arrived damaged.", "Fetch it again.")
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        return path.stat().st_size

    def events(
        self, project: str, after: int, silence_s_max: float = _HEARTBEAT_S_MAX, *, with_progress: bool = False
    ) -> Iterator[Event]:
        """The events after number `after`, as they happen, until the project has finished.

        `with_progress` also gives what is told when nothing happens: type `progress`, with the last event's number.
        Raises ConnectionLostError when the stream breaks or falls silent: go on from the last number seen.
        """
        timeout = httpx.Timeout(30.0, connect=5.0, read=silence_s_max)
        with (
            self._reaching(),
            self._http.stream("GET", f"{_path(project)}/events", params={"after": after}, timeout=timeout) as response,
        ):
            if response.status_code != 200:
                response.read()
                raise _told(response)
            yield from (event for event in _events(response.iter_lines()) if with_progress or event.type != "progress")

    def close(self) -> None:
        self._http.close()

    def _get(self, shape: type[_T], path: str) -> _T:
        with self._reaching():
            response = self._http.get(path)
        return _parsed(shape, response)

    def _post(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Project:
        return self._sent(Project, path, body, headers)

    def _sent(
        self, shape: type[_T], path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> _T:
        with self._reaching():
            response = self._http.post(path, json=dict(body), headers=dict(headers or {}))
        return _parsed(shape, response)

    def _keep(self, shape: type[_T], what: str, body: Mapping[str, Any]) -> _T:
        timeout = httpx.Timeout(_KEEPING_S_MAX, connect=5.0)
        with self._reaching():
            response = self._http.post(f"/api/v1/admin/{what}", json=dict(body), timeout=timeout)
        return _parsed(shape, response)

    def _reaching(self) -> "_Reaching":
        return _Reaching(self.url)


class _Reaching:
    """Turns what can go wrong on the way to the service into one error that says how to start it."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
            raise errors.BadInputError(f"{self._url} is not a URL.", "Correct MASTERBUILDER_URL.") from error
        if isinstance(error, httpx.HTTPError | httpx.StreamError):
            raise ConnectionLostError(
                f"The service at {self._url} does not answer.", "Start it with `masterbuilder up`."
            ) from error


def _path(project: str) -> str:
    if not project or any(character in project for character in "/?#%\\ "):
        raise errors.NotFoundError(f"There is no project {project!r}.", "See `masterbuilder projects`.")
    return f"/api/v1/projects/{project}"


def _parsed(shape: type[_T], response: httpx.Response) -> _T:
    try:
        if response.status_code < 400 or (shape is Health and "error" not in response.json()):
            return shape.model_validate_json(response.content)
    except ValueError as error:
        raise UnavailableError(
            f"{response.request.url} answered something else than this command understands.",
            "See that MASTERBUILDER_URL names a Masterbuilder service of this version.",
        ) from error
    raise _told(response)


def _told(response: httpx.Response) -> MasterbuilderError:
    try:
        body = ErrorBody.model_validate(response.json()["error"])
    except (ValueError, KeyError, TypeError, ValidationError):
        # Not our service's words, but Ray Serve's: its proxy is up and the application is not.
        return ConnectionLostError(
            f"{response.request.url} answered {response.status_code} without a reason.",
            "If it stays so, `masterbuilder down` and `masterbuilder up`.",
        )
    fallback = RefusedError if response.status_code < 500 else UnavailableError
    message = body.message.removesuffix(body.next).rstrip() if body.next else body.message
    error = _BY_CODE.get(body.code, fallback)(message, body.next, body.charged)
    request_id = body.request_id or response.headers.get("x-request-id", "")
    if request_id:
        error.add_note(f"Request id: {request_id}")
    return error


def _error_classes(base: type[MasterbuilderError]) -> Iterator[type[MasterbuilderError]]:
    for kind in base.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind
            yield from _error_classes(kind)


_BY_CODE = {kind.code: kind for kind in _error_classes(MasterbuilderError)}


def _events(lines: Iterator[str]) -> Iterator[Event]:
    """Source: the event stream format of the HTML standard, as far as the service uses it."""
    kind, data = "", ""
    for line in lines:
        if line.startswith("event:"):
            kind = line[6:].strip()
        elif line.startswith("data:"):
            data += line[5:].strip()
        elif not line:
            if kind == "end":
                return
            if data:
                try:
                    yield Event.model_validate(json.loads(data))
                except ValueError as error:
                    raise ConnectionLostError("The service sent a broken event.", "Try again.") from error
            kind, data = "", ""
    raise ConnectionLostError("The service closed the connection.", "Try again.")
