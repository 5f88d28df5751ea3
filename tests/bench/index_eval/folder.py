"""The source files of a local folder."""

import os
from pathlib import Path

from runtime.index.chunk import FILE_BYTES_MAX
from tests.bench.index_eval.archive import MADE_FOLDERS, is_source


def read_folder(folder: Path) -> dict[str, bytes]:
    """Path below `folder` -> content, by path, without hidden folders and links."""
    found: dict[str, bytes] = {}
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in MADE_FOLDERS and not name.startswith(".")]
        for path in (Path(here) / name for name in names if is_source(name)):
            if path.is_file() and not path.is_symlink() and path.stat().st_size <= FILE_BYTES_MAX:
                found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return dict(sorted(found.items()))
