"""What a person sees: words, exit status, and never a traceback."""

import hashlib
import json
from pathlib import Path

import pytest
from fake_door import PROJECT, FakeDoor, Run, error_answer, event, json_answer, stream_answer

from cluster import client
from cluster.ports import free_ports

DONE = {**PROJECT, "status": "completed", "tasks_done": 12, "last_seq": 3}


@pytest.mark.parametrize(
    ("code", "http_status", "exit_status"),
    [
        ("bad_input", 400, 2),
        ("too_large", 413, 2),
        ("not_authenticated", 401, 3),
        ("forbidden", 403, 3),
        ("conflict", 409, 3),
        ("not_enough_credits", 402, 3),
        ("unpriced_model", 422, 3),
        ("something_new", 418, 3),
        ("no_provider", 503, 4),
        ("provider_error", 502, 4),
        ("something_new", 500, 4),
    ],
)
def test_error_of_the_service__is_told_with_cost_next_step_and_request_id(
    run: Run, door: FakeDoor, code: str, http_status: int, exit_status: int
) -> None:
    door.routes["POST /api/v1/projects"] = error_answer(code, http_status, "It went wrong.", "Do this.")
    result = run("build", "a tiny app")
    assert result.exit_code == exit_status
    assert result.stderr.splitlines() == [
        "error: It went wrong. Nothing was charged.",
        "next: Do this.",
        "Request id: req-7",
    ]


def test_unknown_project__names_the_command_that_lists_them(run: Run, door: FakeDoor) -> None:
    door.routes["GET /api/v1/projects/p9"] = error_answer("not_found", 404, "No such project.", "GET /api/v1/projects")
    result = run("logs", "p9")
    assert result.exit_code == 3
    assert "masterbuilder projects" in result.stderr


def test_service_that_is_down__names_the_command_that_starts_it(run: Run) -> None:
    result = run("projects", MASTERBUILDER_URL=f"http://127.0.0.1:{free_ports(1)[0]}")
    assert result.exit_code == 4
    assert "masterbuilder up" in result.stderr
    assert "Traceback" not in result.output + result.stderr


def test_service_that_is_something_else__is_said_to_be(run: Run, door: FakeDoor) -> None:
    door.routes["GET /api/v1/projects"] = (200, {}, b"<html>hello</html>")
    result = run("projects")
    assert result.exit_code == 4
    assert "MASTERBUILDER_URL" in result.stderr


@pytest.mark.parametrize("brief", ["", "   \n\t "])
def test_empty_brief__is_refused_before_anything_is_sent(run: Run, door: FakeDoor, brief: str) -> None:
    result = run("build", "-", stdin=brief)
    assert result.exit_code == 2
    assert "empty" in result.stderr
    assert door.asked == []


def test_brief_that_names_a_missing_file__is_not_taken_for_text(run: Run, door: FakeDoor) -> None:
    result = run("build", "briefs/tracker.md")
    assert result.exit_code == 2
    assert "briefs/tracker.md" in result.stderr
    assert door.asked == []


def test_brief_that_is_no_text__is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "brief.md").write_bytes(b"\xff\xfe\x00\x80")
    result = run("build", "brief.md")
    assert result.exit_code == 2
    assert "UTF-8" in result.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("audience: [unclosed", "not YAML"),
        ("just a sentence", "does not hold answers"),
        ("colour: blue", "colour"),
        ("audience: {a: b}", "audience"),
    ],
)
def test_answers_file_that_cannot_be_used__says_why(
    run: Run, door: FakeDoor, tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "answers.yaml").write_text(text)
    result = run("build", "an app", "--answers", "answers.yaml")
    assert result.exit_code == 2
    assert words in result.stderr
    assert door.asked == []


@pytest.mark.parametrize("amount", ["many", "0", "-3", "NaN"])
def test_max_credits_that_is_no_amount__is_refused(run: Run, door: FakeDoor, amount: str) -> None:
    result = run("build", "an app", f"--max-credits={amount}")
    assert result.exit_code == 2
    assert door.asked == []


def test_setting_that_is_not_usable__is_named(run: Run) -> None:
    result = run("up", HTTP_PORT="eighty")
    assert result.exit_code == 2
    assert "HTTP_PORT" in result.stderr


def test_build__sends_brief_answers_and_agreement_and_follows_to_the_end(
    run: Run, door: FakeDoor, tmp_path: Path
) -> None:
    (tmp_path / "answers.yaml").write_text("audience: two people\nperformance: 3000\nfeatures: [a, b]\n")
    door.says("POST /api/v1/projects", PROJECT, 202)
    door.routes["GET /api/v1/projects/p1/events"] = stream_answer(
        [
            event(1, "plan.ready", title="Tracker", requirements=2, tasks=[task("T-001")]),
            event(
                2, "task.merged", task="T-001", attempt=1, commit="abcdef0123", done=1, total=1, spent_ucredits=10**6
            ),
            event(3, "project.finished", status="completed", reason="", spent_ucredits=10**6),
        ],
        ended=True,
    )
    door.says("GET /api/v1/projects/p1", DONE)
    result = run("build", "-", "--answers", "answers.yaml", "--yes", "--max-credits", "25", stdin="an app")
    assert result.exit_code == 0, result.stderr
    route, _, body, bearer = door.asked[0]
    assert (route, bearer) == ("POST /api/v1/projects", "mb-test")
    assert body == {
        "brief": "an app",
        "answers": {"audience": "two people", "performance": "3000", "features": "a; b"},
        "confirm": True,
        "max_credits": "25",
    }
    assert "T-001 Store" in result.output
    assert "completed" in result.output
    assert "masterbuilder package p1" in result.output


def test_build_that_failed__exits_1_with_the_reason(run: Run, door: FakeDoor) -> None:
    door.says("POST /api/v1/projects", PROJECT, 202)
    door.routes["GET /api/v1/projects/p1/events"] = stream_answer(
        [event(9, "project.finished", status="failed", reason="R-02 is unmet", spent_ucredits=0)], ended=True
    )
    door.says("GET /api/v1/projects/p1", {**PROJECT, "status": "failed", "failure_reason": "R-02 is unmet"})
    result = run("build", "an app")
    assert result.exit_code == 1
    assert "R-02 is unmet" in result.output


def test_question_without_a_terminal__is_shown_with_how_to_answer_it(run: Run, door: FakeDoor) -> None:
    door.says("POST /api/v1/projects", PROJECT, 202)
    door.routes["GET /api/v1/projects/p1/events"] = stream_answer(
        [event(2, "project.question", topic="audience", text="Who will use it?")], ended=False
    )
    door.says("GET /api/v1/projects/p1", {**PROJECT, "status": "clarifying", "question": "Who will use it?"})
    result = run("build", "an app")
    assert result.exit_code == 0
    assert "Who will use it?" in result.output
    assert "masterbuilder answer p1 TEXT" in result.output


def test_person_at_a_terminal__is_asked_the_question_and_for_the_yes(
    run: Run, door: FakeDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.terminal.Terminal.interactive", lambda self: True)
    quoted = event(4, "project.quoted", summary="An app", quote_ucredits=10**6, ceiling_ucredits=2 * 10**6)
    streams = {
        1: stream_answer([event(2, "project.question", topic="audience", text="Who?")], ended=False),
        2: stream_answer([quoted], ended=False),
        3: stream_answer([event(9, "project.finished", status="completed", spent_ucredits=10**6)], ended=True),
    }
    views = {
        1: {**PROJECT, "status": "clarifying", "question": "Who?"},
        2: {**PROJECT, "status": "confirming_scope"},
        3: DONE,
    }
    door.says("POST /api/v1/projects", PROJECT, 202)
    door.routes["GET /api/v1/projects/p1/events"] = lambda count: streams[count]
    door.routes["GET /api/v1/projects/p1"] = lambda count: json_answer(views[count])
    door.says("POST /api/v1/projects/p1/answers", PROJECT)
    door.says("POST /api/v1/projects/p1/confirm", PROJECT)
    result = run("build", "an app", stdin="two people\ny\n")
    assert result.exit_code == 0, result.stderr
    said = {route: body for route, _, body, _ in door.asked if route.startswith("POST")}
    assert said["POST /api/v1/projects/p1/answers"] == {"text": "two people"}
    assert said["POST /api/v1/projects/p1/confirm"] == {"accept": True}


def test_quote_above_what_was_agreed__is_not_built(run: Run, door: FakeDoor) -> None:
    door.says("POST /api/v1/projects", PROJECT, 202)
    quoted = event(2, "project.quoted", summary="An app", quote_ucredits=20 * 10**6, ceiling_ucredits=30 * 10**6)
    door.routes["GET /api/v1/projects/p1/events"] = stream_answer([quoted], ended=False)
    door.says("GET /api/v1/projects/p1", {**PROJECT, "status": "confirming_scope"})
    result = run("build", "an app", "--yes", "--max-credits", "10")
    assert result.exit_code == 3
    assert "20.00 credits" in result.output
    assert "masterbuilder confirm p1" in result.output


@pytest.mark.parametrize("status", ["paused", "paused_no_credits", "paused_quote"])
def test_paused_build__exits_3_and_says_how_to_go_on(run: Run, door: FakeDoor, status: str) -> None:
    door.says("POST /api/v1/projects", PROJECT, 202)
    paused = event(5, "project.status", status=status, text="The wallet is empty.")
    door.routes["GET /api/v1/projects/p1/events"] = stream_answer([paused], ended=False)
    door.says("GET /api/v1/projects/p1", {**PROJECT, "status": status})
    result = run("build", "an app", "--yes")
    assert result.exit_code == 3
    assert "masterbuilder resume p1" in result.output
    assert ("--max-credits" in result.output) == (status == "paused_quote"), "a higher ceiling helps no other pause"


def test_no_follow__answers_at_once(run: Run, door: FakeDoor) -> None:
    door.says("POST /api/v1/projects", PROJECT, 202)
    door.says("GET /api/v1/projects/p1", PROJECT)
    result = run("build", "an app", "--yes", "--no-follow")
    assert result.exit_code == 0
    assert "masterbuilder logs p1 --follow" in result.output


def test_json__is_json_alone(run: Run, door: FakeDoor) -> None:
    door.says("GET /api/v1/projects", {"projects": [{**PROJECT, "colour": "kept"}]})
    result = run("projects", "--json")
    assert json.loads(result.stdout)[0]["colour"] == "kept"


@pytest.mark.parametrize(
    ("arguments", "route", "body"),
    [
        (("answer", "p1", "students"), "answers", {"text": "students"}),
        (("confirm", "p1"), "confirm", {"accept": True}),
        (("confirm", "p1", "--change", "no web"), "confirm", {"accept": False, "change": "no web"}),
        (("pause", "p1"), "pause", {}),
        (("resume", "p1", "--max-credits", "50"), "resume", {"max_credits": "50"}),
        (("change", "p1", "rounder"), "change", {"text": "rounder"}),
        (("retry", "p1", "T-004"), "retry", {"task": "T-004"}),
        (
            ("skip", "p1", "T-004", "--reason", "late", "--with-dependents"),
            "skip",
            {"task": "T-004", "reason": "late", "with_dependents": True},
        ),
        (("approve", "p1"), "approve", {"about": ""}),
        (("reject", "p1", "smaller", "--about", "plan/1"), "reject", {"about": "plan/1", "text": "smaller"}),
        (("rewind", "p1", "--phase", "2"), "rewind", {"phase": 2}),
    ],
)
def test_command_to_a_project__says_it_to_the_service(
    run: Run, door: FakeDoor, arguments: tuple[str, ...], route: str, body: dict[str, object]
) -> None:
    door.says(f"POST /api/v1/projects/p1/{route}", PROJECT)
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    assert door.asked[0][2] == body


def test_feedback__says_score_and_text_to_the_service(run: Run, door: FakeDoor) -> None:
    door.says("POST /api/v1/projects/p1/feedback", {"project": "p1", "score": 4, "text": "neat"})
    result = run("feedback", "p1", "4", "--text", "neat")
    assert (result.exit_code, result.stdout) == (0, "p1: 4 of 5. Thank you.\n")
    assert door.asked[0][2] == {"score": 4, "text": "neat"}
    assert run("feedback", "p1", "6").exit_code == 2


def test_last__is_the_newest_project(run: Run, door: FakeDoor) -> None:
    door.says("GET /api/v1/projects", {"projects": [PROJECT, {**PROJECT, "id": "p0"}]})
    door.says("GET /api/v1/projects/p1", PROJECT)
    door.says("POST /api/v1/projects/p1/cancel", {**PROJECT, "status": "cancelled"})
    assert run("cancel", "last", "--yes").exit_code == 0


def test_cancel__asks_first_and_says_what_was_charged(run: Run, door: FakeDoor) -> None:
    door.says("GET /api/v1/projects/p1", PROJECT)
    door.says("POST /api/v1/projects/p1/cancel", {**PROJECT, "status": "cancelled"})
    refused = run("cancel", "p1")
    assert refused.exit_code == 2
    assert "p1 for ever. 1.50 credits were charged and stay charged." in refused.stderr
    assert "Nothing was charged" not in refused.stderr
    assert [route for route, *_ in door.asked] == ["GET /api/v1/projects/p1"]
    done = run("cancel", "p1", "--yes")
    assert (done.exit_code, "1.50 credits were charged and stay charged. Nothing more" in done.stdout) == (0, True)


@pytest.mark.parametrize(
    ("spent_ucredits", "said"),
    [(0, "Nothing was charged."), (2_100, "Less than 0.01 credits were charged and stay charged.")],
)
def test_cancel__says_what_little_was_charged_and_once(
    run: Run, door: FakeDoor, spent_ucredits: int, said: str
) -> None:
    little = {**PROJECT, "spent_credits": "0.00", "spent_ucredits": spent_ucredits}
    door.says("GET /api/v1/projects/p1", little)
    door.says("POST /api/v1/projects/p1/cancel", {**little, "status": "cancelled"})
    refused, done = run("cancel", "p1").stderr, run("cancel", "p1", "--yes").stdout
    assert said in refused
    assert said in done
    assert "charged" not in (refused + done).replace(said, "")


@pytest.mark.parametrize(
    ("arguments", "old"), [(("approve", "p1"), "awaiting_approval"), (("confirm", "p1"), "confirming_scope")]
)
def test_approve__prints_the_status_after_it(
    run: Run, door: FakeDoor, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], old: str
) -> None:
    monkeypatch.setattr(client, "_LOOK_AGAIN_S", 0.0)
    door.says(f"POST /api/v1/projects/p1/{arguments[0]}", {**PROJECT, "status": old})
    door.routes["GET /api/v1/projects/p1"] = lambda count: json_answer(
        {**PROJECT, "status": old if count < 3 else "implementing"}
    )
    assert run(*arguments).stdout == "p1: implementing\n"
    door.says("GET /api/v1/projects/p1", {**PROJECT, "status": old})
    assert run(*arguments).stdout.startswith(f"p1: {old.replace('_', ' ')}"), "it does not wait for ever"
    asks = {**PROJECT, "status": old, "asks": "phase/2/1", "question": "Go on?"}
    door.says(f"POST /api/v1/projects/p1/{arguments[0]}", asks)
    assert "asks: Go on?" in run(*arguments).stdout, "there is something new to answer"


def test_status_of_a_project__tells_what_each_worker_does_and_what_it_cost(run: Run, door: FakeDoor) -> None:
    doing = {"task": "T-004", "attempt": 2, "what": "waiting: openai is down", "for_s": 7, "retry_in_s": 4}
    now = {"phases": ["Sums"], "phase": 1, "activity": [doing], "possible": ["pause", "cancel"]}
    door.says("GET /api/v1/projects/p1", {**PROJECT, **now})
    told = run("status", "p1").stdout
    assert "T-004 (attempt 2): waiting: openai is down for 7 s, retry in 4 s" in told
    assert "1.50 of 20.00 quoted; work stops at 30.00" in told
    assert "pause, cancel" in told


def test_last__without_any_project_says_so(run: Run, door: FakeDoor) -> None:
    door.says("GET /api/v1/projects", {"projects": []})
    result = run("receipt", "last")
    assert result.exit_code == 3
    assert "no project yet" in result.output


def test_package__is_written_whole(run: Run, door: FakeDoor, tmp_path: Path) -> None:
    data = b"PK\x03\x04 zip"
    digest = hashlib.sha256(data).hexdigest()
    door.routes["GET /api/v1/projects/p1/package"] = (200, {"x-sha256": digest, "Content-Length": "8"}, data)
    result = run("package", "p1", "-o", "out.zip")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "out.zip").read_bytes() == data


def test_package_that_arrives_damaged__is_not_written(run: Run, door: FakeDoor, tmp_path: Path) -> None:
    door.routes["GET /api/v1/projects/p1/package"] = (200, {"x-sha256": "0" * 64, "Content-Length": "3"}, b"PK.")
    result = run("package", "p1", "-o", "out.zip")
    assert result.exit_code == 4
    assert list(tmp_path.glob("*.zip")) == []


def test_package__as_a_repository_or_as_a_link(run: Run, door: FakeDoor, tmp_path: Path) -> None:
    door.routes["GET /api/v1/projects/p1/repository"] = (200, {"Content-Length": "6"}, b"bundle")
    door.routes["GET /api/v1/projects/p1/package"] = (200, {"Content-Length": "2"}, b"PK")
    door.says("GET /api/v1/projects/p1", PROJECT)
    result = run("package", "p1", "--unfinished")
    assert (result.output, door.asked[-1][1]) == ("p1-unfinished.zip (2 bytes)\n", "unfinished=true")
    result = run("package", "p1", "--git")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "p1.bundle").read_bytes() == b"bundle"
    assert "git clone -b main p1.bundle" in result.output
    link = {"url": "http://x/d", "expires_at": "2026-11-29T12:00:00+00:00", "sha256": "ab", "size_bytes": 3}
    door.says("POST /api/v1/projects/p1/link", link, 201)
    assert run("package", "p1", "--link").output == "http://x/d\nexpires 2026-11-29T12:00:00+00:00\n"
    assert json.loads(run("package", "p1", "--link", "--json").output) == link
    assert run("package", "p1", "--link", "--git").exit_code == 2


def test_finished_build__is_announced_with_cost_balance_and_checksum(run: Run, door: FakeDoor) -> None:
    package = {"sha256": "ab" * 32, "size_bytes": 20_480, "file_count": 31}
    gap = {"task": "T-007", "reason": "its test\nstays red"}
    done = {**DONE, "spent_credits": "63.20", "package": package, "known_gaps": [gap]}
    door.says("POST /api/v1/projects", PROJECT, 202)
    door.routes["GET /api/v1/projects/p1/events"] = stream_answer(
        [event(3, "project.finished", status="completed", reason="", spent_ucredits=63_200_000)], ended=True
    )
    door.says("GET /api/v1/projects/p1", done)
    me = {"balance_credits": "36.80", "held_credits": "0.00", "balance_ucredits": 36_800_000, "held_ucredits": 0}
    door.says("GET /api/v1/me", {"user": "ann", **me})
    result = run("build", "an app")
    assert result.exit_code == 0, result.stderr
    assert "31 files, 20.5 kB" in result.output
    assert "SHA-256 " + "ab" * 32 in result.output
    assert "It cost 63.20 credits; 36.80 credits are left." in result.output
    assert "Not in it: T-007: its test stays red (given back)" in result.output
    assert "masterbuilder feedback p1 SCORE" in result.output


def test_project_id_that_is_a_path__reaches_no_other_route(run: Run, door: FakeDoor) -> None:
    result = run("receipt", "../me")
    assert result.exit_code == 3
    assert door.asked == []


def test_logs__of_a_running_project_end_where_it_stands(run: Run, door: FakeDoor) -> None:
    door.says("GET /api/v1/projects/p1", {**PROJECT, "last_seq": 2})
    events = [event(1, "project.confirmed"), event(2, "project.notice", text="A key was limited.")]
    door.routes["GET /api/v1/projects/p1/events"] = stream_answer(events, ended=False)
    result = run("logs", "p1", "--json")
    assert result.exit_code == 0
    assert [json.loads(line)["seq"] for line in result.stdout.splitlines()] == [1, 2]


def test_status__of_nothing_running_exits_4(run: Run) -> None:
    result = run("status", "--json", MASTERBUILDER_URL=f"http://127.0.0.1:{free_ports(1)[0]}")
    assert result.exit_code == 4
    assert json.loads(result.stdout)["running"] is False


def test_down__of_nothing_running_is_fine(run: Run) -> None:
    result = run("down")
    assert result.exit_code == 0
    assert "not running" in result.output


def test_schemas__are_json_and_one_can_be_asked_for(run: Run) -> None:
    everything = json.loads(run("schemas").stdout)
    assert "plan.todo" in everything
    assert json.loads(run("schemas", "plan.todo").stdout) == everything["plan.todo"]
    assert run("schemas", "plan.lunch").exit_code == 2


def test_unforeseen_error__is_two_lines_and_no_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.client.Client.projects", lambda self: 1 / 0)
    result = run("projects")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 2
    assert "ZeroDivisionError" in result.stderr


def test_client__makes_no_data_folder(run: Run, door: FakeDoor, tmp_path: Path) -> None:
    door.routes["GET /api/v1/projects"] = json_answer({"projects": []})
    assert run("projects", MASTERBUILDER_TOKEN="").exit_code == 0
    assert not (tmp_path / "data").exists()


def task(name: str) -> dict[str, object]:
    return {"id": name, "title": "Store", "phase": "Phase 1", "depends": []}
