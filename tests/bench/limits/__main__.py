"""`make bench NAME=limits`: 20 limited keys, five times the demand: how much is served, how fairly, within the limits.

One JSON line a figure; what does not hold is told on stderr, with the seed that chose everything.
"""

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path

from runtime.errors import MasterbuilderError
from tests.bench.limits.run import WARM_UP_S, Limits


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.limits", description=__doc__)
    parser.add_argument("--seconds", type=float, default=180.0, help="how long it is judged (default: 180)")
    parser.add_argument("--warm-up", type=float, default=WARM_UP_S, help="how long before that (default: none)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder for data and logs, which then stay")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="mb-limits-", ignore_cleanup_errors=True) as temporary:
        folder = (given.keep or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        limits = Limits(folder=folder, seed=given.seed, say=lambda text: print(text, file=sys.stderr, flush=True))
        try:
            figures = limits.run(given.seconds, given.warm_up)
        except MasterbuilderError as error:
            print(f"seed {given.seed}: {error}", file=sys.stderr)
            return 1
    for figure in figures:
        print(json.dumps(figure))
    return 0 if all(figure["holds"] for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
