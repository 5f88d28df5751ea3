"""What a sandboxed process can see, as arguments for `bwrap` and for the programs that drop its rights.

As root the process becomes a real other user, chosen anew for every run: only then do the kernel's per-user limits bind
it. Without root it gets a user namespace of its own, in which it may make no further ones.
Source: bwrap(1) 0.8, prlimit(1), setpriv(1), choom(1).
"""

import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runtime.implementer.work import Limits

WORK = "/work"
"""Where the work folder appears inside."""
HOME = "/tmp/home"
PYTHON_HOME = "/opt/python"
"""Whose `bin` comes first in PATH."""
PROGRAMS = ("prlimit", "choom", "setpriv")
"""What must be installed beside bubblewrap; all are part of util-linux."""

_SYSTEM_FOLDERS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_SYSTEM_FILES = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ssl/certs",
                 "/etc/fonts", "/etc/localtime", "/etc/mime.types")  # fmt: skip
# The first range is free on any Linux (systemd's UIDS-GIDS.md); the second serves containers that map few ids.
_UID_RANGES = (range(0x7000_0000, 0x7100_0000), range(20_000, 60_000))


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What of the host is visible inside, beside the system's programs and our own Python, read-only."""

    workdir: Path | None = None
    """Read-write, as `/work`."""
    read_only: Sequence[Path] = ()
    """Each at its own path."""
    offered: Mapping[str, Path] = field(default_factory=dict)
    """Path inside -> folder outside, read-only."""
    writable: Mapping[str, Path] = field(default_factory=dict)
    """Path inside -> folder outside; `PYTHON_HOME` may be among them."""
    sockets: Mapping[str, Path] = field(default_factory=dict)
    """Path inside -> Unix socket outside."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Path inside -> content, read-only."""


def pick_uid() -> int:
    """A user id that nobody else has, for one run. Without root: the id to appear as inside."""
    if os.geteuid() != 0:
        return 1000
    for ids in _UID_RANGES:
        if _is_mapped(ids[-1]):
            return ids[secrets.randbelow(len(ids))]
    return 65_534


def account_files(uid: int) -> dict[str, bytes]:
    """Just enough of `/etc` for programs that ask who they are and where localhost is."""
    return {
        "/etc/passwd": f"builder:x:{uid}:{uid}:builder:{HOME}:/bin/sh\n".encode(),
        "/etc/group": f"builder:x:{uid}:\n".encode(),
        "/etc/hosts": b"127.0.0.1 localhost\n::1 localhost\n",
    }


def arguments(
    *, view: View, uid: int, limits: Limits, env: Mapping[str, str], file_fds: Mapping[str, int]
) -> list[str]:
    """Everything before the `--`. `file_fds` are descriptors that hold the content of `view.files`."""
    made: set[str] = set()
    size = str(limits.scratch_bytes)
    # fmt: off
    return [
        "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
        *([] if os.geteuid() == 0 else ["--unshare-user", "--uid", str(uid), "--gid", str(uid), "--disable-userns"]),
        "--die-with-parent", "--new-session", "--hostname", "sandbox",
        "--clearenv", *_settings(env),
        *_system(),
        "--proc", "/proc",
        "--dev", "/dev", "--perms", "1777", "--size", size, "--tmpfs", "/dev/shm", "--remount-ro", "/dev",
        "--perms", "1777", "--size", size, "--tmpfs", "/tmp", "--perms", "1777", "--dir", HOME,
        *([] if PYTHON_HOME in view.writable else _python_links(made)),
        *(part for path in (*_python_folders(), *view.read_only) for part in _read_only(path, made)),
        *(part for inside, folder in view.offered.items() for part in (
            *_parents(inside, made), "--ro-bind", str(folder), inside)),
        *(part for inside, folder in view.writable.items() for part in (
            *_parents(inside, made), "--bind", str(folder), inside)),
        *(part for inside, fd in file_fds.items() for part in (
            *_parents(inside, made), "--perms", "0444", "--ro-bind-data", str(fd), inside)),
        *(part for inside, socket in view.sockets.items() for part in (
            *_parents(inside, made), "--bind", str(socket), inside)),
        *(["--bind", str(view.workdir), WORK, "--chdir", WORK] if view.workdir else ["--chdir", "/tmp"]),
        "--remount-ro", "/",
    ]
    # fmt: on


def rights_dropping(*, uid: int, limits: Limits, has_cgroup: bool) -> list[str]:
    """The command that goes before the confined one: it sets the limits, then gives up root for good."""
    # With a cgroup the sum over all processes is bounded, and programs that reserve address space freely can run.
    memory = [] if has_cgroup else [f"--as={limits.memory_bytes}"]
    drop = [
        *("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"),
        *("--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"),
    ]
    return [
        *("prlimit", f"--cpu={limits.cpu_s}", f"--nproc={limits.process_count}"),
        *(f"--fsize={limits.file_size_bytes}", "--core=0", *memory, "--"),
        # When the machine runs out of memory, the kernel ends this process before any of ours.
        *("choom", "-n", "1000", "--"),
        *(drop if os.geteuid() == 0 else []),
    ]


def base_environment() -> dict[str, str]:
    folders = [f"{PYTHON_HOME}/bin", *(str(folder / "bin") for folder in _python_folders())]
    return {
        "PATH": ":".join([*folders, "/usr/local/bin", "/usr/bin", "/bin"]),
        "HOME": HOME,
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
        "USER": "builder",
        "LOGNAME": "builder",
        "TERM": "dumb",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def shell() -> str:
    return "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh"


def _settings(env: Mapping[str, str]) -> list[str]:
    return [part for name, value in env.items() for part in ("--setenv", name, value)]


def _system() -> list[str]:
    parts = ["--ro-bind", "/usr", "/usr"]
    for folder in map(Path, _SYSTEM_FOLDERS):
        if folder.is_symlink():
            parts += ["--symlink", str(folder.readlink()), str(folder)]
        elif folder.is_dir():
            parts += ["--ro-bind", str(folder), str(folder)]
    parts += ["--perms", "0755", "--dir", "/etc", "--perms", "0755", "--dir", "/etc/ssl"]
    for file in _SYSTEM_FILES:
        parts += ["--ro-bind-try", file, file]
    return parts


def _python_folders() -> list[Path]:
    """Where our Python's own files are, when it is not the system's: perhaps in a home that is itself not visible."""
    prefixes = {Path(sys.base_prefix), Path(sys.base_prefix).resolve()}
    return sorted(prefix for prefix in prefixes if not prefix.is_relative_to("/usr"))


def _python_links(made: set[str]) -> list[str]:
    """`python` and `python3` are this very version, also where the system has another or only one of the names."""
    program = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    links = [f"{PYTHON_HOME}/bin/{name}" for name in ("python", "python3")]
    return [*_parents(links[0], made), *(part for link in links for part in ("--symlink", str(program), link))]


def _read_only(path: Path, made: set[str]) -> list[str]:
    if path.is_relative_to("/usr"):
        return []
    return [*_parents(str(path), made), "--ro-bind", str(path), str(path)]


def _parents(inside: str, made: set[str]) -> list[str]:
    """Folders on the way, open to all: bwrap would give them the modes of the host's, which may be 0700."""
    parts = []
    for parent in reversed([str(parent) for parent in Path(inside).parents if parent != Path("/")]):
        if parent not in made and parent not in ("/tmp", "/etc", HOME):
            made.add(parent)
            parts += ["--perms", "0755", "--dir", parent]
    return parts


def _is_mapped(uid: int) -> bool:
    """Whether this id exists in the user namespace we run in."""
    rows = (map(int, line.split()) for line in Path("/proc/self/uid_map").read_text().splitlines())
    return any(first <= uid < first + count for first, _, count in rows)
