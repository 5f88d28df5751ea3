"""The source files in an archive. They are read in memory: nothing that a stranger packed is ever written anywhere."""

import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath

from runtime.index.chunk import FILE_BYTES_MAX

MEMBERS_MAX = 20_000
BYTES_MAX = 64 << 20
"""Of all files that are taken."""

SOURCE_SUFFIXES = {".py", ".js", ".jsx", ".mjs", ".cjs", ".ts", ".mts", ".tsx", ".go", ".rs"}
MADE_FOLDERS = {"node_modules", "vendor", "third_party", "dist", "build", "target", "out", "cjs", "esm", "umd", "venv"}
"""Of copies, made from source or taken from elsewhere."""


class ArchiveTooLargeError(Exception):
    pass


def is_source(path: str) -> bool:
    """A program's text. Type declarations repeat the comments of the code they were made from."""
    *folders, name = PurePosixPath(path.lower()).parts
    if not MADE_FOLDERS.isdisjoint(folders) or name.endswith((".d.ts", ".d.mts", ".min.js")):
        return False
    return PurePosixPath(name).suffix in SOURCE_SUFFIXES


def read_archive(archive: Path, folder: str) -> dict[str, bytes]:
    """Path below `folder` -> content of every source file, by path. Links and odd names are passed over, and so is a
    file above FILE_BYTES_MAX. Raises ArchiveTooLargeError."""
    found: dict[str, bytes] = {}
    room = BYTES_MAX
    for number, (member, size_bytes, content) in enumerate(_members(archive)):
        path = path_below(folder, member)
        if number == MEMBERS_MAX or (path and size_bytes > room):
            raise ArchiveTooLargeError(f"{archive.name} holds more than {MEMBERS_MAX} files or {BYTES_MAX} bytes")
        if path and size_bytes <= FILE_BYTES_MAX and is_source(path):
            found[path] = content()
            room -= size_bytes
    return dict(sorted(found.items()))


def path_below(folder: str, member: str) -> str:
    """Empty when `member` is not in there, or its name is no plain path."""
    parts = PurePosixPath(member).parts
    outer = PurePosixPath(folder).parts
    if ".." in parts or PurePosixPath(member).is_absolute() or "\\" in member or parts[: len(outer)] != outer:
        return ""
    return "/".join(parts[len(outer) :])


Member = tuple[str, int, Callable[[], bytes]]
"""Name, size in bytes, and its content when asked for."""


def _members(archive: Path) -> Iterator[Member]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for info in wheel.infolist():
                if not info.is_dir():
                    yield info.filename, info.file_size, partial(wheel.read, info)
    elif archive.suffix == ".deb":
        listed = subprocess.run(["dpkg-deb", "--fsys-tarfile", archive], check=True, capture_output=True)
        with tarfile.open(fileobj=BytesIO(listed.stdout)) as container:
            yield from _tar_members(container)
    else:
        with tarfile.open(archive) as container:
            yield from _tar_members(container)


def _tar_members(container: tarfile.TarFile) -> Iterator[Member]:
    for info in container:
        if info.isfile():
            yield info.name, info.size, partial(_content, container, info)


def _content(container: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = container.extractfile(info)
    assert file is not None, "a plain file"
    return file.read()
