"""Runs Aider for one request after another; a script for Aider's own Python, so of ours it has `moves` beside it alone.

Started as `python aider_worker.py SOCKET`. JSON lines: first it writes `{"ready": true, "version": ...}`; then for each
request `{"instruction", "files", "read_only", "model", "token", "output_tokens_max"}` one answer `{"files", "error",
"log"}`. File contents are base64; a file that does not exist (yet, or any more) is null. Model calls go to SOCKET, a
Unix socket behind which the gateway is. The process is confined, so it may trust its own folders and nothing it reads.
"""

import base64
import contextlib
import importlib
import json
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, TextIO

SCRATCH = Path("/tmp")
PROJECT = SCRATCH / "project"
TRANSIENT_STATUSES = (502, 503)
RETRY_DELAYS_S = (0.5, 2.0, 5.0)
LOG_CHARS_MAX = 32_000
EMPTY_ON_PURPOSE = ("__init__.py", "py.typed", ".gitkeep")
CHUNK_BYTES = 64 << 10

Files = dict[str, bytes | None]
"""Path -> content; None for a file that does not exist."""


def main(gateway_socket: str) -> None:
    answers = own_stdout()
    base_url = f"http://127.0.0.1:{serve_relay(gateway_socket)}/v1"
    os.environ.update(LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_MODE="PRODUCTION")
    aider = Aider(base_url)
    answer(answers, {"ready": True, "version": aider.version})
    for line in sys.stdin:
        wipe_scratch()
        try:
            answer(answers, aider.carry_out(json.loads(line)))
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            answer(answers, {"files": {}, "error": text, "cause": "engine", "gateway_status": 0, "log": ""})
        wipe_scratch()


def own_stdout() -> TextIO:
    """Keeps stdout for answers alone: whatever Aider or its libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def answer(answers: TextIO, record: dict[str, Any]) -> None:
    answers.write(json.dumps(record) + "\n")
    answers.flush()


class Aider:
    """Aider's modules, loaded whole at once so that the first request does not wait for them."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._coders: Any = importlib.import_module("aider.coders")
        litellm: Any = importlib.import_module("litellm")
        litellm.suppress_debug_info = True
        litellm.drop_params = True
        litellm.telemetry = False
        self._litellm = litellm
        # Aider repeats every failed call for a minute; what is worth repeating is decided by the model's class below.
        self._coders.base_coder.RETRY_TIMEOUT = 0
        self._console_class = console_class(importlib.import_module("aider.io"))
        self._model_class = model_class(importlib.import_module("aider.models"))
        self._read_moves: Any = importlib.import_module("moves").read_moves
        self.version: str = importlib.import_module("aider").__version__

    def carry_out(self, request: dict[str, Any]) -> dict[str, Any]:
        files = decoded(request["files"])
        given = {**decoded(request["read_only"]), **files}
        write(given)
        os.chdir(PROJECT)
        console = self._console_class()
        model = self._model_class(request, self._base_url)
        coder = self._coder(console, model, list(files), list(request["read_only"]))
        try:
            coder.run(with_message=request["instruction"], preproc=False)
        finally:
            self._litellm.in_memory_llm_clients_cache.flush_cache()  # it remembers the token
        written = changes(given, removable=files)
        log = "\n".join(line for line in console.lines if line.strip())
        return {
            "files": {
                path: None if content is None else base64.b64encode(content).decode()
                for path, content in written.items()
            },
            "error": failure(coder, model, console, written),
            "cause": "gateway" if model.failure else "edits",
            "gateway_status": model.failure_status if model.failure else 0,
            "log": log[-LOG_CHARS_MAX:],
        }

    def _coder(self, console: Any, model: Any, files: list[str], read_only: list[str]) -> Any:
        coder = self._coders.Coder.create(
            main_model=model,
            edit_format="diff",
            io=console,
            fnames=[str(PROJECT / path) for path in files],
            read_only_fnames=[str(PROJECT / path) for path in read_only],
            use_git=False,
            auto_commits=False,
            dirty_commits=False,
            map_tokens=0,
            stream=False,
            auto_lint=False,
            auto_test=False,
            suggest_shell_commands=False,
            detect_urls=False,
            summarizer=Forgetful(),
        )
        # Without git Aider takes the files' deepest common folder for the root; the paths in replies start higher.
        coder.root = str(PROJECT)
        coder.abs_root_path_cache = {}
        get_edits = coder.get_edits

        def after_moves() -> Any:
            """Aider's edit format can neither remove nor rename a file."""
            for path, new_path in self._read_moves(coder.partial_response_content):
                console.tool_output(move(path, new_path, set(files)))
            return get_edits()

        coder.get_edits = after_moves
        return coder


class Forgetful:
    """In place of Aider's summariser, which would make a paid call in the background after a long reply."""

    def too_big(self, messages: Any) -> bool:
        return False


def console_class(aider_io: Any) -> Any:
    class Console(aider_io.InputOutput):  # type: ignore[misc]
        """Collects what Aider says, and answers its questions without asking anyone."""

        def __init__(self) -> None:
            self.lines: list[str] = []
            self.errors: list[str] = []
            super().__init__(pretty=False, yes=True, fancy_input=False)

        def confirm_ask(self, question: str, *args: Any, **kwargs: Any) -> bool:
            return question == "Create new file?"

        def offer_url(self, *args: Any, **kwargs: Any) -> bool:
            return False

        def tool_error(self, message: object = "", strip: bool = True) -> None:
            self.errors.append(str(message))
            self.lines.append(str(message))

        def tool_warning(self, message: object = "", strip: bool = True) -> None:
            self.lines.append(str(message))

        def tool_output(self, *messages: object, log_only: bool = False, bold: bool = False) -> None:
            self.lines.append(" ".join(map(str, messages)))

        def assistant_output(self, message: object, pretty: bool | None = None) -> None:
            self.lines.append(str(message))

    return Console


def model_class(models: Any) -> Any:
    class GatewayModel(models.Model):  # type: ignore[misc]
        """A model behind the gateway. Remembers why its last call failed."""

        def __init__(self, request: dict[str, Any], base_url: str) -> None:
            # LiteLLM takes the first part for the wire format and passes on the rest, which is the gateway's name.
            name = f"openai/{request['model']}"
            # A name that is known keeps Aider from looking it up on the net.
            models.model_info_manager.local_model_metadata[name] = {
                "litellm_provider": "openai",
                "mode": "chat",
                "max_output_tokens": request["output_tokens_max"],
                "input_cost_per_token": 0,
                "output_cost_per_token": 0,
            }
            super().__init__(name, weak_model=name, editor_model=False)
            self.failure = ""
            self.failure_status = 0
            self.extra_params: dict[str, Any] = {
                **(getattr(self, "extra_params", None) or {}),
                "api_base": base_url,
                "api_key": request["token"],
                "max_tokens": request["output_tokens_max"],
                "max_retries": 0,
            }

        def send_completion(self, *args: Any, **kwargs: Any) -> Any:
            delays = list(RETRY_DELAYS_S)
            while True:
                try:
                    reply = super().send_completion(*args, **kwargs)
                except Exception as error:
                    self.failure = getattr(error, "message", None) or str(error)
                    self.failure_status = int(getattr(error, "status_code", None) or 0)
                    if not delays or getattr(error, "status_code", None) not in TRANSIENT_STATUSES:
                        raise
                    time.sleep(delays.pop(0))
                else:
                    self.failure = ""
                    return reply

    return GatewayModel


def decoded(files: dict[str, str | None]) -> Files:
    return {path: None if content is None else base64.b64decode(content) for path, content in files.items()}


def write(files: Files) -> None:
    PROJECT.mkdir()
    for path, content in files.items():
        if content is not None:
            target = PROJECT / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def move(path: str, new_path: str | None, allowed: set[str]) -> str:
    """Removes or renames a file of the task, and says what it did. A file never takes another's place."""
    if not {path, new_path or path} <= allowed:
        return f"{path} is not removed or renamed: both paths must be among the files to edit."
    source = PROJECT / path
    if not source.exists():
        return f"{path} is not there to be removed or renamed."
    if new_path is None:
        source.unlink()
        return f"Removed {path}"
    target = PROJECT / new_path
    if target.exists() and target.stat().st_size:
        return f"{path} is not renamed: there is a file {new_path}."
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)
    return f"Renamed {path} to {new_path}"


def changes(given: Files, removable: Collection[str]) -> Files:
    """What is different from what was given. Aider creates every named file empty: those it left so do not count."""
    found = {
        str(path.relative_to(PROJECT)): path.read_bytes()
        for path in sorted(PROJECT.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
    changed: Files = {path: content for path, content in found.items() if content != (given.get(path) or b"")}
    changed |= {path: None for path in removable if given[path] is not None and path not in found}
    if not changed:
        return {}
    markers = {path for path, content in given.items() if content is None and Path(path).name in EMPTY_ON_PURPOSE}
    return {**changed, **{path: b"" for path in markers if found.get(path) == b""}}


def failure(coder: Any, model: Any, console: Any, written: Files) -> str:
    """Why the work was not finished; empty when it was."""
    if model.failure:
        return str(model.failure)
    if coder.num_exhausted_context_windows:
        return "The model's reply was cut off at the output limit, or the request was over the model's input limit."
    if coder.reflected_message:
        return f"The model's edits could not be applied: {coder.reflected_message}"
    if not written and console.errors:
        return str(console.errors[-1])
    return ""


def wipe_scratch() -> None:
    os.chdir("/")
    home = Path(os.environ["HOME"])
    for path in (*SCRATCH.iterdir(), *home.iterdir()):
        if path == home:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def serve_relay(gateway_socket: str) -> int:
    """Listens on a port of this sandbox's own loopback and hands every connection to the Unix socket."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=connect, args=(client, gateway_socket), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return int(listener.getsockname()[1])


def connect(client: socket.socket, gateway_socket: str) -> None:
    with client, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as gateway:
        try:
            gateway.connect(gateway_socket)
        except OSError:
            return
        back = threading.Thread(target=pump, args=(gateway, client), daemon=True)
        back.start()
        pump(client, gateway)
        back.join()


def pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while chunk := source.recv(CHUNK_BYTES):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main(sys.argv[1])
