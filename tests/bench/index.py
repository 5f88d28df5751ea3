"""How well and how fast the index finds code: `python tests/bench/index.py [folder ...]`.

The task: given the first sentence of a function's docstring, find the function. The docstrings are taken out of the
code first. Peer: BM25 over 40-line windows with the same words, in the same run, where any window that touches the
function counts as found; of the index, only a chunk with the function's own name does.

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
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from runtime.index.bm25 import FieldBm25
from runtime.index.embedder import Embedder, NoEmbedder, choose_embedder
from runtime.index.shard import IndexShard
from runtime.index.terms import count_terms, term_keys

DEPTH = 10
WINDOW_ROWS = 40
WORDS_MIN = 4
PACKAGES = ("runtime", "click", "httpx", "starlette")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    text: str
    path: str
    symbol: str
    first_line: int
    last_line: int


Rank = Callable[[Question], int]
"""1 for found first; 0 for not among the first DEPTH."""


def main(folders: Sequence[Path]) -> None:
    files, questions = _corpus(folders or [_package(name) for name in PACKAGES])
    models = Path(tempfile.gettempdir()) / "masterbuilder-bench-models"
    hybrid, lexical = _shard(choose_embedder(models), files), _shard(NoEmbedder(), files)
    ranks: dict[str, list[int]] = {"windows": [], "hybrid": [], "lexical": []}
    rankers = {"windows": _windows(files), "hybrid": _shard_rank(hybrid), "lexical": _shard_rank(lexical)}
    for question in questions:
        for name, rank in rankers.items():
            ranks[name].append(rank(question))

    _print("questions", len(questions), "count")
    for name, target in (("hybrid", 1.3), ("lexical", 1.1)):
        _compare(f"{name}_mrr", _mrr(ranks[name]), "windows_mrr", _mrr(ranks["windows"]), target)
        _compare(f"{name}_recall", _recall(ranks[name]), "windows_recall", _recall(ranks["windows"]), 1.0)
    _speed(hybrid, choose_embedder(models), files, questions)


def _speed(shard: IndexShard, embedder: Embedder, files: dict[str, bytes], questions: Sequence[Question]) -> None:
    full, one = [], []
    changed = min(files)
    sample = dict(list(files.items())[:40])
    for attempt in range(3):
        fresh = IndexShard(embedder)
        full.append(_timed(lambda shard=fresh: shard.update("full", sample)))
        edited = {**files, changed: files[changed] + f"\n\ndef added_{attempt}():\n    return {attempt}\n".encode()}
        one.append(_timed(lambda edited=edited: shard.update("one", edited)))
    chunks = fresh.status.chunks
    _print("indexed_per_s", chunks / statistics.median(full), "chunks/s")
    whole = statistics.median(full) / chunks * shard.status.chunks
    _compare("one_file_update", statistics.median(one) * 1e3, "full_index", whole * 1e3, 0.1, unit="ms", at_most=True)
    searches = [_timed(lambda text=question.text: shard.search(text, DEPTH)) for question in questions[:200]]
    _print("search_p50", statistics.median(searches) * 1e3, "ms", target=50.0, at_most=True)
    _print("chunks", shard.status.chunks, "count")


def _package(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None and spec.origin is not None, f"{name} is installed"
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
                    first = min([node.lineno, *(it.lineno for it in node.decorator_list)])
                    sentence = " ".join(docstring.split("\n\n")[0].split()).split(". ")[0]
                    questions.append(
                        Question(
                            text=sentence,
                            path=name,
                            symbol=symbol,
                            first_line=first,
                            last_line=node.end_lineno or first,
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
    shard.update("bench", files)
    return shard


def _shard_rank(shard: IndexShard) -> Rank:
    def rank(question: Question) -> int:
        hits = shard.search(question.text, DEPTH)
        found = (n for n, hit in enumerate(hits, 1) if (hit.path, hit.symbol) == (question.path, question.symbol))
        return next(found, 0)

    return rank


def _windows(files: dict[str, bytes]) -> Rank:
    windows = [
        (path, start + 1, "\n".join(lines[start : start + WINDOW_ROWS]))
        for path, content in sorted(files.items())
        for lines in [content.decode().split("\n")]
        for start in range(0, len(lines), WINDOW_ROWS)
    ]
    index = FieldBm25([count_terms((text,)) for _, _, text in windows], (1.0,))

    def rank(question: Question) -> int:
        scores = index.scores(np.array(term_keys(question.text), dtype=np.int64))
        for number, place in enumerate(np.argsort(-scores, kind="stable")[:DEPTH], 1):
            path, first, _ = windows[place]
            if path == question.path and first <= question.last_line and question.first_line < first + WINDOW_ROWS:
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


def _print(figure: str, value: float, unit: str, target: float | None = None, *, at_most: bool = False) -> None:
    holds = target is None or (value <= target if at_most else value >= target)
    _line(figure, value, unit, None, None, None if target is None else f"{'<=' if at_most else '>='} {target}", holds)


def _line(
    figure: str, value: float, unit: str, against: str | None, ratio: float | None, target: str | None, holds: bool
) -> None:
    record = {"bench": "index", "figure": figure, "value": round(value, 4), "unit": unit}
    print(json.dumps({**record, "against": against, "ratio": ratio, "target": target, "holds": holds}), flush=True)


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
