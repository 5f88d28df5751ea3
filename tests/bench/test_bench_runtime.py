"""A small run of the runtime's benchmark: every figure comes, whatever its value."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SMALL = ["--seconds", "0.5", "--scale", "0.002", "--rounds", "1"]


def test_bench_runtime__prints_every_figure() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.bench.runtime", *SMALL], cwd=ROOT, capture_output=True, text=True
    )

    figures = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    assert run.returncode in (0, 1), run.stderr
    assert len(figures) == 17, run.stderr
    fields = {"bench", "figure", "value", "unit", "against", "ratio", "target", "holds"}
    assert all(figure.keys() == fields and figure["bench"] == "runtime" for figure in figures)
