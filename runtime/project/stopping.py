"""What a project that was stopped leaves behind: the tree as it was merged so far, and what it cost."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from runtime.ledger.port import Ledger
from runtime.ledger.receipt import receipt_text
from runtime.project.package import pack
from runtime.project.repository import ProjectRepository
from runtime.project.state import State

RECEIPT = "RECEIPT.txt"


async def pack_what_exists(state: State, ledger: Ledger) -> dict[str, Any] | None:
    """The fields of its `package.ready`: main with `TODO.md` as it stands, and the receipt. None before a commit.

    Raises UnavailableError where the store or the disk fails.
    """
    if state.bundle is None:
        return None
    bundle = await ledger.get_blob(state.bundle)
    receipt = receipt_text(await ledger.receipt(state.id))
    files = await asyncio.to_thread(_files_of, bundle)
    if state.todo is not None:
        files["TODO.md"] = state.todo.render(state.title).encode()
    packed = await asyncio.to_thread(pack, {**files, RECEIPT: receipt.encode()})
    return {**packed.fields(await ledger.put_blob(packed.data)), "partial": True}


def _files_of(bundle: bytes) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory(prefix="mb-stopped-") as folder:
        return ProjectRepository.from_bundle(Path(folder) / "main", bundle, writes_files=False).contents()
