"""When a result is right, and what a ranker's results are worth. The same for all rankers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from runtime.index.chunk import LINE_CHARS_MAX
from tests.bench.index_eval.questions import Question
from tests.bench.index_eval.rankers import Piece

RESAMPLES = 10_000
SEED = 20_250_101

Ranks = npt.NDArray[np.int64]
"""int64[questions]: 1 for found first, 0 for not found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    mrr: float
    recall_1: float
    recall_5: float
    recall_10: float

    @property
    def measures(self) -> dict[str, float]:
        """By the names that figures use."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def rank_of(question: Question, results: Sequence[Piece]) -> int:
    return next((number for number, piece in enumerate(results, 1) if shows(piece, question)), 0)


def shows(piece: Piece, question: Question) -> bool:
    """It has lines of the function, and its text has the function's first line: the function's own chunk, a later
    piece of it (which repeats the signature), the skeleton of its class, or a window that reaches over that line. A
    chunk whose range spans the function but leaves it out does not show it."""
    is_there = piece.path == question.path and (
        piece.start_line <= question.last_line and question.first_line <= piece.end_line
    )
    return is_there and _seen(question.definition) in map(_seen, piece.text.split("\n"))


def quality_of(ranks: Ranks) -> Quality:
    return Quality(
        mrr=float(_reciprocal(ranks).mean()),
        recall_1=float((ranks == 1).mean()),
        recall_5=float(((ranks > 0) & (ranks <= 5)).mean()),
        recall_10=float((ranks > 0).mean()),
    )


def interval(ours: Mapping[str, Ranks], peers: Mapping[str, Ranks], resamples: int = RESAMPLES) -> tuple[float, float]:
    """95% of the ratio of the two MRRs over all questions, by package name: a paired bootstrap in which each package
    keeps its number of questions.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3 (percentiles).
    """
    random = np.random.default_rng(SEED)
    our_sums, peer_sums = np.zeros(resamples), np.zeros(resamples)
    for name, ranks in ours.items():
        drawn = random.integers(len(ranks), size=(resamples, len(ranks)))
        our_sums += _reciprocal(ranks)[drawn].sum(axis=1)
        peer_sums += _reciprocal(peers[name])[drawn].sum(axis=1)
    low, high = np.percentile(our_sums / np.maximum(peer_sums, 1e-9), [2.5, 97.5])
    return float(low), float(high)


def _reciprocal(ranks: Ranks) -> npt.NDArray[np.float64]:
    return np.where(ranks > 0, 1 / np.maximum(ranks, 1), 0.0)


def _seen(line: str) -> str:
    """A line as a chunk shows it, which cuts long ones."""
    return line.strip()[: LINE_CHARS_MAX // 2]
