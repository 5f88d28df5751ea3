"""`make chaos SECONDS=120 SEED=1`: a whole installation under load while its processes are killed at random.

One JSON line a figure; what does not hold is told on stderr, with the seed that chose the moments.
"""

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path

from runtime.errors import MasterbuilderError
from tests.chaos.run import Chaos


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long it kills (default: 120)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-builds", action="store_true", help="messages only")
    parser.add_argument("--heavy", action="store_true", help="also GCS, raylet and supervisor")
    parser.add_argument("--keep", type=Path, help="a folder for data and logs, which then stay")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="mb-chaos-", ignore_cleanup_errors=True) as temporary:
        chaos = Chaos(
            folder=(given.keep or Path(temporary)).absolute(),
            seed=given.seed,
            with_builds=not given.no_builds,
            heavy=given.heavy,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
        try:
            outcome = chaos.run(given.seconds)
        except MasterbuilderError as error:
            print(f"seed {given.seed}: {error}", file=sys.stderr)
            return 1
    for figure in outcome.figures:
        print(json.dumps(figure))
    for difference in outcome.differences:
        print(f"seed {given.seed}: {difference}", file=sys.stderr)
    return 0 if all(figure["holds"] for figure in outcome.figures) else 1


if __name__ == "__main__":
    sys.exit(main())
