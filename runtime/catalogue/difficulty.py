"""How hard a question is, what it is about, and which tools may help: words and shape, no model.

Source: spec/assistant.md §3.2 to §3.5.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from runtime.catalogue.model import Profile
from runtime.catalogue.tiers import Complexity
from runtime.catalogue.vocabulary import ANALYTICAL, HARD, INTENTS, MEDIUM, Intent, Vocabulary
from runtime.ledger.port import Role

Level = Literal["easy", "medium", "hard"]

CHARACTERS_MAX = 20_000
"""What is read of a question's shape: more changes nothing."""
WORDING_CHARACTERS_MAX = 4_000
"""What is searched for words, which takes 2 ms for 1,000 characters."""
COMPLEXITY: Mapping[Level, Complexity] = {"easy": "simple", "medium": "moderate", "hard": "complex"}
_LIST = re.compile(r"^[ \t]*(?:\d+[.)]|[-*])[ \t]", re.MULTILINE)
_SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)")
_DATE = re.compile(
    r"\b\d{4}[-/.]\d{1,2}(?:[-/.]\d{1,2})?\b|\b\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}\b|\b(?:19|20)\d\d-(?:19|20)\d\d\b"
)
_CALCULATION = re.compile(r"\d[ \t]?[-+*/^=\u00d7\u00f7][ \t]?\(?[ \t]?-?\d|\d[ \t]?%")
_QUESTION = re.compile(r"(?:co|kto|gdzie|kiedy|jak|dlaczego|what|who|where|when|how|why)\b", re.IGNORECASE)
_FENCE = "```"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolHint:
    """A tool that may help; `relevance` is from 0 to 1."""

    tool: str
    relevance: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Difficulty:
    """`confidence` and the two keyword scores are from 0 to 1; tools come with the most relevant first."""

    level: Level
    difficulty_score: float
    confidence: float
    intents: tuple[Intent, ...]
    hard_keyword_score: float
    medium_keyword_score: float
    word_count: int
    structural_complexity: float
    tools: tuple[ToolHint, ...]

    @property
    def recommended_tool_count(self) -> int:
        return len(self.tools)

    @property
    def complexity(self) -> Complexity:
        """For the tier router."""
        return COMPLEXITY[self.level]


def classify(text: str) -> Difficulty:
    """Of the user's own words, without what was quoted or added around them."""
    text = text[:CHARACTERS_MAX]
    wording = text[:WORDING_CHARACTERS_MAX]
    hard, medium = _keyword_score(HARD.count(wording)), _keyword_score(MEDIUM.count(wording))
    words = len(text.split())
    structure = _structure(text, words)
    intents = intents_of(text)
    bonus = 0.3 if {"analytical", "code"} & set(intents) else 0.0
    score = 0.4 * hard + 0.5 * structure + bonus + 0.3 * medium
    if intents == ("conversational",) and hard < 0.1 and medium < 0.1 and structure < 0.3:
        score = max(0.0, score - 0.5)
    return Difficulty(
        level="hard" if score >= 0.5 else "medium" if score >= 0.15 else "easy",
        difficulty_score=score,
        confidence=min(1.0, 0.5 + 1.5 * abs(score - 0.35)),
        intents=intents,
        hard_keyword_score=hard,
        medium_keyword_score=medium,
        word_count=words,
        structural_complexity=structure,
        tools=_tools(intents),
    )


def intents_of(text: str) -> tuple[Intent, ...]:
    """Every intent that holds, in the order of the specification's table; never empty."""
    wording = text[:WORDING_CHARACTERS_MAX]
    found = tuple(intent for intent, holds in _HOLDS.items() if holds(wording))
    if found:
        return found
    stripped = text.strip()
    return ("factual",) if stripped.endswith("?") or _QUESTION.match(stripped) else ("conversational",)


def profile_for(level: Level, role: Role) -> Profile:
    """What `auto` chooses. Source: spec/assistant.md §3.5."""
    if level == "hard":
        return "smart" if role == "DEMO" else "deep"
    return "smart" if level == "medium" else "eco"


def _keyword_score(matches: int) -> float:
    return min(1.0, 0.3 + 0.3 * math.log(1 + matches)) if matches else 0.0


def _structure(text: str, words: int) -> float:
    score = 1.0 if words > 50 else 0.4 if words > 20 else 0.2 if words > 10 else 0.0
    score += 0.3 if text.count(_FENCE) >= 2 else 0.0
    score += 0.1 if _LIST.search(text) else 0.0
    score += 0.2 if _sentences(text) > 3 else 0.0
    return min(1.0, score)


def _sentences(text: str) -> int:
    return sum(1 for part in _SENTENCE_END.split(text) if any(character.isalnum() for character in part))


def _calculates(text: str) -> bool:
    return "%" in text or _CALCULATION.search(_DATE.sub(" ", text)) is not None


def _spoken_of(vocabulary: Vocabulary) -> Callable[[str], bool]:
    return lambda text: vocabulary.count(text) > 0


_HOLDS: Mapping[Intent, Callable[[str], bool]] = {
    "code": lambda text: text.count(_FENCE) >= 2 or INTENTS["code"].count(text) > 0,
    "math": lambda text: _calculates(text) or INTENTS["math"].count(text) > 0,
    "search": _spoken_of(INTENTS["search"]),
    "document": _spoken_of(INTENTS["document"]),
    "memory": _spoken_of(INTENTS["memory"]),
    "temporal": _spoken_of(INTENTS["temporal"]),
    "analytical": _spoken_of(ANALYTICAL),
    "conversational": _spoken_of(INTENTS["conversational"]),
    "creative": _spoken_of(INTENTS["creative"]),
}

_TOOLS: Mapping[Intent, Sequence[ToolHint]] = {
    "search": (
        ToolHint(tool="web_search", relevance=0.9, reason="The question asks for something current or on the web."),
        ToolHint(tool="vertex_search", relevance=0.5, reason="The knowledge base may hold it."),
    ),
    "factual": (
        ToolHint(tool="vertex_search", relevance=0.5, reason="The knowledge base may hold the fact."),
        ToolHint(tool="web_search", relevance=0.4, reason="The web may confirm the fact."),
    ),
    "document": (ToolHint(tool="rag_search", relevance=0.85, reason="The question is about the user's documents."),),
    "math": (ToolHint(tool="calculate", relevance=0.8, reason="There is something to calculate."),),
    "memory": (
        ToolHint(tool="memory_read", relevance=0.7, reason="The answer may be among what the user told before."),
        ToolHint(tool="memory_write", relevance=0.6, reason="The user may want something remembered."),
    ),
    "temporal": (ToolHint(tool="get_datetime", relevance=0.8, reason="The answer depends on the date or time."),),
}


def _tools(intents: Sequence[Intent]) -> tuple[ToolHint, ...]:
    """Search and factual never hold together, so no tool comes twice."""
    hints = [hint for intent in intents for hint in _TOOLS.get(intent, ())]
    return tuple(sorted(hints, key=lambda hint: -hint.relevance))
