"""The source files of a local folder."""

import os
from pathlib import Path

from runtime.index.chunk import FILE_BYTES_MAX
from tests.bench.index_eval.archive import is_source

_MADE = {"node_modules", "vendor", "third_party", "dist", "build", "target", "out", "cjs", "esm", "umd", "venv"}
"""Folders of copies, made from source or taken from elsewhere."""


def read_folder(folder: Path) -> dict[str, bytes]:
    """Path below `folder` -> content, by path, without hidden folders and links."""
    found: dict[str, bytes] = {}
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _MADE and not name.startswith(".")]
        for path in (Path(here) / name for name in names if is_source(name)):
            if path.is_file() and not path.is_symlink() and path.stat().st_size <= FILE_BYTES_MAX:
                found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return dict(sorted(found.items()))
