"""The copy of a repository that is kept: a pack of one commit, sealed piece by piece, in one file.

It is a cache of what its forge has: lost, it is downloaded again. Laid out as a length in four bytes, big-endian, and
so many sealed bytes, again and again; the first piece is JSON and says what the copy is, the others are git's pack. A
pack ends with a sum of itself, so one that lost its end does not open.
"""

import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from runtime.errors import NotFoundError, StoreUnavailableError, UnavailableError
from runtime.files import remove_unfinished, remove_whole, sync
from runtime.repositories.git import BareRepository
from runtime.store.seal import NONCE_BYTES, Seal

_PIECE_BYTES = 4 << 20
_LENGTH_BYTES = 4
_TAG_BYTES = 16
_SEALED_BYTES_MAX = _PIECE_BYTES + NONCE_BYTES + _TAG_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyFacts:
    clone_url: str
    branch: str
    commit: str
    size_bytes: int
    """Of the pack."""


class RepositoryCopy:
    """Has one writer, the entity of the repository. Everything blocks."""

    def __init__(self, file: Path, seal: Seal, scratch: Path) -> None:
        """`scratch` is where it is taken apart, in folders that are removed again."""
        self._file = file
        self._seal = seal
        self._scratch = scratch

    def keep(self, facts: CopyFacts, pack: Path) -> None:
        """In the place of the one that was there, whole or not at all. Raises StoreUnavailableError."""
        beside = self._file.with_name(f"{self._file.name}.{secrets.token_hex(8)}.tmp")
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            remove_unfinished(self._file)
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                self._write(out, 0, json.dumps(asdict(facts)).encode())
                with pack.open("rb") as plain:
                    for number, piece in enumerate(iter(lambda: plain.read(_PIECE_BYTES), b""), 1):
                        self._write(out, number, piece)
                out.flush()
                os.fsync(out.fileno())
            beside.replace(self._file)
            sync(self._file.parent)
        except OSError as error:
            raise StoreUnavailableError(
                f"The repository cannot be kept: {error.strerror}.", "Free disk space, and clone it again."
            ) from error
        finally:
            with suppress(OSError):
                beside.unlink()

    def facts(self) -> CopyFacts | None:
        """None where there is no copy, or none that opens."""
        try:
            with self._file.open("rb") as file:
                return CopyFacts(**json.loads(next(self._pieces(file))))
        except (OSError, StoreUnavailableError, StopIteration, ValueError, TypeError):
            return None

    @contextmanager
    def opened(self, commit: str) -> Iterator[BareRepository]:
        """A repository with that commit, for as long as it is used.

        Raises NotFoundError where the copy is not there, is of another commit, or does not open.
        """
        with scratch_folder(self._scratch) as folder:
            try:
                with self._file.open("rb") as file:
                    pieces = self._pieces(file)
                    if CopyFacts(**json.loads(next(pieces))).commit != commit:
                        raise _absent()
                    repository = BareRepository.of_pack(folder / "repository", commit, pieces)
            except (OSError, UnavailableError, StopIteration) as error:
                raise _absent() from error
            yield repository

    def remove(self) -> None:
        """Raises OSError."""
        remove_whole(self._file)

    def _write(self, out: IO[bytes], number: int, piece: bytes) -> None:
        sealed = self._seal.close(piece, self._subject(number))
        out.write(len(sealed).to_bytes(_LENGTH_BYTES, "big") + sealed)

    def _pieces(self, file: IO[bytes]) -> Iterator[bytes]:
        number = 0
        while length := file.read(_LENGTH_BYTES):
            size = int.from_bytes(length, "big")
            if size > _SEALED_BYTES_MAX:
                raise StoreUnavailableError("A copy of a repository is damaged.", "Clone it again.")
            yield self._seal.open(file.read(size), self._subject(number))
            number += 1

    def _subject(self, number: int) -> str:
        return f"{self._file.name} {number}"


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="repository-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _absent() -> NotFoundError:
    return NotFoundError("The copy of this repository is not here any more.", "Clone it again.")
