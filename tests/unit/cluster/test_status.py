"""One screen: what an operator sees, whatever is silent, and what changes from one second to the next."""

import io
import json
from dataclasses import replace
from typing import Any

import pytest
from fake_door import FakeDoor, Run, error_answer, json_answer
from rich.console import Console

from cluster import status_screen
from cluster.client import Client
from cluster.instance import Instance
from cluster.status import ServiceStatus, take
from cluster.wire import AdminStatus

HEALTH = {"status": "ok", "ledger": "ok", "provider": "openai", "version": "0.1.0"}
ME = {"user": "a", "balance_credits": "94.50", "held_credits": "1.50", "balance_ucredits": 1, "held_ucredits": 1}
BROKEN = "project:6f1c0a52-1111-4111-8111-111111111111"


def test_status__shows_every_part_on_one_screen(run: Run, door: FakeDoor) -> None:
    says(door, parts())
    result = run("status")
    assert result.exit_code == 0, result.stderr
    for told in (
        "entities-0",
        "10,000",
        "312 MiB",
        "123,456 events",
        "commit p50 4.1 ms",
        "12.0 MiB of log",
        "1 stale append refused",
        "2, 1 busy, 5 tasks queued",
        "openai (3 keys, 1 cooling, 2 calls waiting)",
        "7, 2 not finished",
        "94.50 credits, 1.50 held",
        "since 2026-11-21 12:00:00, 3 failures: KeyError: 'x'",
        f"masterbuilder pardon {BROKEN}",
    ):
        assert told in result.stdout, told


def test_status_as_json__keeps_what_it_had_and_adds_the_parts(run: Run, door: FakeDoor) -> None:
    says(door, parts())
    facts = json.loads(run("status", "--json").stdout)
    assert (facts["running"], facts["projects"], facts["active_projects"]) == (True, 7, 2)
    assert (facts["balance_credits"], facts["provider"]) == ("94.50", "openai")
    assert facts["hosts"][0]["partitions"] == 1024
    assert facts["hosts"][0]["quarantined"][0]["entity"] == BROKEN
    assert (facts["store"]["refused_stale"], facts["key_pools"][0]["waiting"]) == (1, 2)
    assert (facts["implementers"]["queued"], facts["moving"], facts["silent"]) == (5, 3, [])


def test_silent_parts__are_named_and_the_rest_is_shown(run: Run, door: FakeDoor) -> None:
    says(door, {**parts(), "store": None, "implementers": None, "projects": None, "silent": ["implementers"]})
    door.says("GET /health", {**HEALTH, "status": "degraded", "ledger": "The ledger is restarting."}, 503)
    result = run("status")
    assert result.exit_code == 4
    assert "ledger, implementers" in result.stdout
    assert "The ledger is restarting." in result.stdout
    assert "entities-0" in result.stdout
    assert "GET /api/v1/me" not in [route for route, *_ in door.asked]


def test_silent_ledger__is_not_waited_for_again(run: Run, door: FakeDoor) -> None:
    says(door, {**parts(), "store": None, "projects": None, "silent": ["ledger", "projects"]})
    result = run("status")
    assert result.exit_code == 4
    assert "ledger, projects" in result.stdout
    assert "openai (3 keys" in result.stdout
    assert [route for route, *_ in door.asked] == ["GET /api/v1/admin/status"]


def test_service_without_a_good_token__is_seen_to_run(run: Run, door: FakeDoor) -> None:
    door.says("GET /health", HEALTH)
    for route in ("admin/status", "projects", "me"):
        door.routes[f"GET /api/v1/{route}"] = error_answer("not_authenticated", 401, "This needs a valid token.")
    facts = json.loads(run("status", "--json").stdout)
    assert (facts["running"], facts["provider"]) == (True, "openai")
    assert "valid token" in facts["detail"]


def test_service_without_this_route__is_still_shown(run: Run, door: FakeDoor) -> None:
    says(door, parts())
    door.routes["GET /api/v1/admin/status"] = error_answer("not_found", 404, "There is nothing at this address.")
    door.says("GET /api/v1/projects", {"projects": []})
    facts = json.loads(run("status", "--json").stdout)
    assert (facts["running"], facts["projects"], facts["hosts"]) == (True, 0, None)
    assert facts["balance_credits"] == "94.50"


def test_parts_that_do_not_answer__leave_the_wallet_and_say_why(run: Run, door: FakeDoor) -> None:
    says(door, parts())
    door.routes["GET /api/v1/admin/status"] = error_answer("unavailable", 503, "No part answered in time.", "Wait.")
    result = run("status")
    assert result.exit_code == 0
    assert "No part answered in time." in result.stdout
    assert "94.50 credits" in result.stdout


def test_watch_and_json__exclude_each_other(run: Run, door: FakeDoor) -> None:
    result = run("status", "--watch", "--json")
    assert result.exit_code == 2
    assert door.asked == []


def test_watch__refreshes_with_rates_until_ctrl_c(now: ServiceStatus) -> None:
    later = replace(now, at_s=now.at_s + 2.0, parts=AdminStatus.model_validate(parts(turns=10_500, writes=5_400)))
    statuses = [now, later]
    console = terminal(100, 30)
    last = status_screen.watch(console, lambda: statuses.pop(0), pause=ends_after(2))
    assert last == later
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert "250" in told.rsplit("entities-0", 1)[1]
    assert "200 writes/s" in told
    assert "writes/s" not in told.split("quarantine", 1)[0]


def test_rates__of_a_restarted_host_and_ledger_wait_for_the_next_look(now: ServiceStatus) -> None:
    fresh = parts(turns=3, writes=1)
    fresh["hosts"][0]["incarnation"] = "i2"
    fresh["store"]["pid"] = 99
    later = replace(now, at_s=now.at_s + 1.0, parts=AdminStatus.model_validate(fresh))
    told = drawn(status_screen.screen(later, now, 30))
    assert "writes/s" not in told
    assert "-9," not in told


def test_screen__fits_100_by_30_however_much_there_is(now: ServiceStatus) -> None:
    many = parts()
    many["hosts"] = [
        {**many["hosts"][0], "name": f"entities-{number:02}", "incarnation": f"i{number}"} for number in range(40)
    ]
    many["hosts"][0]["quarantined"] = [{**QUARANTINED, "error": "ValueError: " + "long " * 80}] * 30
    many["silent"] = ["key pool anthropic"]
    crowded = replace(now, parts=AdminStatus.model_validate(many), detail="It is crowded.", silent=("key pool x",))
    told = drawn(status_screen.screen(crowded, now, 30)).splitlines()
    assert len(told) < 30
    assert max(len(line) for line in told) <= 100
    assert any("all 40 hosts" in line and "400,000" in line for line in told)
    assert any("quarantine: 69, the newest 3" in line for line in told)


def test_status_in_a_file__leaves_nothing_out(now: ServiceStatus) -> None:
    many = parts()
    many["hosts"] = [{**many["hosts"][0], "name": f"entities-{number:02}"} for number in range(40)]
    console = Console(file=io.StringIO(), width=20)
    status_screen.show(console, replace(now, parts=AdminStatus.model_validate(many)))
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(f"entities-{number:02}" in told for number in range(40))
    assert told.count("masterbuilder pardon") == 40


@pytest.fixture
def now(door: FakeDoor, tmp_path: Any) -> ServiceStatus:
    says(door, parts())
    return take(Instance(data_dir=tmp_path), Client(door.url, "mb-test"))


def says(door: FakeDoor, status: dict[str, Any]) -> None:
    door.says("GET /health", HEALTH)
    door.says("GET /api/v1/me", ME)
    door.routes["GET /api/v1/admin/status"] = json_answer(status)


def parts(turns: int = 10_000, writes: int = 5_000) -> dict[str, Any]:
    return {
        "hosts": [
            {
                "name": "entities-0", "incarnation": "i1", "pid": 7, "node": "n1", "kinds": ["project", "user"],
                "partitions": 1024, "residents": 10_000, "working": 12, "queued": 4, "memory_bytes": 312 << 20,
                "turns": turns, "activations": 10, "passivations": 0, "failures": 3, "stale": 0,
                "quarantined": [QUARANTINED],
            }
        ],
        "map_version": 12,
        "moving": 3,
        "store": {
            "pid": 9, "entities": 10_004, "events": 123_456, "queued": 1, "groups": 10, "writes": writes,
            "refused_stale": 1, "commit_p50_ms": 4.1, "checkpoint_max_ms": 90.0, "database_bytes": 200 << 20,
            "log_bytes": 12 << 20,
        },
        "implementers": {"workers": 2, "busy": 1, "queued": 5},
        "key_pools": [{"provider": "openai", "keys": 3, "cooling": 1, "waiting": 2}],
        "silent": [],
        "projects": {"total": 7, "unfinished": 2},
    }  # fmt: skip


QUARANTINED = {"entity": BROKEN, "error": "KeyError: 'x'", "failures": 3, "since": "2026-11-21T12:00:00+00:00"}


def ends_after(times: int) -> Any:
    left = iter(range(times - 1))

    def pause(_: float) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    return pause


def terminal(width: int, height: int) -> Console:
    return Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)


def drawn(screen: Any) -> str:
    console = terminal(100, 30)
    console.print(screen)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]
