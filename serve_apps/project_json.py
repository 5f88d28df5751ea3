"""A project as HTTP shows it."""

import math
from datetime import UTC, datetime
from typing import Any

from runtime.entity.journal import Head
from runtime.ids import ProjectId
from runtime.ledger.money import credits_text, usd_text
from runtime.ledger.port import Spent
from runtime.project.messages import ChangeView, Doing, ProjectView


def project_json(view: ProjectView) -> dict[str, Any]:
    package = view.package and {
        "sha256": view.package.sha256,
        "size_bytes": view.package.size_bytes,
        "file_count": view.package.file_count,
        "partial": view.package.partial,
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
            {
                "id": task.id,
                "title": task.title,
                "phase": task.phase,
                "state": task.state,
                "attempts": task.attempts,
                "reason": task.reason,
            }
            for task in view.tasks
        ],
        "tasks_done": sum(task.state == "done" for task in view.tasks),
        "tasks_total": sum(task.state != "struck" for task in view.tasks),
        "current_todo_markdown": view.current_todo_markdown,
        "codebase_index_status": view.index_status,
        "known_gaps": [
            {"task": task, "reason": reason, "refunded": task in view.known_gaps}
            for task, reason in {**view.known_gaps, **view.skipped}.items()
        ],
        "phase": view.phase,
        "phases": list(view.phases),
        "asks": view.asks,
        "possible": list(view.possible),
        "changes": [_change(each) for each in view.changes],
        "gaps": list(view.gaps),
        "activity": [doing_json(each) for each in view.activity],
        "failure_reason": view.failure_reason,
        "package": package,
        "repository_url": f"/api/v1/projects/{view.id}/repository" if view.bundle else None,
        "created_at": view.created_at.isoformat(),
        "updated_at": view.updated_at.isoformat(),
        "completed_at": view.completed_at.isoformat() if view.completed_at else None,
        "ended_at": view.ended_at.isoformat() if view.ended_at else None,
        "purge_at": view.purge_at.isoformat() if view.purge_at else None,
        "last_seq": view.last_seq,
    }


def progress_json(view: ProjectView) -> dict[str, Any]:
    """What is said between two events: how far it is, what each worker does, what it cost of what was quoted."""
    done = sum(task.state == "done" for task in view.tasks)
    total = sum(task.state != "struck" for task in view.tasks)
    return {
        "status": view.status.value,
        "phase": view.phase,
        "phase_title": view.phases[view.phase - 1] if view.phase else "",
        "done": done,
        "total": total,
        "activity": [doing_json(each) for each in view.activity],
        "waits_for": view.question,
        "spent_credits": credits_text(view.spent_ucredits),
        "spent_ucredits": view.spent_ucredits,
        "quote_credits": _credits(view.quote_ucredits),
        "ceiling_credits": _credits(view.ceiling_ucredits),
    }


def doing_json(doing: Doing) -> dict[str, Any]:
    """`for_s`: seconds since it began; `retry_in_s`: until what is waited for is tried again."""
    now = datetime.now(UTC)
    return {
        "task": doing.task,
        "attempt": doing.attempt,
        "what": doing.what,
        "since": doing.since.isoformat(),
        "for_s": max(0, int((now - doing.since).total_seconds())),
        "retry_in_s": None if doing.retry_at is None else max(0, math.ceil((doing.retry_at - now).total_seconds())),
    }


def _change(change: ChangeView) -> dict[str, Any]:
    return {
        "number": change.number,
        "text": change.text,
        "stage": change.stage,
        "title": change.title,
        "summary": change.summary,
        "tasks": list(change.tasks),
        "requirements": list(change.requirements),
        "quote_credits": credits_text(change.quote_ucredits),
        "rise_credits": credits_text(change.rise_ucredits),
    }


def set_aside_json(head: Head, project: ProjectId, spent: Spent, why: str) -> dict[str, Any]:
    """A project in quarantine: what is known without asking it. What is not known is left out."""
    return {
        "id": project,
        "title": str(head.data.get("title", "")),
        "status": "quarantined",
        "spent_credits": credits_text(spent.net_ucredits),
        "spent_ucredits": spent.net_ucredits,
        "spent_usd": usd_text(spent.total_cost_pusd),
        "spent_pusd": spent.total_cost_pusd,
        "failure_reason": why,
        "updated_at": head.updated_at.isoformat(),
        "last_seq": head.last_seq,
    }


def _credits(ucredits: int | None) -> str | None:
    return None if ucredits is None else credits_text(ucredits)
