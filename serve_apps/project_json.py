"""A project as HTTP shows it."""

from typing import Any

from runtime.entity.journal import Head
from runtime.ledger.money import credits_text, usd_text
from runtime.ledger.port import Receipt
from runtime.project.messages import ProjectView


def project_json(view: ProjectView) -> dict[str, Any]:
    package = view.package and {
        "sha256": view.package.sha256,
        "size_bytes": view.package.size_bytes,
        "file_count": view.package.file_count,
        "url": f"/api/v1/projects/{view.id}/package",
    }
    return {
        "id": view.id,
        "title": view.title,
        "status": view.status.value,
        "question": view.question,
        "scope": view.scope,
        "quote_credits": _credits(view.quote_ucredits),
        "ceiling_credits": _credits(view.ceiling_ucredits),
        "spent_credits": credits_text(view.spent_ucredits),
        "spent_ucredits": view.spent_ucredits,
        "spent_usd": usd_text(view.spent_pusd),
        "spent_pusd": view.spent_pusd,
        "tasks": [
            {"id": task.id, "title": task.title, "phase": task.phase, "state": task.state, "attempts": task.attempts}
            for task in view.tasks
        ],
        "tasks_done": sum(task.state == "done" for task in view.tasks),
        "tasks_total": sum(task.state != "struck" for task in view.tasks),
        "current_todo_markdown": view.current_todo_markdown,
        "codebase_index_status": view.index_status,
        "known_gaps": [{"task": task, "reason": reason} for task, reason in view.known_gaps.items()],
        "failure_reason": view.failure_reason,
        "package": package,
        "repository_url": f"/api/v1/projects/{view.id}/repository" if view.bundle else None,
        "created_at": view.created_at.isoformat(),
        "updated_at": view.updated_at.isoformat(),
        "completed_at": view.completed_at.isoformat() if view.completed_at else None,
        "last_seq": view.last_seq,
    }


def set_aside_json(head: Head, receipt: Receipt, why: str) -> dict[str, Any]:
    """A project in quarantine: what is known without asking it. What is not known is left out."""
    return {
        "id": receipt.project,
        "title": str(head.data.get("title", "")),
        "status": "quarantined",
        "spent_credits": credits_text(receipt.net_ucredits),
        "spent_ucredits": receipt.net_ucredits,
        "spent_usd": usd_text(receipt.total_cost_pusd),
        "spent_pusd": receipt.total_cost_pusd,
        "failure_reason": why,
        "updated_at": head.updated_at.isoformat(),
        "last_seq": head.last_seq,
    }


def _credits(ucredits: int | None) -> str | None:
    return None if ucredits is None else credits_text(ucredits)
