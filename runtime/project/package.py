"""The ZIP a person receives."""

import hashlib
import io
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtime.ids import BlobId
from runtime.project.scanning import holds_secret

ROOT = "generated_project"

_LEFT_OUT_FOLDERS = frozenset(
    [
        ".git",
        ".code_index",
        "__pycache__",
        ".venv",
        "venv",
        "node_modules",
        ".npm",
        ".cache",
        ".tox",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
    ]
)
_SECRET_NAMES = re.compile(r"^(\.env(\..+)?|id_rsa.*|.*\.pem|.*\.key|credentials\.json)$")
_SAFE_NAMES = frozenset({".env.example", ".env.sample", ".env.template"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    data: bytes
    sha256: str
    file_count: int
    left_out: tuple[str, ...]
    """Tracked files that were not packed, because they look like secrets or caches."""

    def fields(self, blob: BlobId) -> dict[str, Any]:
        """What `package.ready` tells of it, where it is kept as `blob`."""
        return {
            "blob": blob,
            "sha256": self.sha256,
            "size_bytes": len(self.data),
            "file_count": self.file_count,
        }


def pack(files: Mapping[str, bytes]) -> Package:
    """The same files make the same bytes: sorted, one date, one mode."""
    kept = {path: data for path, data in files.items() if _may_leave(path, data)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(kept):
            entry = zipfile.ZipInfo(f"{ROOT}/{path}", date_time=(2000, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, kept[path])
    data = buffer.getvalue()
    return Package(
        data=data,
        sha256=hashlib.sha256(data).hexdigest(),
        file_count=len(kept),
        left_out=tuple(sorted(set(files) - set(kept))),
    )


def _may_leave(path: str, data: bytes) -> bool:
    *folders, name = path.split("/")
    if _LEFT_OUT_FOLDERS.intersection(folders) or name.endswith(".pyc"):
        return False
    if name not in _SAFE_NAMES and _SECRET_NAMES.match(name):
        return False
    return not holds_secret(data)
