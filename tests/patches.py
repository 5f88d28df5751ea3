"""Changes as implementers hand them over."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from runtime.project.repository import patch_between
from runtime.project.tree import Tree


def patch_of(tree: Tree, files: Mapping[str, str | bytes | None]) -> bytes:
    """From a tree to what it is with these files written (None: removed)."""
    after = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
    with tempfile.TemporaryDirectory() as folder:
        return patch_between(Path(folder), {path: tree[path] for path in after if path in tree}, after)
