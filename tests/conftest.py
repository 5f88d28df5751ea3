"""How the tests share the machine when `make test` runs them in several processes at once (pytest-xdist).

A file runs in one process, so that its tests may share a service. Everything a test starts is its own: data folder,
ports, Ray. The files that take minutes, most of them waiting, begin first; the short ones fill what is left.
"""

import ast
import os
import threading
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from cluster.ports import RANGE_VARIABLE, port_range

FIRST = ("acceptance", "e2e/test_kills.py", "cluster", "e2e", "chaos", "bench", "contract", "unit")
"""Files and folders of `tests/`, in the order in which they begin; all others come last."""
HERE = Path(__file__).parent


def pytest_configure() -> None:
    """Each process, and what it starts, takes ports out of a range of its own."""
    _parse_one_at_a_time()
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None:
        whole = port_range()
        share = len(whole) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        ours = whole[int(worker.removeprefix("gw")) * share :][:share]
        os.environ[RANGE_VARIABLE] = f"{ours[0]}-{ours[-1]}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _place(item.path.relative_to(HERE)))


def _place(file: Path) -> int:
    named = [place for place, path in enumerate(FIRST) if file.is_relative_to(path)]
    return named[0] if named else len(FIRST)


def _parse_one_at_a_time() -> None:
    """As `runtime.implementer.python_syntax` for the product: pytest and Hypothesis read sources too, while threads of
    a test do. Source: python/cpython#106905, mended in 3.11.8 and 3.12.2."""
    parse, parsing = ast.parse, threading.RLock()

    @wraps(parse)
    def parse_alone(*arguments: Any, **named: Any) -> Any:
        with parsing:
            return parse(*arguments, **named)

    ast.parse = parse_alone
