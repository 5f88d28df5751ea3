"""`make eval-index [REPO=folder]`: given the first sentence of a function's documentation, is the function found?

The documentation is taken out of the code first. All rankers answer the same questions in the same run, each package in
an index of its own. Peers see the same chunks without path and symbol (`plain_rrf`, `minilm`, `bm25`), or windows of 40
lines. Without REPO: pinned packages to choose the ranking by, then packages that nothing was ever chosen by; they are
fetched once into a cache outside of the repository. One JSON line a figure; a table on stderr.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from runtime.errors import MasterbuilderError
from runtime.index.embedder import Embedder, choose_embedder
from tests.bench.figures import figure
from tests.bench.index_eval.archive import ArchiveTooLargeError, read_archive
from tests.bench.index_eval.fetching import cache_folder, fetch
from tests.bench.index_eval.folder import read_folder
from tests.bench.index_eval.judging import Ranks, interval, quality_of, rank_of
from tests.bench.index_eval.packages import Part, packages_of
from tests.bench.index_eval.questions import Corpus, make_corpus
from tests.bench.index_eval.rankers import make_rankers
from tests.bench.index_eval.vectors import RememberingEmbedder

TARGETS = (
    ("ours", "plain_rrf", 1.2),
    ("ours", "minilm", 1.25),
    ("ours", "bm25", 1.5),
    ("lexical", "plain_rrf", 1.0),
    ("ours", "windows_bm25", None),
    ("ours", "windows_rrf", None),
)
"""Whose MRR is compared with whose, and the least ratio."""
INTERVAL_LOW_MIN = 1.05
PARTS: Sequence[Part] = ("choosing", "held_out")

Figure = dict[str, object]
Ranked = Mapping[str, Mapping[str, Ranks]]
"""Ranker -> package -> ranks."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.index_eval", description=__doc__)
    parser.add_argument("repo", type=Path, nargs="?", help="a local folder (default: the pinned packages)")
    given = parser.parse_args()
    cache = cache_folder()
    embedder = RememberingEmbedder(
        choose_embedder(Path(os.environ.get("MODEL_CACHE_DIR") or cache / "models")), cache / "vectors"
    )
    figures: list[Figure] = []
    if given.repo:
        figures += _judged("repo", [_local(given.repo)], embedder)
    else:
        for part in PARTS:
            corpora = _public(part, cache)
            figures.append(_count(f"{part}_packages", len(corpora), len(packages_of(part))))
            figures += _judged(part, corpora, embedder)
    for each in figures:
        print(json.dumps(each), flush=True)
    return 0 if all(each["holds"] for each in figures) else 1


def _local(folder: Path) -> Corpus:
    folder = folder.resolve()
    return make_corpus(folder.name or "repo", read_folder(folder), questions_max=sys.maxsize)


def _public(part: Part, cache: Path) -> list[Corpus]:
    """A package that cannot be had is told, and makes a figure not hold."""
    corpora = []
    for package in packages_of(part):
        try:
            corpora.append(make_corpus(package.name, read_archive(fetch(package, cache), package.source)))
        except (MasterbuilderError, ArchiveTooLargeError) as error:
            _say(str(error))
    return corpora


def _judged(part: str, corpora: Sequence[Corpus], embedder: Embedder) -> list[Figure]:
    ranked = _ranked([corpus for corpus in corpora if corpus.questions], embedder)
    if not ranked:
        return [_figure(f"{part}_questions", 0, "count", target="> 0", holds=False)]
    _say(table(part, ranked))
    return figures_of(part, ranked)


def _ranked(corpora: Sequence[Corpus], embedder: Embedder) -> Ranked:
    ranked: dict[str, dict[str, Ranks]] = {}
    for corpus in corpora:
        start = time.monotonic()
        for name, ranker in make_rankers(corpus, embedder).items():
            ranks = [rank_of(question, ranker(question.text)) for question in corpus.questions]
            ranked.setdefault(name, {})[corpus.name] = np.array(ranks)
        _say(f"{corpus.name}: {len(corpus.questions)} questions, {time.monotonic() - start:.0f} s")
    return ranked


def figures_of(part: str, ranked: Ranked) -> list[Figure]:
    qualities = {name: quality_of(np.concatenate(list(ranks.values()))) for name, ranks in ranked.items()}
    figures = [_figure(f"{part}_questions", sum(map(len, ranked["ours"].values())), "count")]
    for name, quality in qualities.items():
        for measure, value in quality.measures.items():
            figures.append(_figure(f"{part}_{name}_{measure}", value, "score"))
    for name, peer, least in TARGETS:
        value, against = qualities[name].mrr, qualities[peer].mrr
        ratio = value / max(against, 1e-9)
        figures.append(
            _figure(
                f"{part}_{name}_to_{peer}", value, "score",
                against=f"{peer}_mrr {against:.4f}", ratio=round(ratio, 4),
                target=f"ratio >= {least}" if least else None, holds=least is None or ratio >= least,
            )
        )  # fmt: skip
    if part == "held_out":
        low, high = interval(ranked["ours"], ranked["plain_rrf"])
        for end, value in (("low", low), ("high", high)):
            is_judged = end == "low"
            figures.append(
                _figure(
                    f"{part}_ours_to_plain_rrf_{end}", value, "ratio",
                    target=f"> {INTERVAL_LOW_MIN}" if is_judged else None,
                    holds=not is_judged or value > INTERVAL_LOW_MIN,
                )
            )  # fmt: skip
    return figures


def table(part: str, ranked: Ranked) -> str:
    """MRR by package, and every measure over all questions."""
    names = list(ranked)
    rows = [[part, "questions", *names]]
    for package, ranks in ranked["ours"].items():
        rows.append([package, str(len(ranks)), *(f"{quality_of(ranked[name][package]).mrr:.3f}" for name in names)])
    overall = [quality_of(np.concatenate(list(ranked[name].values()))).measures for name in names]
    total = str(sum(map(len, ranked["ours"].values())))
    rows += [[f"all, {measure}", total, *(f"{it[measure]:.3f}" for it in overall)] for measure in overall[0]]
    rows.append(["ours to it", "", *(f"{overall[0]['mrr'] / max(it['mrr'], 1e-9):.3f}" for it in overall)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _count(name: str, value: int, wanted: int) -> Figure:
    return _figure(name, value, "count", target=f"= {wanted}", holds=value == wanted)


def _figure(
    name: str,
    value: float,
    unit: str,
    *,
    against: str = "",
    ratio: float | None = None,
    target: str | None = None,
    holds: bool = True,
) -> Figure:
    return figure("index_eval", name, round(value, 4), unit, against=against, ratio=ratio, target=target, holds=holds)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
