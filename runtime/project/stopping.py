"""What a project that is not finished has to give: the tree as it was merged so far, named for what it is."""

import asyncio
import tempfile
from collections.abc import Iterable
from pathlib import Path

from runtime.ledger.port import Ledger
from runtime.ledger.receipt import receipt_text
from runtime.project.messages import ProjectView, TaskView
from runtime.project.package import Package, pack
from runtime.project.repository import ProjectRepository

RECEIPT = "RECEIPT.txt"
UNFINISHED = "UNFINISHED.md"


async def pack_what_exists(view: ProjectView, why: str, ledger: Ledger) -> Package | None:
    """Main with `TODO.md` as it stands, the receipt, and what is missing. None before a commit.

    `why` is a sentence that says how the project stands. Raises UnavailableError where the store or the disk fails.
    """
    if view.bundle is None:
        return None
    bundle = await ledger.get_blob(view.bundle)
    receipt = receipt_text(await ledger.receipt(view.id))
    files = await asyncio.to_thread(_files_of, bundle)
    if view.current_todo_markdown is not None:
        files["TODO.md"] = view.current_todo_markdown.encode()
    told = unfinished_document(view, why)
    return await asyncio.to_thread(pack, {**files, RECEIPT: receipt.encode(), UNFINISHED: told.encode()})


def unfinished_document(view: ProjectView, why: str) -> str:
    """The text of `UNFINISHED.md`: why, what will not be built, and what is not built yet."""
    wanted = [task for task in view.tasks if task.state != "struck"]
    open_tasks = [task for task in wanted if task.state != "done"]
    gaps = [task for task in view.tasks if task.state == "struck"]
    known = {**view.known_gaps, **view.skipped}
    lines = [
        f"# Unfinished: {_one_line(view.title)}",
        "",
        f"This is not a finished project. {_one_line(why)}",
        "",
        f"{len(wanted) - len(open_tasks)} of {len(wanted)} tasks are in it. What is in it passed its checks when it "
        "was merged; the whole was not installed, tried out and reviewed as a delivery is.",
    ]
    if gaps:
        lines += ["", "## Known gaps", ""]
        lines += _task_lines((task, known.get(task.id, task.reason)) for task in gaps)
        lines += ["", f"Requirements that these tasks served: {', '.join(view.gaps) or 'none'}."]
    if open_tasks:
        lines += ["", "## Not built yet", "", *_task_lines((task, "") for task in open_tasks)]
    return "\n".join(lines) + "\n"


def _task_lines(tasks: Iterable[tuple[TaskView, str]]) -> list[str]:
    return [f"- {task.id} {_one_line(task.title)}{': ' if why else ''}{_one_line(why)}" for task, why in tasks]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _files_of(bundle: bytes) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory(prefix="mb-stopped-") as folder:
        return ProjectRepository.from_bundle(Path(folder) / "main", bundle, writes_files=False).contents()
