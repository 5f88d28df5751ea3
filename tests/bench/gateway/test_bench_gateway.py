"""A small run of the gateway's benchmark without peers: every figure comes, and every call was paid."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
SMALL = ["--seconds", "0.3", "--rounds", "1", "--without", "portkey,litellm"]


def test_bench_gateway__prints_every_figure_and_pays_every_call() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.bench.gateway", *SMALL], cwd=ROOT, capture_output=True, text=True
    )

    figures = {line["figure"]: line for line in map(json.loads, run.stdout.splitlines())}
    assert run.returncode in (0, 1), run.stderr
    assert len(figures) == 25, run.stderr
    fields = {"bench", "figure", "value", "unit", "against", "ratio", "target", "holds"}
    assert all(figure.keys() == fields and figure["bench"] == "gateway" for figure in figures.values())
    assert figures["credits charged for the calls that were answered"]["holds"], figures
    assert figures["calls that failed"]["holds"], run.stderr
    assert figures["tokens lost, 64 streams"]["holds"]
