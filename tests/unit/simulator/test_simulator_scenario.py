import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.simulator.asked import Asked
from cluster.simulator.scenario import SCENARIOS, Library, Scenario
from runtime.errors import BadInputError, NotFoundError
from runtime.project.schemas import TOPICS, InterviewReply, MarkdownReply, brief_digest


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return Scenario.load(SCENARIOS / "expense_tracker")


def asked(scenario: Scenario, task: str, id: str = "project", attempt: int = 1) -> Asked:
    return Asked(task=task, id=id, attempt=attempt, brief=brief_digest(scenario.brief), answered={})


def interviewed(scenario: Scenario, answered: Mapping[str, str]) -> InterviewReply:
    request = replace(asked(scenario, "interview.next"), answered=answered)
    return InterviewReply.model_validate_json(scenario.reply(request))


def test_interview__asks_for_the_first_topic_without_an_answer(scenario: Scenario) -> None:
    reply = interviewed(scenario, {"audience": "two people"})

    assert not reply.complete
    assert reply.question is not None
    assert reply.question.topic == "platforms"
    assert [(known.topic, known.text) for known in reply.answered] == [("audience", "two people")]


def test_interview__is_complete_when_all_topics_are_answered(scenario: Scenario) -> None:
    reply = interviewed(scenario, scenario.answers)

    assert reply.complete
    assert reply.question is None
    assert {known.topic for known in reply.answered} == set(TOPICS)
    assert all(answer in reply.summary for answer in scenario.answers.values())


def test_interview__writes_down_what_was_left_open_as_an_assumption(scenario: Scenario) -> None:
    reply = interviewed(scenario, {**scenario.answers, "budget": "You decide.", "audience": "skip"})

    assert reply.complete
    assert [assumed.topic for assumed in reply.assumptions] == ["audience", "budget"]


def test_interview__survives_answers_of_any_length_and_braces(scenario: Scenario) -> None:
    assert interviewed(scenario, dict.fromkeys(TOPICS, "{audience} " * 1_000)).complete


def test_reply__in_markdown_is_wrapped(scenario: Scenario) -> None:
    reply = MarkdownReply.model_validate_json(scenario.reply(asked(scenario, "docs.readme")))

    assert reply.markdown.startswith("# Expense tracker\n")


def test_reply__beyond_the_attempts_written_is_the_last_one(scenario: Scenario) -> None:
    second = scenario.reply(asked(scenario, "code.edit", "T-005", 2))

    assert scenario.reply(asked(scenario, "code.edit", "T-005", 9)) == second
    assert scenario.reply(asked(scenario, "code.edit", "T-005", 1)) != second


@pytest.mark.parametrize(
    ("task", "id", "attempt"), [("code.edit", "T-099", 1), ("plan.dreams", "project", 1), ("plan.todo", "project", 0)]
)
def test_reply__that_was_never_written_is_not_found(scenario: Scenario, task: str, id: str, attempt: int) -> None:
    with pytest.raises(NotFoundError, match=f"{task} id={id}"):
        scenario.reply(asked(scenario, task, id, attempt))


def test_library__says_which_briefs_it_knows(scenario: Scenario) -> None:
    unknown = Asked(task="plan.todo", id="project", attempt=1, brief="0123456789ab", answered={})

    with pytest.raises(NotFoundError) as refused:
        Library().reply(unknown)

    assert "0123456789ab" in str(refused.value)
    assert f"expense_tracker (brief={brief_digest(scenario.brief)})" in str(refused.value)
    assert "OLLAMA_BASE_URL" in str(refused.value)


def test_scenario__with_a_misnamed_reply_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "expense_tracker"
    shutil.copytree(SCENARIOS / "expense_tracker", folder)
    (folder / "replies" / "notes.txt").write_text("x")

    with pytest.raises(BadInputError, match=r"notes\.txt"):
        Scenario.load(folder)


def test_scenario__with_broken_json_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "expense_tracker"
    shutil.copytree(SCENARIOS / "expense_tracker", folder)
    (folder / "replies" / "plan.stack.json").write_text(json.dumps({})[:-1])

    with pytest.raises(BadInputError, match=r"plan\.stack\.json"):
        Scenario.load(folder)
