"""Questions with their answers: the first sentence of a function's documentation, and the function without it."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from runtime.index.tree import is_test_path
from tests.bench.index_eval.documented import Documented, documented_in

WORDS_MIN = 4
QUESTIONS_MAX = 300
"""A package, so that a large one does not count for more than the others."""

_BOILERPLATE = re.compile(
    r"@|see\b|deprecated|eslint|istanbul|todo|fixme|internal\b|inherit|overrid|constructor\b|>>>|:|https?:|copyright",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<!\be\.g)(?<!\bi\.e)(?<!\betc)[.!?:](?=\s|$)")
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]+")
_INLINE_TAG = re.compile(r"\{@\w+\s+([^}|]*)(\|[^}]*)?\}")
_LINK = re.compile(r"\[([^\]]*)\]\([^)\s]*\)+")
_ROLE = re.compile(r":[a-z:]+:`~?([^`]*)`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    text: str
    path: str
    first_line: int
    last_line: int
    """From 1, in the files without documentation."""
    definition: str
    """The whole first line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """One package. Its files do not hold the documentation of any function."""

    name: str
    files: Mapping[str, bytes]
    questions: Sequence[Question]


def make_corpus(name: str, sources: Mapping[str, bytes], questions_max: int = QUESTIONS_MAX) -> Corpus:
    """`sources` by path below the package. What is asked is asked once and stands nowhere in the files, word for word.
    Of more questions than `questions_max` those with the lowest hashes stay."""
    files: dict[str, bytes] = {}
    found: list[Question] = []
    for path, content in sorted(sources.items()):
        source = content.decode("utf-8", "replace").replace("\r\n", "\n")
        functions = documented_in(path, source)
        taken = _without(source.split("\n"), functions)
        full_path = f"{name}/{path}"
        files[full_path] = "\n".join(line for line in taken if line is not None).encode()
        if not _is_aside(full_path):
            found += [it for function in functions if (it := _question(function, full_path, taken))]
    times = Counter(it.text.lower() for it in found)
    everything = " ".join(" ".join(file.decode().split()) for file in files.values())
    once = sorted((it for it in found if times[it.text.lower()] == 1 and it.text not in everything), key=_order)
    return Corpus(name=name, files=files, questions=once[:questions_max])


def sentence_of(documentation: str, name: str) -> str:
    """The first sentence, in one line, without the function's own name in front; empty when it says nothing."""
    lines = [line.strip() for line in documentation.strip().split("\n")]
    end = next((row for row, line in enumerate(lines) if not line or line.startswith("@")), len(lines))
    paragraph = " ".join(lines[:end])
    for marked in (_INLINE_TAG, _LINK, _ROLE):
        paragraph = marked.sub(r"\1", paragraph)
    sentence = " ".join(_SENTENCE_END.split(paragraph, maxsplit=1)[0].split())
    if name:
        sentence = re.sub(rf"^`*{re.escape(name)}\b(\([^)]*\))?`*\s*(->|[-:])?\s*", "", sentence)
    words = _WORD.findall(sentence)
    is_english = sum(map(str.isascii, sentence)) >= 0.9 * len(sentence)
    is_told = len(words) >= WORDS_MIN and is_english and not _BOILERPLATE.match(sentence)
    return sentence if is_told else ""


def _without(lines: Sequence[str], functions: Sequence[Documented]) -> list[str | None]:
    """The lines, with None for those that are taken out, so that the others keep their places."""
    kept: list[str | None] = list(lines)
    for function in functions:
        for row in function.rows:
            kept[row] = None
        if function.instead:
            kept[function.rows[0]] = function.instead
    return kept


def _question(function: Documented, path: str, taken: Sequence[str | None]) -> Question | None:
    text = sentence_of(function.text, function.name)
    definition = taken[function.first_row]
    if not text or not definition:
        return None
    first = sum(line is not None for line in taken[: function.first_row + 1])
    inside = sum(line is not None for line in taken[function.first_row + 1 : function.last_row + 1])
    return Question(text=text, path=path, first_line=first, last_line=first + inside, definition=definition)


def _is_aside(path: str) -> bool:
    """Tests, and what shows how the code is used."""
    return is_test_path(path) or not {"testing", "examples", "example", "benches", "benchmark"}.isdisjoint(
        path.lower().split("/")
    )


def _order(question: Question) -> str:
    return sha256(f"{question.path}\n{question.text}".encode()).hexdigest()
