"""Every scenario can be planned, edited and judged as the product asks; `tests/e2e/test_scenarios.py` builds them."""

import re
from itertools import combinations
from pathlib import PurePath

import pytest

from cluster.simulator.scenario import scenario_names
from runtime.project.documents import readme_commands
from runtime.project.schemas import SCHEMAS, TOPICS, ItemVerdict, MarkdownReply, TestEvidence, brief_digest
from runtime.project.todo import Item
from tests.unit.scenarios.blueprint import Blueprint, blocks

ALL = {name: Blueprint.of(name) for name in scenario_names()}
each_scenario = pytest.mark.parametrize("blueprint", ALL.values(), ids=ALL)


def test_scenarios__are_six_or_more_with_briefs_of_their_own() -> None:
    assert len(ALL) >= 6
    assert len({brief_digest(each.scenario.brief) for each in ALL.values()}) == len(ALL)


@each_scenario
def test_replies__fit_their_schemas(blueprint: Blueprint) -> None:
    for (task, id, attempt), text in blueprint.scenario.replies.items():
        if task != "code.edit":
            assert SCHEMAS[task].model_validate_json(text), (task, id, attempt)


@each_scenario
def test_interview__has_a_text_for_every_topic(blueprint: Blueprint) -> None:
    scenario = blueprint.scenario
    assert (
        set(scenario.answers) == set(scenario.interview.questions) == set(scenario.interview.assumptions) == set(TOPICS)
    )
    for topic in TOPICS:
        assert f"{{{topic}}}" in scenario.interview.summary


@each_scenario
def test_plan__is_small_and_can_be_carried_out(blueprint: Blueprint) -> None:
    assert 5 <= len(blueprint.whole.items) <= 12
    assert all(len(blueprint.whole.in_phase(number + 1)) <= 6 for number in range(len(blueprint.whole.phases)))
    assert blueprint.stack.commands.test
    assert blueprint.stack.commands.run


@each_scenario
def test_requirements__each_have_a_task_and_a_test(blueprint: Blueprint) -> None:
    wanted = [each.id for each in blueprint.requirements.requirements]
    if blueprint.change:
        wanted += [each.id for each in blueprint.change.requirements]
    assert blueprint.whole.uncovered(wanted) == []


@each_scenario
def test_tasks_without_an_order__own_different_files(blueprint: Blueprint) -> None:
    for one, other in combinations(blueprint.whole.items, 2):
        if not (waits_for(blueprint, one, other) or waits_for(blueprint, other, one)):
            assert not set(one.files) & set(other.files), (one.id, other.id)


@each_scenario
def test_tests_of_a_task__are_written_by_it_or_before_it(blueprint: Blueprint) -> None:
    written: set[str] = set()
    for item in blueprint.order():
        written |= set(item.files)
        assert written.issuperset(item.tests), item.id


@each_scenario
def test_edits__touch_files_of_their_task_alone_and_leave_none_out(blueprint: Blueprint) -> None:
    assert {id for task, id, _ in blueprint.scenario.replies if task == "code.edit"} == {
        item.id for item in blueprint.whole.items
    }
    for item in blueprint.whole.items:
        assert blueprint.attempts(item.id) == list(range(1, len(blueprint.attempts(item.id)) + 1))
        touched = {block.path for edit in blueprint.landing(item.id) for block in blocks(edit)}
        assert touched == set(item.files), item.id
    assert set(blueprint.tree) == {file for item in blueprint.whole.items for file in item.files}


@each_scenario
def test_edits__are_read_alike_by_aider(blueprint: Blueprint) -> None:
    """Aider takes a word that is another file's name for a file that it should be given first; it drops a first line
    that ends with the file's own name, makes no empty file, and ends a block at `=====`."""
    every = {name for file in {*blueprint.tree, "README.md", "TODO.md"} for name in (file, PurePath(file).name)}
    for item in blueprint.whole.items:
        own = {PurePath(file).name for file in item.files}
        others = {name for name in every if PurePath(name).name not in own}
        for number in blueprint.attempts(item.id):
            edit = blueprint.edit(item.id, number)
            words = {word.rstrip(",.!;:?").strip("\"'`*_") for word in edit.split()}
            assert not words & others, item.id
            for block in blocks(edit):
                first = block.replace.split("\n", 1)[0]
                assert block.replace.strip(), block.path
                assert block.search or not first.strip().endswith(PurePath(block.path).name), block.path
                assert not re.search(r"^(={5,9}|```)", block.search + block.replace, re.MULTILINE), block.path


@each_scenario
def test_verdicts__judge_every_task_and_cite_what_exists(blueprint: Blueprint) -> None:
    reviews = [verdict for (task, _, _), verdict in blueprint.verdicts.items() if task == "qa.review"]
    late = {edit.id for review in reviews for edit in review.todo_edits if edit.op == "add"}
    for (task, id, attempt), verdict in blueprint.verdicts.items():
        judged = [each.id for each in verdict.items]
        asked = blueprint.whole.items if task == "qa.review" else blueprint.whole.in_phase(int(id.removeprefix("P")))
        assert set(judged) <= {item.id for item in asked}
        if verdict.verdict == "pass":
            wanted = {item.id for item in asked} - (set() if task == "qa.review" else late)
            assert set(judged) == wanted, (task, id, attempt)
            for each in verdict.items:
                assert_proven(blueprint, each)


@each_scenario
def test_readme__has_commands_and_tells_where_everything_is(blueprint: Blueprint) -> None:
    last = max(number for task, _, number in blueprint.scenario.replies if task == "docs.readme")
    readme = MarkdownReply.model_validate_json(blueprint.scenario.replies["docs.readme", "project", last]).markdown
    assert len(readme_commands(readme)) >= 3
    named = re.findall(r"`((?:src|tests|examples|docs)/[\w./-]*)`", readme)
    assert named
    for path in named:
        assert path.startswith("docs/") or any(file.startswith(path) for file in blueprint.tree), path


def test_what_goes_wrong__is_of_many_kinds() -> None:
    """A red attempt, a verification and a final review that find something, a README that does not work, a change."""
    red, found, late, readme, changed = (set[str]() for _ in range(5))
    for name, blueprint in ALL.items():
        if any(
            len(blueprint.attempts(item.id)) > 1 and item.id not in blueprint.reopened for item in blueprint.plan.items
        ):
            red.add(name)
        for (task, _, _), verdict in blueprint.verdicts.items():
            if verdict.verdict == "fail":
                (late if task == "qa.review" else found).add(name)
        if ("docs.readme", "project", 2) in blueprint.scenario.replies:
            readme.add(name)
        if blueprint.scenario.change:
            changed.add(name)
    assert all(len(kind) >= 1 for kind in (late, readme, changed))
    assert min(len(red), len(found)) >= 3


def assert_proven(blueprint: Blueprint, item: ItemVerdict) -> None:
    """By lines that the file has, or by a test of the plan; the reason names one of them."""
    for each in item.evidence:
        if isinstance(each, TestEvidence):
            assert each.test in blueprint.whole.tests(), item.id
        else:
            assert 1 <= each.from_line <= each.to_line <= len(blueprint.tree[each.file].splitlines()), item.id
    assert re.search(r"\b(src|tests|examples)/[\w./-]+\.[a-z]+", item.reason), item.id


def waits_for(blueprint: Blueprint, item: Item, other: Item) -> bool:
    return any(id == other.id or waits_for(blueprint, blueprint.whole.item(id), other) for id in item.depends)
