"""A project's git repository: one branch, `main`, of plain files only.

Nothing a project holds can make git run a program or touch a file elsewhere: no configuration of the machine or the
user is read, there are no hooks, and links, submodules and paths out of the tree are refused.
"""

import io
import os
import re
import struct
import time
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple, Self, cast

from git.cmd import Git

from runtime.errors import BadInputError, ConflictError, NotFoundError, UnavailableError
from runtime.project.paths import is_plain_path
from runtime.project.tree import write_tree

_COMMITTER = {"GIT_COMMITTER_NAME": "Masterbuilder", "GIT_COMMITTER_EMAIL": "builder@masterbuilder.invalid"}
_CONFIG = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.symlinks": "false",
    "core.autocrlf": "false",
    "core.quotePath": "false",
    "core.protectHFS": "true",
    "core.protectNTFS": "true",
    "commit.gpgSign": "false",
    "gc.auto": "0",
    "index.version": "2",
    "maintenance.auto": "false",
    "pack.threads": "1",
    "protocol.allow": "never",
}
KEPT = "rewound"
"""Branches under this name hold what main was before it went back."""
_PLAIN_MODES = ("100644", "100755")
_MAIN = "refs/heads/main"
_SKELETON = {
    "HEAD": f"ref: {_MAIN}\n",
    "config": "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n",
}
_PACK_EVERY = 8
"""Commits. A bundle of what is packed already costs a third of one of loose objects."""
_INDEX_BYTES_MAX = 256 << 10
"""Up to this size, some 2,000 files, reading the index here is quicker than a process that does it."""
_TRAILER = re.compile(r"^([A-Za-z][A-Za-z0-9-]*): (.+)$")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_SIGNATURE = "# v2 git bundle"
_BUNDLED = re.compile(rf"{_MAIN}|refs/heads/{KEPT}/[\w.-]+")


class MergeConflictError(ConflictError):
    """The patch does not fit what others have merged since; the repository is as it was."""

    code = "merge_conflict"


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    name: str
    email: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    commit: str
    """The full id, 40 hex digits."""
    author: Author
    message: str
    """Whole, trailers included."""
    trailers: Mapping[str, str]
    """What the last paragraph holds, when it holds nothing else: `{"Task": "T-001/1"}`."""


class ProjectRepository:
    """Every method runs git and waits for it: call them in a thread (`asyncio.to_thread`), one at a time."""

    def __init__(self, folder: Path) -> None:
        """For `init`, `open` and `from_bundle`."""
        self.folder = folder.absolute()
        self._unpacked = 0
        """Commits since everything was packed."""
        self._is_clean = False
        """Whether the tree is known to be that of HEAD, as nobody else writes to it."""
        self._known: Mapping[str, bytes] = {}
        """Contents by git's ids, of the whole tree that was read last: the next one seldom differs much."""
        self._git = _git(self.folder)

    @classmethod
    def init(cls, folder: Path, author: Author) -> Self:
        """Makes the folder and a repository with one empty commit."""
        repository = cls._empty(folder)
        repository.commit("Start the project", author)
        return repository

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Raises NotFoundError when there is no repository in exactly this folder."""
        if not (folder / ".git" / "HEAD").is_file():
            raise NotFoundError(f"There is no repository in {folder}.", "Restore it from its bundle.")
        return cls(folder)

    @classmethod
    def from_bundle(cls, folder: Path, bundle: bytes, *, writes_files: bool = True) -> Self:
        """Makes the folder and a clone in it. Raises BadInputError for a bundle that is broken or holds links.

        Without its files in the folder the clone costs a third, and is as good for all but `read`.
        """
        repository = cls._empty(folder)
        refs, pack = _parts(bundle)
        with _stdin(pack) as stdin:
            status, _, errors = repository._run("index-pack", "--stdin", "--strict", stdin=stdin)
        if status != 0:
            raise _broken(_last_line(errors))
        for name, commit in refs.items():
            path = repository.folder / ".git" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{commit}\n")
        status, _, errors = repository._run("read-tree", "--reset", *(["-u"] if writes_files else []), "HEAD")
        if status != 0:
            raise _broken(_last_line(errors))
        _refuse_links(repository._entries())
        return repository

    @property
    def head(self) -> str:
        try:
            return (self.folder / ".git" / _MAIN).read_text().strip()
        except FileNotFoundError:
            return self._must("rev-parse", "HEAD").decode().strip()

    def bundle(self) -> bytes:
        """The whole main branch, and what was kept beside it, as a git bundle; equal commits may give other bytes."""
        if self._unpacked >= _PACK_EVERY:
            self._must("repack", "-a", "-d", "-q")
            self._unpacked = 0
        refs = self._refs()
        with _stdin("".join(f"{commit}\n" for commit in refs.values()).encode()) as stdin:
            pack = self._must("pack-objects", "--revs", "--stdout", "--quiet", "--delta-base-offset", stdin=stdin)
        return _bundle(refs, pack)

    def keep_branch(self, name: str, commit: str) -> None:
        """Has `rewound/...` point to a commit, so that every later bundle holds it; again, it changes nothing."""
        assert name.startswith(f"{KEPT}/"), "other branches are not in bundles"
        self._must("update-ref", f"refs/heads/{name}", _commit_name(commit))

    def files(self) -> list[str]:
        """Tracked paths, sorted; what is applied or written but not yet committed counts."""
        return [entry.path for entry in self._entries()]

    def blobs(self) -> dict[str, str]:
        """Git's id of each tracked file's content, as staged."""
        return {entry.path: entry.blob for entry in self._entries()}

    def contents(self, paths: Collection[str] | None = None) -> dict[str, bytes]:
        """Every tracked file, or those of `paths` that are tracked, as staged."""
        entries = self._entries()
        if paths is not None:
            return self._contents([entry for entry in entries if entry.path in paths])
        contents = self._contents(entries)
        self._known = {entry.blob: contents[entry.path] for entry in entries}
        return contents

    def _contents(self, entries: "Sequence[_Entry]") -> dict[str, bytes]:
        known = self._known
        read = {entry.blob: known[entry.blob] for entry in entries if entry.blob in known}
        new = {entry.blob for entry in entries} - read.keys()
        read |= {blob: content for blob in new if (content := self._loose(blob)) is not None}
        read |= self._batch(sorted(new - read.keys()))
        return {entry.path: read[entry.blob] for entry in entries}

    def _loose(self, blob: str) -> bytes | None:
        """What git has not packed yet, as it is with what was written last. Source: git's gitformat-loose(5)."""
        try:
            packed = (self.folder / ".git" / "objects" / blob[:2] / blob[2:]).read_bytes()
        except FileNotFoundError:
            return None
        # `blob <size>`, a zero, the content.
        return zlib.decompress(packed).partition(b"\0")[2]

    def _batch(self, blobs: Sequence[str]) -> dict[str, bytes]:
        if not blobs:
            return {}
        with _stdin("".join(f"{blob}\n" for blob in blobs).encode()) as stdin:
            told = memoryview(self._must("cat-file", "--batch", "--buffer", stdin=stdin))
        contents: dict[str, bytes] = {}
        for blob in blobs:
            # `<id> blob <size>`, a line end, the content, a line end.
            header = bytes(told[:100]).split(b"\n", 1)[0]
            start = len(header) + 1
            end = start + int(header.split()[2])
            contents[blob] = bytes(told[start:end])
            told = told[end + 1 :]
        return contents

    def read(self, path: str) -> bytes:
        """A file as it is in the tree now. Raises NotFoundError, BadInputError for a path out of the tree."""
        target = self._target(path)
        try:
            descriptor = os.open(target, os.O_RDONLY | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "rb") as file:
                return file.read()
        except OSError as error:
            raise NotFoundError(f"There is no file {path} in the project.", "List the project's files.") from error

    def write(self, files: Mapping[str, str | bytes | None]) -> None:
        """Writes (None: removes) files and stages them, ignored ones too.

        Raises BadInputError: for a path out of the tree, and nothing is written then; or when a folder is in the way.
        """
        self._put(files)
        self._stage(files, set(self.files()) if None in files.values() else set())

    def _stage(self, files: Mapping[str, str | bytes | None], known: Set[str]) -> None:
        """`known` are all tracked files, where some of `files` are removed."""
        touched = [path for path, content in files.items() if content is not None or path in known]
        if touched:
            self._must("add", "--all", "--force", "--", *touched)

    def _put(self, files: Mapping[str, str | bytes | None]) -> None:
        """Into the folder, or out of it."""
        self._is_clean = False
        targets = {path: self._target(path) for path in files}
        try:
            for path, content in files.items():
                _write(targets[path], content)
        except OSError as error:
            raise BadInputError(f"{path} cannot be written: {error.strerror}.", "Use another path.") from error

    def write_and_commit(self, files: Mapping[str, str | bytes | None], message: str, author: Author) -> str:
        """Commits what is staged, and these files."""
        self._put(files)
        known = set(self.files())
        if files.keys() <= known:
            return self._commit_staged(message, author, sorted(files))  # In one process with the commit.
        self._stage(files, known)
        return self._commit_staged(message, author)

    def commit(self, message: str, author: Author, trailer: str = "") -> str:
        """Commits the tree as it is, also when nothing changed, and returns the new commit's id.

        `trailer` becomes the message's last paragraph: `Task: T-001/1`.
        """
        self._must("add", "--all")
        return self._commit_staged(message + (f"\n\n{trailer}" if trailer else ""), author)

    def _commit_staged(self, message: str, author: Author, also: Sequence[str] = ()) -> str:
        """With the files `also`, which are tracked, as they are in the folder."""
        text = message.replace("\0", "").strip() + "\n"
        identity = {"GIT_AUTHOR_NAME": _plain(author.name), "GIT_AUTHOR_EMAIL": _plain(author.email)}
        with _stdin(text.encode()) as stdin:
            self._must(
                *("commit", "--quiet", "--no-verify", "--allow-empty", "--cleanup=verbatim", "--file=-"),
                *(("--include", "--", *also) if also else ()),
                stdin=stdin,
                env=identity,
            )
        self._unpacked += 1
        self._is_clean = True
        return self.head

    def apply_patch(self, patch: bytes) -> None:
        """Applies a git diff to the tree and stages it, merging where others changed the same files.

        Wants a clean tree, and leaves it at HEAD when it raises: MergeConflictError when the patch no longer fits,
        BadInputError when it is malformed, leads out of the tree or would make a link or submodule.
        """
        if not patch:
            return
        if not self._is_clean and self._must("status", "--porcelain", "-z"):
            raise ConflictError("The repository has uncommitted changes.", "Commit or reset them first.")
        self._is_clean = False
        with _stdin(patch) as stdin:
            status, _, errors = self._run("apply", "--3way", "--index", "--whitespace=nowarn", "-", stdin=stdin)
        try:
            if status == 1:
                raise MergeConflictError(
                    f"The change does not fit the merged tree: {_last_line(errors)}.",
                    "Make the change again on the merged tree.",
                )
            if status != 0:
                raise BadInputError(f"The patch is refused: {_last_line(errors)}.", "Make the change again.")
            _refuse_links(self._entries())
        except (MergeConflictError, BadInputError):
            self.reset_hard("HEAD")
            raise

    def commits(self) -> Sequence[Commit]:
        """Newest first."""
        records = self._must("log", "-z", "--format=%H%x1f%an%x1f%ae%x1f%B", "main").decode(errors="replace")
        return [_parse_commit(record) for record in records.split("\0") if record]

    def parents(self, commit: str) -> Sequence[str]:
        return self._must("show", "--no-patch", "--format=%P", _commit_name(commit)).decode().split()

    def reset_hard(self, commit: str) -> None:
        """Makes main and the tree what they were at `commit`; everything else in the folder is removed."""
        self._must("reset", "--quiet", "--hard", _commit_name(commit))
        self._must("clean", "--quiet", "-ffdx")
        self._is_clean = True

    def export(self, prefix: str) -> bytes:
        """A ZIP of the tracked files under one folder `prefix`; the same commit gives the same bytes."""
        seconds = int(self._must("log", "-1", "--format=%ct").decode())
        moment = max(seconds, 315_619_200)  # a ZIP knows no time before 1980
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as package:
            for entry in self._entries():
                info = zipfile.ZipInfo(f"{prefix}/{entry.path}", date_time=_zip_time(moment))
                info.external_attr = int(entry.mode, 8) << 16
                info.compress_type = zipfile.ZIP_DEFLATED
                package.writestr(info, self.read(entry.path))
        return archive.getvalue()

    @classmethod
    def _empty(cls, folder: Path) -> Self:
        git = folder / ".git"
        for part in ("objects", "refs/heads"):
            (git / part).mkdir(parents=True, exist_ok=True)
        for name, text in _SKELETON.items():
            (git / name).write_text(text)
        return cls(folder)

    def _refs(self) -> dict[str, str]:
        """Name -> commit of what a bundle holds."""
        kept = sorted((self.folder / ".git" / "refs" / "heads" / KEPT).glob("*"))
        # A name that ends so is no branch's: git was cut off while it wrote one.
        names = [f"refs/heads/{KEPT}/{path.name}" for path in kept if path.suffix != ".lock"]
        return {_MAIN: self.head, **{name: (self.folder / ".git" / name).read_text().strip() for name in names}}

    def _entries(self) -> "list[_Entry]":
        """Of every tracked file, as the paths' bytes sort."""
        index = self.folder / ".git" / "index"
        if index.exists() and index.stat().st_size <= _INDEX_BYTES_MAX:
            entries = _index_entries(index.read_bytes())
            if entries is not None:
                return entries
        lines = self._must("ls-files", "--stage", "-z").split(b"\0")
        entries = []
        for line in filter(None, lines):
            facts, path = line.split(b"\t", 1)
            mode, blob, _ = facts.decode().split()
            entries.append(_Entry(mode, blob, os.fsdecode(path)))
        return entries

    def _target(self, path: str) -> Path:
        if not is_plain_path(path):
            raise BadInputError(f"{path!r} is not a path inside the project.", "Use a relative path.")
        target = self.folder.joinpath(*path.split("/"))
        if not target.parent.resolve().is_relative_to(self.folder.resolve()):
            raise BadInputError(f"{path!r} leads out of the project.", "Use a relative path.")
        return target

    def _must(self, *arguments: str, stdin: IO[bytes] | None = None, env: Mapping[str, str] | None = None) -> bytes:
        status, output, errors = self._run(*arguments, stdin=stdin, env=env)
        if status != 0:
            raise UnavailableError(f"git {arguments[0]} failed: {_last_line(errors)}.", "See whether its disk is full.")
        return output

    def _run(
        self, *arguments: str, stdin: IO[bytes] | None = None, env: Mapping[str, str] | None = None
    ) -> tuple[int, bytes, str]:
        return _executed(self._git, *arguments, stdin=stdin, env=env)


def patch_between(folder: Path, before: Mapping[str, bytes | None], after: Mapping[str, bytes | None]) -> bytes:
    """A git diff from some files to what is to become of them (None: not there), binary files included; empty when
    nothing changes. `apply_patch` takes it wherever the files were these.

    Blocking. Makes the folder and leaves both states in it: no repository is needed to compare them. Raises
    BadInputError and UnavailableError as `write_tree` does.
    """
    for name, files in (("a", before), ("b", after)):
        (folder / name).mkdir(parents=True)
        write_tree(folder / name, {path: content for path, content in files.items() if content is not None})
    # The folders' names are the prefixes that a diff has.
    status, patch, errors = _executed(
        _git(folder),
        *("diff", "--no-index", "--no-prefix", "--binary", "--full-index", "--no-renames", "--no-color"),
        *("--no-ext-diff", "--no-textconv", "--", "a", "b"),
    )
    if status not in (0, 1):
        raise UnavailableError(f"git diff failed: {_last_line(errors)}.", "See whether its disk is full.")
    return patch


def _git(folder: Path) -> Git:
    git = Git(str(folder))
    git.update_environment(**_environment(folder))
    return git


def _executed(
    git: Git, *arguments: str, stdin: IO[bytes] | None = None, env: Mapping[str, str] | None = None
) -> tuple[int, bytes, str]:
    """Its exit status, and what it wrote to both outputs."""
    status, output, errors = git.execute(
        ["git", *arguments],
        istream=cast(io.BufferedReader, stdin),
        with_extended_output=True,
        with_exceptions=False,
        stdout_as_string=False,
        strip_newline_in_stdout=False,
        env=env,
    )
    return status, output, errors if isinstance(errors, str) else bytes(errors).decode(errors="replace")


def _environment(folder: Path) -> dict[str, str]:
    """Names everything outright, so that neither git's search nor variables set around us lead elsewhere."""
    config = {f"GIT_CONFIG_KEY_{i}": name for i, name in enumerate(_CONFIG)}
    config |= {f"GIT_CONFIG_VALUE_{i}": value for i, value in enumerate(_CONFIG.values())}
    return {
        "GIT_DIR": str(folder / ".git"),
        "GIT_WORK_TREE": str(folder),
        "GIT_INDEX_FILE": str(folder / ".git" / "index"),
        "GIT_OBJECT_DIRECTORY": str(folder / ".git" / "objects"),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": "",
        "GIT_CONFIG_PARAMETERS": "",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CONFIG_COUNT": str(len(_CONFIG)),
        **config,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_LITERAL_PATHSPECS": "1",
        **_COMMITTER,
    }


class _Entry(NamedTuple):
    mode: str
    blob: str
    path: str


def _refuse_links(entries: Sequence[_Entry]) -> None:
    for entry in entries:
        if entry.mode not in _PLAIN_MODES:
            raise BadInputError(
                f"{entry.path} is a link or a submodule; a project holds plain files only.",
                "Use a plain file instead.",
            )


def _bundle(refs: Mapping[str, str], pack: bytes) -> bytes:
    """What `_parts` takes apart. `git bundle create` packs in a process of its own: half as long again."""
    return "\n".join([_SIGNATURE, *(f"{commit} {name}" for name, commit in refs.items()), "\n"]).encode() + pack


def _parts(bundle: bytes) -> tuple[dict[str, str], bytes]:
    """Name -> commit of its branches, and its pack. Source: git's bundle-format(5), version 2 without prerequisites.

    Raises BadInputError where it is none of ours.
    """
    head, _, pack = bundle.partition(b"\n\n")
    signature, *lines = head.decode(errors="replace").split("\n")
    refs = {name: commit for line in lines for commit, _, name in (line.partition(" "),)}
    if signature != _SIGNATURE or _MAIN not in refs:
        raise _broken("it is no git bundle of a main branch")
    for name, commit in refs.items():
        if not _BUNDLED.fullmatch(name) or not is_plain_path(name) or not _COMMIT.fullmatch(commit):
            raise _broken(f"it holds {commit} {name}")
    return refs, pack


def _broken(why: str) -> BadInputError:
    return BadInputError(f"The bundle cannot be read: {why}.", "Use an intact bundle.")


def _index_entries(data: bytes) -> list[_Entry] | None:
    """Of an index of version 2; None for another version. Source: git's index-format(5)."""
    signature, version, count = struct.unpack_from(">4sII", data)
    if (signature, version) != (b"DIRC", 2):
        return None
    entries: list[_Entry] = []
    at = 12
    for _ in range(count):
        (mode,) = struct.unpack_from(">I", data, at + 24)
        end = data.index(b"\0", at + 62)
        entries.append(_Entry(f"{mode:06o}", data[at + 40 : at + 60].hex(), os.fsdecode(data[at + 62 : end])))
        # An entry is padded with 1 to 8 zeros to a multiple of eight.
        at += (end - at + 8) // 8 * 8
    return entries


@contextmanager
def _stdin(content: bytes) -> Iterator[IO[bytes]]:
    """In memory: a file made and removed for each command costs a file system more than git itself uses."""
    with os.fdopen(os.memfd_create("stdin"), "w+b") as file:
        file.write(content)
        file.seek(0)
        yield file


def _write(target: Path, content: str | bytes | None) -> None:
    if content is None:
        target.unlink(missing_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)


def _commit_name(name: str) -> str:
    if name != "HEAD" and not _COMMIT.fullmatch(name):
        raise BadInputError(f"{name!r} is not a commit id.", "Use one that `commits` lists.")
    return name


def _parse_commit(record: str) -> Commit:
    commit, name, email, message = record.split("\x1f", 3)
    lines = [_TRAILER.match(line) for line in message.strip().split("\n\n")[-1].splitlines()]
    trailers = {line[1]: line[2] for line in lines if line} if all(lines) else {}
    return Commit(commit=commit, author=Author(name=name, email=email), message=message.strip(), trailers=trailers)


def _plain(text: str) -> str:
    """What git accepts as part of an identity, and cannot be taken for a field's end."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f<>]", " ", text).split()) or "unknown"


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip().rstrip(".")[:500] if lines else "no reason given"


def _zip_time(seconds: int) -> tuple[int, int, int, int, int, int]:
    moment = time.gmtime(seconds)
    return (moment.tm_year, moment.tm_mon, moment.tm_mday, moment.tm_hour, moment.tm_min, moment.tm_sec)
