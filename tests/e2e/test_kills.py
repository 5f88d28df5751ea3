"""kill -9 of the whole process tree at moments of one build, each time followed by `masterbuilder up`.

That a build survives a crash at any of its appends is `test_build_in_process.py`'s; here the processes are real.
"""

import json
from collections.abc import Callable

from cluster.simulator.scenario import SCENARIOS
from cluster.wire import Event
from tests.chaos import verdict
from tests.e2e.live import Live

SCENARIO = SCENARIOS / "expense_tracker"


def started(task: str) -> Callable[[Event], bool]:
    return lambda event: event.type == "task.started" and event.data["task"] == task


MOMENTS: tuple[tuple[str, Callable[[Event], bool]], ...] = (
    ("while it plans", lambda event: event.type == "project.confirmed"),
    ("while four tasks run", started("T-008")),
    ("while the README is proved", lambda event: event.data.get("status") == "readme_generation"),
)


def test_kill_of_everything__costs_no_work_and_no_credit(live: Live) -> None:
    provider = live.start_simulator(latency_ms=100)
    assert live.run("up", **provider).returncode == 0
    before = live.client.me().balance_ucredits
    ordered = live.run(
        "build",
        str(SCENARIO / "brief.md"),
        "--answers",
        str(SCENARIO / "answers.yaml"),
        "--yes",
        "--no-follow",
        "--json",
    )
    assert ordered.returncode == 0, ordered.stderr
    project = json.loads(ordered.stdout)["id"]

    seen = 0
    for moment, reached in MOMENTS:
        seen = follow_until(live, project, seen, reached)
        assert live.kill_everything() > 5, moment
        assert live.left_of_service() == [], moment
        again = live.run("up")
        assert again.returncode == 0, f"{moment}: {again.stderr}"
    follow_until(live, project, seen, lambda event: event.type == "project.finished")

    view = live.client.project(project)
    assert view.status == "completed", view.failure_reason
    receipt = live.client.receipt(project)
    assert list(verdict.calls([receipt], live.usage_file)) == []
    assert before - live.client.me().balance_ucredits == receipt.total_ucredits
    assert live.client.me().held_ucredits == 0
    assert all(task.state == "done" for task in view.tasks)


def follow_until(live: Live, project: str, after: int, reached: Callable[[Event], bool]) -> int:
    """The number of the first event, from `after` on, at which the moment is reached."""
    for event in live.client.events(project, after):
        if reached(event):
            return event.seq
        assert event.type != "project.finished", event.data
    raise AssertionError("the events ended before the moment came")
