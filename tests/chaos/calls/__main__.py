"""`python -m tests.chaos.calls --calls 100000 --seed 1`: model calls under faults and kill -9; do all books agree?

One JSON line a figure; what does not hold is told on stderr, with the seed that chose everything.
"""

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path

from runtime.errors import MasterbuilderError
from tests.chaos.calls.run import DIFFERENCES_TOLD, CallChaos


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.calls", description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--kills", type=int, help="how many (default: one in 4,000 calls)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder for data and logs, which then stay")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="mb-calls-", ignore_cleanup_errors=True) as temporary:
        chaos = CallChaos(
            folder=(given.keep or Path(temporary)).absolute(),
            seed=given.seed,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
        try:
            outcome = chaos.run(given.calls, given.kills)
        except MasterbuilderError as error:
            print(f"seed {given.seed}: {error}", file=sys.stderr)
            return 1
    for figure in outcome.figures:
        print(json.dumps(figure))
    for difference in outcome.differences[:DIFFERENCES_TOLD]:
        print(f"seed {given.seed}: {difference}", file=sys.stderr)
    if (more := len(outcome.differences) - DIFFERENCES_TOLD) > 0:
        print(f"seed {given.seed}: and {more} more differences", file=sys.stderr)
    return 0 if all(figure["holds"] for figure in outcome.figures) else 1


if __name__ == "__main__":
    sys.exit(main())
