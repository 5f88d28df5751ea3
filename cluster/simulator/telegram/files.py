"""The files that the bot and the people sent."""

import hashlib
import struct
from dataclasses import dataclass, field
from itertools import count

from cluster.simulator.telegram.refusal import bad_request

DOWNLOAD_BYTES_MAX = 20 << 20
"""Source: https://core.telegram.org/bots/api#getfile"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    id: str
    unique_id: str
    path: str
    name: str
    mime_type: str
    size_bytes: int
    content: bytes = field(repr=False)


class Files:
    """Ids are counted: the same calls in the same order have the same ids."""

    def __init__(self) -> None:
        self._by_id: dict[str, StoredFile] = {}
        self._by_path: dict[str, StoredFile] = {}
        self._numbers = count(1)

    def keep(
        self, content: bytes, *, folder: str, name: str, mime_type: str, size_bytes: int | None = None
    ) -> StoredFile:
        """`size_bytes` is told instead of the true one: so nobody has to send what is too large."""
        number = next(self._numbers)
        digest = hashlib.sha256(content).hexdigest()[:12]
        ending = name.rpartition(".")[2] if "." in name else "bin"
        stored = StoredFile(
            id=f"BQAC{number:08d}{digest}",
            unique_id=f"AgAD{digest}{number:04d}",
            path=f"{folder}/file_{number}.{ending}",
            name=name,
            mime_type=mime_type,
            size_bytes=len(content) if size_bytes is None else size_bytes,
            content=content,
        )
        self._by_id[stored.id] = self._by_path[stored.path] = stored
        return stored

    def by_id(self, id: str) -> StoredFile:
        """Raises TelegramRefusal for an id that was never given."""
        if id not in self._by_id:
            raise bad_request("invalid file_id")
        return self._by_id[id]

    def by_path(self, path: str) -> StoredFile | None:
        return self._by_path.get(path)


def image_size(content: bytes) -> tuple[int, int]:
    """Width and height of a PNG, GIF or JPEG. Raises TelegramRefusal for anything else."""
    try:
        if content.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height = struct.unpack(">II", content[16:24])
            return width, height
        if content[:6] in (b"GIF87a", b"GIF89a"):
            width, height = struct.unpack("<HH", content[6:10])
            return width, height
        if content.startswith(b"\xff\xd8"):
            return _jpeg_size(content)
    except (struct.error, IndexError):
        pass
    raise bad_request("IMAGE_PROCESS_FAILED")


def _jpeg_size(content: bytes) -> tuple[int, int]:
    place = 2
    while content[place] == 0xFF:
        marker, length = content[place + 1], struct.unpack(">H", content[place + 2 : place + 4])[0]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", content[place + 5 : place + 9])
            return width, height
        place += 2 + length
    raise IndexError(place)
