"""How well and how fast the index finds code: `python tests/bench/index.py [folder ...]`.

The task: given the first sentence of a function's docstring, find the function. The docstrings are taken out of the
code first. Peer: BM25 over 40-line windows with the same words, in the same run. A window finds a function if it
holds any line of it; a chunk of the index, which is no longer than a window, if it is the function's or shows its
first line (the skeleton of its class). `named` counts only the function's own chunks.

Without folders: this project's `runtime` and three installed libraries. Prints one JSON line per figure.
"""

import ast
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from runtime.index.bm25 import FieldBm25
from runtime.index.embedder import Embedder, NoEmbedder, choose_embedder
from runtime.index.hit import Hit
from runtime.index.shard import IndexShard
from runtime.index.source import Files
from runtime.index.terms import count_terms, term_keys
from tests.bench.figures import figure as make_figure

DEPTH = 10
WINDOW_ROWS = 40
WORDS_MIN = 4
PACKAGES = ("runtime", "click", "httpx", "starlette")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    text: str
    path: str
    symbol: str
    def_line: int
    last_line: int


Rank = Callable[[Question], int]
"""1 for found first; 0 for not among the first DEPTH."""


def main(folders: Sequence[Path]) -> None:
    files, questions = _corpus(folders or [_package(name) for name in PACKAGES])
    models = Path(tempfile.gettempdir()) / "masterbuilder-bench-models"
    hybrid, lexical = _shard(choose_embedder(models), files), _shard(NoEmbedder(), files)
    ranks: dict[str, list[int]] = {"windows": [], "hybrid": [], "lexical": [], "named": []}
    rankers = {
        "windows": _windows(files),
        "hybrid": _shard_rank(hybrid, _shows),
        "lexical": _shard_rank(lexical, _shows),
        "named": _shard_rank(hybrid, _is_named),
    }
    for question in questions:
        for name, rank in rankers.items():
            ranks[name].append(rank(question))

    _print("questions", len(questions), "count")
    for name, target in (("hybrid", 1.3), ("lexical", 1.1)):
        _compare(f"{name}_mrr", _mrr(ranks[name]), "windows_mrr", _mrr(ranks["windows"]), target)
        _compare(f"{name}_recall", _recall(ranks[name]), "windows_recall", _recall(ranks["windows"]), 1.0)
    _print("named_mrr", _mrr(ranks["named"]), "score")
    for package in sorted({question.path.split("/")[0] for question in questions}):
        chosen = [number for number, question in enumerate(questions) if question.path.startswith(f"{package}/")]
        ours, peers = (_mrr([ranks[name][number] for number in chosen]) for name in ("hybrid", "windows"))
        _print(f"hybrid_mrr_{package}", ours, "score", against=f"windows_mrr {peers:.4g}", ratio=ours / peers)
    _speed(hybrid, choose_embedder(models), files, questions)


def _speed(shard: IndexShard, embedder: Embedder, files: dict[str, bytes], questions: Sequence[Question]) -> None:
    full, one = [], []
    changed = min(files)
    sample = dict(list(files.items())[:40])
    for attempt in range(3):
        fresh = IndexShard(embedder)
        full.append(_timed(partial(fresh.update, Files("full", sample))))
        edited = {**files, changed: files[changed] + f"\n\ndef added_{attempt}():\n    return {attempt}\n".encode()}
        one.append(_timed(partial(shard.update, Files("one", edited))))
    chunks = fresh.status.chunks
    _print("indexed_per_s", chunks / statistics.median(full), "chunks/s")
    whole = statistics.median(full) / chunks * shard.status.chunks
    _compare("one_file_update", statistics.median(one) * 1e3, "full_index", whole * 1e3, 0.1, unit="ms", at_most=True)
    searches = [_timed(partial(shard.search, question.text, DEPTH)) for question in questions[:200]]
    _print("search_p50", statistics.median(searches) * 1e3, "ms", at_most=50.0)
    _print("chunks", shard.status.chunks, "count")


def _package(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None, f"{name} is installed"
    assert spec.origin is not None, f"{name} has a folder"
    return Path(spec.origin).parent


def _corpus(folders: Sequence[Path]) -> tuple[dict[str, bytes], list[Question]]:
    files: dict[str, bytes] = {}
    questions: list[Question] = []
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            name = str(path.relative_to(folder.parent))
            source = path.read_text(encoding="utf-8")
            lines = source.split("\n")
            for node, symbol in _functions(ast.parse(source), ""):
                docstring = ast.get_docstring(node)
                if docstring:
                    sentence = " ".join(docstring.split("\n\n")[0].split()).split(". ")[0]
                    questions.append(
                        Question(
                            text=sentence,
                            path=name,
                            symbol=symbol,
                            def_line=node.lineno,
                            last_line=node.end_lineno or node.lineno,
                        )
                    )
                    _blank(lines, node.body[0])
            files[name] = "\n".join(lines).encode()
    said = Counter(question.text for question in questions)
    return files, [it for it in questions if said[it.text] == 1 and len(it.text.split()) >= WORDS_MIN]


def _functions(node: ast.AST, outer: str) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child, outer + child.name
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{outer}{child.name}.")
        elif isinstance(child, ast.If | ast.Try):
            yield from _functions(child, outer)


def _blank(lines: list[str], statement: ast.stmt) -> None:
    first, last = statement.lineno - 1, statement.end_lineno or statement.lineno
    lines[first] = " " * statement.col_offset + "..."
    lines[first + 1 : last] = [""] * (last - first - 1)


def _shard(embedder: Embedder, files: dict[str, bytes]) -> IndexShard:
    shard = IndexShard(embedder)
    shard.update(Files("bench", files))
    return shard


def _shard_rank(shard: IndexShard, finds: Callable[[Hit, Question], bool]) -> Rank:
    def rank(question: Question) -> int:
        hits = shard.search(question.text, DEPTH)
        return next((number for number, hit in enumerate(hits, 1) if finds(hit, question)), 0)

    return rank


def _is_named(hit: Hit, question: Question) -> bool:
    return (hit.path, hit.symbol) == (question.path, question.symbol)


def _shows(hit: Hit, question: Question) -> bool:
    is_shown = hit.path == question.path and hit.start_line <= question.def_line <= hit.end_line
    return _is_named(hit, question) or (is_shown and hit.symbol != "")


def _windows(files: dict[str, bytes]) -> Rank:
    windows = [
        (path, start + 1, "\n".join(lines[start : start + WINDOW_ROWS]))
        for path, content in sorted(files.items())
        for lines in [content.decode().split("\n")]
        for start in range(0, len(lines), WINDOW_ROWS)
    ]
    index = FieldBm25.of([count_terms((text,)) for _, _, text in windows], (1.0,))

    def rank(question: Question) -> int:
        scores = index.scores(np.array(term_keys(question.text), dtype=np.int64))
        for number, place in enumerate(np.argsort(-scores, kind="stable")[:DEPTH], 1):
            path, first, _ = windows[place]
            if path == question.path and first <= question.last_line and question.def_line < first + WINDOW_ROWS:
                return number
        return 0

    return rank


def _mrr(ranks: Sequence[int]) -> float:
    return statistics.mean(1 / rank if rank else 0.0 for rank in ranks)


def _recall(ranks: Sequence[int]) -> float:
    return statistics.mean(float(rank > 0) for rank in ranks)


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _compare(
    figure: str, value: float, peer: str, against: float, target: float, *, unit: str = "score", at_most: bool = False
) -> None:
    ratio = value / against
    holds = ratio <= target if at_most else ratio >= target
    _line(
        figure,
        value,
        unit,
        f"{peer} {against:.4g}",
        round(ratio, 4),
        f"ratio {'<=' if at_most else '>='} {target}",
        holds,
    )


def _print(
    figure: str,
    value: float,
    unit: str,
    *,
    at_most: float | None = None,
    against: str | None = None,
    ratio: float | None = None,
) -> None:
    holds = at_most is None or value <= at_most
    _line(figure, value, unit, against, ratio, None if at_most is None else f"<= {at_most}", holds)


def _line(
    figure: str, value: float, unit: str, against: str | None, ratio: float | None, target: str | None, holds: bool
) -> None:
    ratio = ratio and round(ratio, 4)
    line = make_figure("index", figure, round(value, 4), unit, against=against, ratio=ratio, target=target, holds=holds)
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
