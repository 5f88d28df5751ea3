"""What an implementer is asked to do, and what it answers."""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from runtime.ids import RunId
from runtime.implementer.packages.package import Package
from runtime.project.tree import Tree

Cause = Literal["edits", "gateway", "engine"]
_SIGNALLED = {
    128 + signal.SIGKILL: ": it was killed, for memory, processor time or from outside",
    128 + signal.SIGXCPU: ": it had used all its processor time",
    128 + signal.SIGXFSZ: ": it wrote a file that is too large",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most one sandboxed command may use."""

    wall_s: float = 60.0
    cpu_s: int = 60
    memory_bytes: int = 1 << 30
    process_count: int = 128
    file_size_bytes: int = 64 << 20
    scratch_bytes: int = 256 << 20
    disk_bytes: int = 2 << 30
    """What the work's own folders may come to while it runs."""
    output_bytes: int = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """What one command did. `output` is stdout and stderr as they came, cut in the middle when over the bound."""

    command: str
    exit_status: int
    duration_s: float
    output: str
    timed_out: bool = False

    @property
    def passed(self) -> bool:
        return self.exit_status == 0 and not self.timed_out

    @property
    def ended(self) -> str:
        """How it ended, in words."""
        if self.timed_out:
            return "timed out"
        return f"exit {self.exit_status}" + _SIGNALLED.get(self.exit_status, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """The results of commands run one after another in one fresh tree, stopped at the first that failed."""

    results: Sequence[CommandResult]
    artifacts: Mapping[str, bytes] = field(default_factory=dict)
    """Those of the work's `artifacts` that were there at the end. Generated code may have written them."""
    packages: Sequence[Package] = ()
    """What the tree's manifests come to: everything that was fetched for them."""

    @property
    def passed(self) -> bool:
        return all(result.passed for result in self.results)

    def text(self) -> str:
        """For people and models: each command, how it ended, what it printed."""
        return "\n".join(f"$ {r.command}\n{r.output.rstrip()}\n[{r.ended}]" for r in self.results)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckWork:
    """Run `commands` in the sandbox on a copy of `tree`, past a failed one when `keep_going`."""

    tree: Tree
    commands: Sequence[str]
    project: str = ""
    """Whose turn it is; projects take turns."""
    install: str = ""
    """Comes before the commands. What it makes of the manifests alone is kept, and copied for the next work."""
    keep_going: bool = False
    tests: Sequence[str] = ()
    """Test files that must be in the tree: without them no command is run."""
    limits: Limits = field(default_factory=Limits)
    total_s: float = 600.0
    """No command is begun after this; the one that would have been counts as timed out."""
    tools: Mapping[str, bytes] = field(default_factory=dict)
    """Files of ours that commands may read: path inside, as `/opt/x.py` -> content."""
    artifacts: Sequence[str] = ()
    """Paths in the tree whose files are brought back; links are not followed, and what is too large is left."""
    artifact_bytes_max: int = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class EditWork:
    """Let the edit engine carry out `instruction` on `tree`, then run `checks` on the result.

    `token` is good for this one run of this one task: it pays for the engine's model calls and for nothing else.
    """

    tree: Tree
    instruction: str
    files: Sequence[str]
    """Paths the engine may edit or create, relative to the project's root."""
    read_only: Sequence[str]
    model: str
    """`provider/model`, as the gateway names it."""
    gateway_url: str
    """Base URL of the gateway with `/v1`."""
    token: str
    checks: Sequence[str]
    run: RunId = RunId("")
    """What it is done for: it is told what the work waits for."""
    tests: Sequence[str] = ()
    """Test files that the checks run: each must be there afterwards, and check something."""
    kept_tests: Sequence[str] = ()
    """As in `inspection.Change`, like `grown_tests`."""
    grown_tests: Sequence[str] = ()
    project: str = ""
    """Whose turn it is; projects take turns."""
    install: str = ""
    """As in `CheckWork`."""
    edit_timeout_s: float = 300.0
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class EditResult:
    """`patch` is a binary-safe git diff against the tree; empty when nothing was changed."""

    patch: bytes
    changed: Sequence[str]
    engine: str
    """Which program made the edits: `aider 0.86.2 (pid 4711, /path/to/python)`."""
    engine_log: str
    checks: CheckReport
    discarded: Sequence[str] = ()
    """What the engine changed beside the task's files; nothing of it is in the patch."""
    error: str = ""
    """Why the engine did not finish; empty when it did. `cause` and `gateway_status` are as in `EditOutcome`."""
    cause: Cause = "edits"
    gateway_status: int = 0
