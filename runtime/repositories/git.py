"""Git, run on what strangers made: it downloads, takes packs apart and lists trees; it writes none of their files.

Nothing is checked out, so no link is followed, no filter (such as LFS') and no hook is run, and no submodule is looked
at. No configuration but ours is read, nobody is asked for a password, and only the command that downloads may use a
protocol, the one of its address.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from runtime.errors import BadInputError, GitHubError, UnavailableError
from runtime.index.chunk import FILE_BYTES_MAX
from runtime.watched import TOO_LARGE, TOO_LONG, run_watched

LOCAL_S_MAX = 120
"""For a command on what is here already."""
FILES_MAX = 1_000
"""Of a repository that is being downloaded: it comes as one pack."""
MEMORY_BYTES_MAX = 4 << 30
"""Of address space: packs are mapped."""
_CHUNK_BYTES = 64 << 10

_CONFIG = {
    "core.askPass": "",
    "core.bigFileThreshold": "1m",
    "core.fsmonitor": "false",
    "core.hooksPath": "/dev/null",
    "core.symlinks": "false",
    "credential.helper": "",
    "fetch.recurseSubmodules": "false",
    "gc.auto": "0",
    "http.followRedirects": "false",
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "30",
    "maintenance.auto": "false",
    "pack.threads": "1",
    "submodule.recurse": "false",
    "transfer.bundleURI": "false",
}
_KEPT = re.compile(r"PATH|(https?|all|no)_proxy|SSL_CERT_(FILE|DIR)|GIT_SSL_CAINFO|CURL_CA_BUNDLE", re.IGNORECASE)
"""Of the service's own environment: how it reaches the network."""
_TIP = re.compile(r"^([0-9a-f]{40}|[0-9a-f]{64})\t(\S+)$", re.MULTILINE)
_NO_SUCH_BRANCH = 2
"""Source: git-ls-remote(1), --exit-code."""


class Remote:
    """One repository at its forge. May be asked until `until`, of `time.monotonic()`."""

    def __init__(self, url: str, until_s: float) -> None:
        self._url = url
        self._until_s = until_s

    async def tip(self, branch: str, folder: Path) -> str | None:
        """The newest commit of a branch; None where there is no such branch. Raises GitHubError."""
        command = ["ls-remote", "--exit-code", self._url, f"refs/heads/{branch}"]
        status, said = await self._run(command, folder, 1 << 20)
        if status == _NO_SUCH_BRANCH:
            return None
        tips: dict[str, str] = {name: commit for commit, name in _TIP.findall(said)}
        if status != 0 or f"refs/heads/{branch}" not in tips:
            raise _failed(status, said)
        return tips[f"refs/heads/{branch}"]

    async def download(self, branch: str, folder: Path, bytes_max: int) -> Path:
        """The newest commit of a branch, without its history and without files that are too large to be searched.

        Makes `folder`, which becomes a bare repository, and answers its one pack. Raises BadInputError for what comes
        to more than `bytes_max`, GitHubError for what does not come.
        """
        command = [
            *("clone", "--bare", "--quiet", "--template=", "--no-local", "--depth=1", "--single-branch", "--no-tags"),
            *(f"--filter=blob:limit={FILE_BYTES_MAX + 1}", f"--branch={branch}", "--", self._url, str(folder)),
        ]
        status, said = await self._run(command, folder.parent, bytes_max)
        if status == TOO_LARGE:
            raise BadInputError(
                f"The repository comes to more than {bytes_max / 1e6:g} MB, and was not kept.",
                "Clone a smaller one, or delete some of yours to make room.",
            )
        packs = list((folder / "objects" / "pack").glob("*.pack"))
        if status != 0 or len(packs) != 1:
            raise _failed(status, said)
        return packs[0]

    async def _run(self, command: Sequence[str], folder: Path, bytes_max: int) -> tuple[int, str]:
        return await run_watched(
            [*_bounded(), "git", *command],
            cwd=folder,
            environment=_environment(urlsplit(self._url).scheme),
            watched=folder,
            bytes_max=bytes_max,
            files_max=FILES_MAX,
            # Of a program that it stops, git does not tell; so it is for what grows very fast.
            file_bytes_max=2 * bytes_max,
            wall_s=max(0.0, self._until_s - time.monotonic()),
        )


class BareRepository:
    """A folder with a repository and no remote: what is missing in it is not asked for anywhere. Everything blocks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of_pack(cls, folder: Path, commit: str, pack: Iterator[bytes]) -> "BareRepository":
        """Makes the folder, of a pack that holds one commit without its parents. Raises UnavailableError."""
        for part in ("objects", "refs"):
            (folder / part).mkdir(parents=True)
        made = {"HEAD": "ref: refs/heads/main", "config": "[core]\n\tbare = true", "shallow": commit}
        for name, text in made.items():
            (folder / name).write_text(f"{text}\n")
        repository = cls(folder)
        with repository.running("index-pack", "--stdin") as (stdin, _):
            for piece in pack:
                stdin.write(piece)
        return repository

    def head(self) -> str:
        with self.running("rev-parse", "--verify", "HEAD^{commit}") as (_, stdout):
            return stdout.read(200).decode().strip()

    @contextmanager
    def running(self, *arguments: str) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
        """A command of git with its input and output. Raises UnavailableError where it fails; it has ended then."""
        process = subprocess.Popen(
            ["timeout", "--signal=KILL", f"{LOCAL_S_MAX}", *_bounded(), "git", "--git-dir=.", *arguments],
            cwd=self.folder,
            env=_environment(""),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None
        failed = UnavailableError(f"git {arguments[0]} failed on a repository.", "Clone it again.")
        try:
            yield stdin, stdout
            stdin.close()
            while stdout.read(_CHUNK_BYTES):
                pass
            if process.wait() != 0:
                raise failed
        except BrokenPipeError:
            raise failed from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            with suppress(BrokenPipeError):
                stdin.close()
            stdout.close()


def _bounded() -> Sequence[str]:
    return ["prlimit", f"--as={MEMORY_BYTES_MAX}", "--core=0", "--"]


def _environment(protocol: str) -> Mapping[str, str]:
    """`protocol` is the only one that may be used; none where it is empty."""
    config = {f"GIT_CONFIG_KEY_{i}": name for i, name in enumerate(_CONFIG)}
    config |= {f"GIT_CONFIG_VALUE_{i}": value for i, value in enumerate(_CONFIG.values())}
    return {
        **{name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)},
        **config,
        "GIT_ALLOW_PROTOCOL": protocol,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CONFIG_COUNT": str(len(_CONFIG)),
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
    }


def _failed(status: int, said: str) -> GitHubError:
    if status == TOO_LONG:
        return GitHubError("The repository did not come in time.", "Try again when the network is quicker.")
    lines = [line.strip() for line in said.splitlines() if line.startswith(("fatal: ", "error: "))]
    why = re.sub(r"(?<![\w:/])/[\w./-]+", "...", lines[-1].partition(": ")[2])[:300] if lines else "no reason was given"
    return GitHubError(f"The repository could not be downloaded: {why.rstrip('.')}.", "Try again in a moment.")
