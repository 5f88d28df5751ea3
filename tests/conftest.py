"""How the tests share the machine when `make test` runs them in several processes at once (pytest-xdist).

A file runs in one process, so that its tests may share a service. Everything a test starts is its own: data folder,
ports, Ray. The files that take minutes, most of them waiting, begin first; the short ones fill what is left.
"""

import os
from pathlib import Path

import pytest

from cluster.ports import RANGE_VARIABLE, port_range

WORKERS_MAX = 8
FIRST = ("e2e", "acceptance", "cluster", "chaos", "bench", "contract", "unit")
"""The folders of `tests/`, in the order in which their files begin."""
HERE = Path(__file__).parent


def pytest_configure() -> None:
    """Each process, and what it starts, takes ports out of a range of its own."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None:
        whole = port_range()
        share = len(whole) // WORKERS_MAX
        ours = whole[int(worker.removeprefix("gw")) * share :][:share]
        os.environ[RANGE_VARIABLE] = f"{ours[0]}-{ours[-1]}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: FIRST.index(item.path.relative_to(HERE).parts[0]))
