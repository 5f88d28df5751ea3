"""One installation on one machine: its data folder, the mark its processes carry, and its record on disk."""

import fcntl
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

MARK = "MASTERBUILDER_INSTANCE"
"""The environment variable by which every process of an instance is known."""

State = Literal["starting", "deploying", "ready", "restarting", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """Everything an instance owns outside its database. Two data folders are two instances that never meet."""

    data_dir: Path

    @property
    def id(self) -> str:
        """12 hex digits that name the data folder."""
        return hashlib.sha256(str(self.data_dir.resolve()).encode()).hexdigest()[:12]

    @property
    def run_dir(self) -> Path:
        return self.data_dir / "run"

    @property
    def log_file(self) -> Path:
        return self.run_dir / "supervisor.log"

    @property
    def ray_log_file(self) -> Path:
        return self.run_dir / "ray.log"

    @property
    def record_file(self) -> Path:
        return self.run_dir / "instance.json"

    @property
    def lock_file(self) -> Path:
        return self.run_dir / "supervisor.lock"

    @property
    def temp_prefix(self) -> str:
        """Ray's folders start with this. Short, because Ray's Unix sockets in it may have 107 bytes of path."""
        return f"/tmp/mb-{self.id[:8]}-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What the supervisor last said about itself, in `<data_dir>/run/instance.json`. Holds nothing secret."""

    state: State
    detail: str
    next_step: str
    error_code: str
    """The `code` of the error that `detail` is the text of; empty when nothing is wrong."""
    supervisor_pid: int
    url: str
    dashboard_url: str
    ray_address: str
    """`host:port`; empty until Ray answers."""
    restarts: int
    """How often Ray was started again since the supervisor started."""
    proxy: str = ""
    """What listens at `url`: `haproxy`, or `ray serve` where HAProxy cannot run; empty until Ray is started."""


def write_record(instance: Instance, record: Record) -> None:
    """Whole or not at all."""
    beside = instance.record_file.with_suffix(".tmp")
    beside.write_text(json.dumps(asdict(record), indent=2))
    beside.replace(instance.record_file)


def read_record(instance: Instance) -> Record | None:
    """None when there is none, or none that this version can read."""
    try:
        return Record(**json.loads(instance.record_file.read_text()))
    except (OSError, ValueError, TypeError):
        return None


class SupervisorLock:
    """Held by the supervisor for as long as it lives; the kernel lets go of it when it dies, however it dies."""

    def __init__(self, instance: Instance) -> None:
        self._path = instance.lock_file
        self._descriptor: int | None = None

    def take(self, patience_s: float = 2.0) -> bool:
        """False when another process holds it. Waits a little, because `holder` holds it for an instant."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(descriptor)
                    return False
                time.sleep(0.05)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        self._descriptor = descriptor
        return True

    def holder(self) -> int | None:
        """The pid of the living supervisor; None when there is none."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(os.pread(descriptor, 20, 0) or b"0") or None
        else:
            return None
        finally:
            os.close(descriptor)
