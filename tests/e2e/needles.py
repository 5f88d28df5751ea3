"""Looks for secrets in every byte of files and of processes' memory, also as base64 and hexadecimal digits."""

import base64
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import psutil

_BLOCK_BYTES = 8 << 20
_PIECE_BYTES = 1 << 20
_OVERLAP_BYTES = 4 << 10
_ZEROS = bytes(_PIECE_BYTES + _OVERLAP_BYTES)


def forms(secret: str) -> tuple[bytes, ...]:
    """As it is, in hexadecimal, and what of its base64 is the same wherever in a longer text it begins."""
    plain = secret.encode()
    shifted = (base64.b64encode(b"\0" * before + plain)[-(-before * 4 // 3) : -4].rstrip(b"=") for before in range(3))
    return (plain, plain.hex().encode(), *(text[2:] for text in shifted))


class Haystack:
    """`secrets` by the names they are reported under."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._needles = [(name, form) for name, secret in secrets.items() for form in forms(secret)]
        self._overlap = max(len(form) for _, form in self._needles)

    def in_bytes(self, data: bytes) -> set[str]:
        return {name for name, form in self._needles if form in data}

    def in_files(self, folders: Iterable[Path]) -> dict[str, set[str]]:
        """Path -> the secrets in it."""
        found = {}
        for folder in folders:
            for path in folder.rglob("*"):
                if path.is_file() and not path.is_symlink() and (names := self._in_file(path)):
                    found[str(path)] = names
        return found

    def in_process(self, process: psutil.Process) -> set[str]:
        """In its environment, its command line, and all of its memory that can be read. Raises PermissionError."""
        folder = Path(f"/proc/{process.pid}")
        found = self.in_bytes((folder / "environ").read_bytes()) | self.in_bytes((folder / "cmdline").read_bytes())
        for block in memory_of(process):
            found |= self.in_bytes(block)
        return found

    def _in_file(self, path: Path) -> set[str]:
        found: set[str] = set()
        before = b""
        try:
            with path.open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    found |= self.in_bytes(before + block)
                    before = block[-self._overlap :]
        except FileNotFoundError:
            pass  # A service at work renames and removes files.
        return found


def memory_of(process: psutil.Process) -> Iterator[bytes]:
    """What a core dump would hold: all that can be written, in pieces that overlap, without those that are zeros."""
    folder = Path(f"/proc/{process.pid}")
    with (folder / "mem").open("rb", buffering=0) as memory:
        for line in (folder / "maps").read_text().splitlines():
            span, permissions, *rest = line.split(maxsplit=5)
            if permissions[:2] != "rw" or (rest and rest[-1].startswith("[v")):
                continue
            start, end = (int(edge, 16) for edge in span.split("-"))
            for at in range(start, end, _PIECE_BYTES):
                try:
                    memory.seek(at)
                    piece = memory.read(min(_PIECE_BYTES + _OVERLAP_BYTES, end - at))
                except OSError:
                    break  # Reserved and never used, or gone meanwhile.
                if piece != _ZEROS[: len(piece)]:
                    yield piece
