"""What each agent must answer: one Pydantic model a task. `masterbuilder schemas` prints them.

A model's reply is untrusted: it is parsed here and nowhere else. The task line that opens every system message
(and every instruction to an edit engine) is made here too.
"""

import hashlib
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from runtime.project.paths import is_plain_path

Topic = Literal["audience", "platforms", "features", "performance", "integrations", "budget"]
TOPICS: tuple[Topic, ...] = ("audience", "platforms", "features", "performance", "integrations", "budget")
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4_000)]
ShortText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
Markdown = Annotated[str, StringConstraints(min_length=1, max_length=60_000)]
RequirementId = Annotated[str, StringConstraints(pattern=r"^R-\d{2,4}$")]
PlanTaskId = Annotated[str, StringConstraints(pattern=r"^T-\d{3,4}$")]
Effort = Literal["small", "medium", "large"]
"""How much work a task is beside the plan's others. It decides what is begun first, and nothing else."""


def _inside_project(path: str) -> str:
    if not is_plain_path(path):
        raise ValueError("must be a plain relative path inside the project, like src/app.py")
    return path


ProjectPath = Annotated[str, StringConstraints(min_length=1, max_length=240), AfterValidator(_inside_project)]
"""Relative, inside the project, never `..`."""


def brief_digest(brief: str) -> str:
    """Names a brief in task lines: the first 12 hex digits of the SHA-256 of its text without outer white space."""
    return hashlib.sha256(brief.strip().encode()).hexdigest()[:12]


def task_line(*, task: str, id: str, attempt: int, brief: str) -> str:
    """`masterbuilder task=code.edit id=T-003 attempt=1 brief=9f86d081884c`"""
    return f"masterbuilder task={task} id={id} attempt={attempt} brief={brief_digest(brief)}"


class Reply(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TopicText(Reply):
    topic: Topic
    text: Text


class InterviewReply(Reply):
    """`interview.next`: either a question, or complete with a summary of the scope.

    `answered` is what brief and answers say by topic, later words before earlier ones.
    """

    complete: bool
    question: TopicText | None
    answered: list[TopicText]
    assumptions: list[TopicText]
    summary: Annotated[str, StringConstraints(max_length=8_000)]
    language: Annotated[str, StringConstraints(pattern=r"^([A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3})?$")] = ""
    """Of the person, as BCP 47 names it: `pl`, `pt-BR`. A pattern, because prompts say it outside the fences."""


class Requirement(Reply):
    id: RequirementId
    text: Text
    priority: Literal["must", "should", "could"]
    acceptance: list[ShortText] = Field(min_length=1, max_length=30)


class RequirementsReply(Reply):
    """`plan.requirements`"""

    title: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
    summary: Text
    requirements: list[Requirement] = Field(min_length=1, max_length=200)


class StackChoice(Reply):
    layer: ShortText
    choice: ShortText
    reason: Text


class Commands(Reply):
    """Shell commands, run in the sandbox from the project's root; an empty string means there is nothing to do.

    Where `test` holds `{tests}`, it is replaced by the test files of the finished tasks; at the end by all of them.
    """

    install: Annotated[str, StringConstraints(max_length=500)]
    build: Annotated[str, StringConstraints(max_length=500)]
    test: ShortText
    run: ShortText


class StackReply(Reply):
    """`plan.stack`"""

    choices: list[StackChoice] = Field(min_length=1, max_length=30)
    commands: Commands


class MarkdownReply(Reply):
    """`plan.architecture`, `docs.api`, `docs.deployment`, `docs.readme`"""

    markdown: Markdown


class PlanItem(Reply):
    id: PlanTaskId
    title: ShortText
    detail: Text
    depends: list[PlanTaskId]
    files: list[ProjectPath] = Field(min_length=1)
    requirements: list[RequirementId]
    tests: list[ProjectPath]
    """Test files that must pass, with those of every finished task, before this one is done."""
    parent: PlanTaskId | None = None
    """The task that this one is a part of; it is done only when all its parts are."""
    no_change_needed: bool = False
    """May be ticked though no file changed: its checks must pass all the same."""
    effort: Effort = "medium"


class PlanPhase(Reply):
    title: ShortText
    items: list[PlanItem] = Field(min_length=1, max_length=100)


class TodoReply(Reply):
    """`plan.todo`"""

    phases: list[PlanPhase] = Field(min_length=1, max_length=20)


class CodeEvidence(Reply):
    """Lines of a file in the tree, counted from 1, both ends included."""

    file: ShortText
    from_line: int
    to_line: int


class TestEvidence(Reply):
    """A test that the checks' report shows: a test file that a command named, or a title in its output."""

    __test__ = False
    test: ShortText


class ItemVerdict(Reply):
    """A pass without evidence that can be checked counts as no verdict."""

    id: PlanTaskId
    verdict: Literal["pass", "fail"]
    reason: Text
    evidence: list[CodeEvidence | TestEvidence] = Field(default=[], max_length=20)


class Trial(Reply):
    """A command that the verifier makes up to try an item out, with values that nobody who wrote it has seen.

    It is run on the tree, from its root: it must end with status 0 and print `shows`, or the item does not pass.
    """

    id: PlanTaskId
    command: ShortText
    shows: Annotated[str, StringConstraints(strip_whitespace=True, max_length=500)] = ""


class Finding(Reply):
    severity: Literal["critical", "major", "minor"]
    file: Annotated[str, StringConstraints(max_length=240)]
    line: int = Field(ge=0)
    text: Text
    suggestion: Annotated[str, StringConstraints(max_length=4_000)]


class TodoEdit(Reply):
    """`add` a new item, `reopen` a finished one, `revise` an item's text, or `strike` one that is not wanted any more.

    Earlier items are never deleted: what is struck stays in the file, with its `detail` as the reason.
    """

    op: Literal["add", "reopen", "revise", "strike"]
    id: PlanTaskId
    title: ShortText
    detail: Text
    depends: list[PlanTaskId]
    files: list[ProjectPath] = Field(min_length=1)
    requirements: list[RequirementId] = []
    tests: list[ProjectPath] = []
    parent: PlanTaskId | None = None
    no_change_needed: bool = False
    effort: Effort = "medium"
    """Of an item that is added."""


class VerdictReply(Reply):
    """`verify.phase`, `qa.review`"""

    verdict: Literal["pass", "fail"]
    items: list[ItemVerdict] = Field(max_length=1_000)
    trials: list[Trial] = Field(default=[], max_length=20)
    findings: list[Finding] = Field(max_length=100)
    todo_edits: list[TodoEdit] = Field(max_length=30)


class ChangeEdit(TodoEdit):
    """A TODO edit with the reason that the owner reads before agreeing to it."""

    reason: Text


class PlanChangeReply(Reply):
    """`plan.change`: what a wish of the owner does to the running plan.

    A requirement with a new id is a new one; with a known id it takes that one's place. Every new requirement needs a
    task and a test. What is added or reopened becomes a phase of its own behind the others, called `title`.
    """

    title: ShortText
    summary: Text
    """What will be different, in words for the owner."""
    requirements: list[Requirement] = Field(max_length=50)
    todo_edits: list[ChangeEdit] = Field(min_length=1, max_length=50)


SCHEMAS: dict[str, type[Reply]] = {
    "interview.next": InterviewReply,
    "plan.requirements": RequirementsReply,
    "plan.stack": StackReply,
    "plan.architecture": MarkdownReply,
    "plan.todo": TodoReply,
    "plan.change": PlanChangeReply,
    "docs.api": MarkdownReply,
    "docs.deployment": MarkdownReply,
    "docs.readme": MarkdownReply,
    "verify.phase": VerdictReply,
    "qa.review": VerdictReply,
}
