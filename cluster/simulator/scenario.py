"""A scenario: the brief of one application, and everything that the models of its build say.

    scenarios/<name>/
        brief.md                        what a person would write; its digest chooses the scenario
        change.md                       what the person wishes for while it is built, if anything
        answers.yaml                    the person's answers, by topic
        interview.yaml                  the architect's questions, assumptions and summary, by topic
        replies/<task>[.<id>][.<attempt>].json|md
        edits/<task id>.<attempt>.md    what the implementer answers, in the edit engine's blocks

A reply in Markdown becomes `{"markdown": ...}`. Without an id the reply is for `project`, without an attempt for the
first. An attempt beyond those written gets the last one.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from cluster.simulator.asked import Asked
from runtime.errors import BadInputError, NotFoundError
from runtime.project.schemas import TOPICS, brief_digest
from runtime.project.undecided import is_undecided

SCENARIOS = Path(__file__).with_name("scenarios")

_REPLY_NAME = re.compile(r"([a-z]+\.[a-z]+)(?:\.([A-Z][\w-]*))?(?:\.(\d+))?\.(json|md)")
_EDIT_NAME = re.compile(r"(T-\d+)\.(\d+)\.md")
_TEXT_CHARS_MAX = 4_000
_SUMMARY_CHARS_MAX = 8_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Interview:
    questions: Mapping[str, str]
    assumptions: Mapping[str, str]
    """What holds for a topic that was skipped or left to us."""
    summary: str
    """With a place `{topic}` for each topic."""
    language: str = "en"
    """Of the person, as BCP 47 names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    name: str
    brief: str
    change: str
    """A wish for something else, sent while it is built; empty when there is none."""
    answers: Mapping[str, str]
    interview: Interview
    replies: Mapping[tuple[str, str, int], str]
    """By task, id and attempt."""

    @classmethod
    def load(cls, folder: Path) -> "Scenario":
        """Raises BadInputError naming the file that does not fit."""
        replies: dict[tuple[str, str, int], str] = {}
        for file in sorted((folder / "replies").iterdir()):
            name = _REPLY_NAME.fullmatch(file.name)
            if name is None:
                raise BadInputError(
                    f"{file} is not named like a reply.", "Name it <task>[.<id>][.<attempt>].json or .md."
                )
            replies[name[1], name[2] or "project", int(name[3] or 1)] = _json_reply(file)
        for file in sorted((folder / "edits").iterdir()):
            name = _EDIT_NAME.fullmatch(file.name)
            if name is None:
                raise BadInputError(f"{file} is not named like an edit.", "Name it <task id>.<attempt>.md.")
            replies["code.edit", name[1], int(name[2])] = file.read_text()
        interview = yaml.safe_load((folder / "interview.yaml").read_text())
        change = folder / "change.md"
        return cls(
            name=folder.name,
            brief=(folder / "brief.md").read_text(),
            change=change.read_text() if change.is_file() else "",
            answers=yaml.safe_load((folder / "answers.yaml").read_text()),
            interview=Interview(**interview),
            replies=replies,
        )

    def reply(self, asked: Asked) -> str:
        """The text that the model answers; the same for the same request. Raises NotFoundError."""
        if asked.task == "interview.next":
            return json.dumps(self._interview(asked.answered), ensure_ascii=False)
        written = [attempt for task, id, attempt in self.replies if (task, id) == (asked.task, asked.id)]
        if not written or asked.attempt < 1:
            raise NotFoundError(f"The scenario {self.name} has no reply to {asked.task} id={asked.id}.")
        return self.replies[asked.task, asked.id, max(n for n in written if n <= asked.attempt)]

    def _interview(self, answered: Mapping[str, str]) -> dict[str, object]:
        """Asks for the first topic without an answer; complete when there is none."""
        decided = {t: answered[t][:_TEXT_CHARS_MAX] for t in TOPICS if t in answered and not is_undecided(answered[t])}
        assumed = {t: self.interview.assumptions[t] for t in TOPICS if t in answered and t not in decided}
        missing = next((topic for topic in TOPICS if topic not in answered), None)
        summary = "" if missing else self.interview.summary.format(**assumed, **decided)[:_SUMMARY_CHARS_MAX]
        return {
            "complete": missing is None,
            "question": {"topic": missing, "text": self.interview.questions[missing]} if missing else None,
            "answered": [{"topic": topic, "text": text} for topic, text in decided.items()],
            "assumptions": [{"topic": topic, "text": text} for topic, text in assumed.items()],
            "summary": summary.strip(),
            "language": self.interview.language,
        }


def scenario_names(folder: Path = SCENARIOS) -> list[str]:
    return sorted(child.name for child in folder.iterdir() if (child / "brief.md").is_file())


class Library:
    """All scenarios of a folder, found by the digest of their brief."""

    def __init__(self, folder: Path = SCENARIOS) -> None:
        scenarios = [Scenario.load(folder / name) for name in scenario_names(folder)]
        self._by_digest = {brief_digest(scenario.brief): scenario for scenario in scenarios}

    def reply(self, asked: Asked | None) -> str:
        """Raises NotFoundError with a text that says what is known and how to reach a real model."""
        if asked is None:
            raise self._unknown("The request carries no task line, and the simulator only plays written scenarios.")
        scenario = self._by_digest.get(asked.brief)
        if scenario is None:
            raise self._unknown(f"No scenario has the brief {asked.brief} (asked: {asked.task} id={asked.id}).")
        try:
            return scenario.reply(asked)
        except NotFoundError as error:
            raise self._unknown(f"{error.message} (attempt={asked.attempt} brief={asked.brief})") from error

    def _unknown(self, message: str) -> NotFoundError:
        known = ", ".join(f"{scenario.name} (brief={digest})" for digest, scenario in self._by_digest.items())
        return NotFoundError(
            message,
            f"It knows the briefs of: {known}; use that brief.md word for word. For any other project configure a real "
            "model: set OPENAI_API_KEY (and OPENAI_BASE_URL for a compatible service), or OLLAMA_BASE_URL.",
        )


def _json_reply(file: Path) -> str:
    text = file.read_text()
    if file.suffix == ".md":
        return json.dumps({"markdown": text}, ensure_ascii=False)
    try:
        return json.dumps(json.loads(text), ensure_ascii=False)
    except ValueError as error:
        raise BadInputError(f"{file} is not JSON: {error}.", "Correct the file.") from error
