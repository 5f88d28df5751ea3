"""`python -m tests.chaos.ledger --kills 200 --races 100 --backups 20 --seed 1`: a store alone, without Ray, under all
that a ledger can be asked: killed, raced for, and backed up.

One JSON line a figure; what does not hold is told on stderr, with the seed that chose everything.
"""

import argparse
import asyncio
import json
import logging
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.ledger import backups, kills, races

DIFFERENCES_TOLD = 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.ledger", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="kill -9 of a store at work (default: 200)")
    parser.add_argument("--races", type=int, default=100, help="64 callers on one wallet (default: 100)")
    parser.add_argument("--backups", type=int, default=20, help="under load, and restored (default: 20)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder for data and logs, which then stay")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="mb-ledger-", ignore_cleanup_errors=True) as temporary:
        figures, differences = run((given.keep or Path(temporary)).absolute(), given)
    for figure in figures:
        print(json.dumps(figure))
    for difference in differences[:DIFFERENCES_TOLD]:
        print(f"seed {given.seed}: {difference}", file=sys.stderr)
    if (more := len(differences) - DIFFERENCES_TOLD) > 0:
        print(f"seed {given.seed}: and {more} more differences", file=sys.stderr)
    return 0 if all(figure["holds"] for figure in figures) else 1


def run(folder: Path, given: argparse.Namespace) -> tuple[list[dict[str, object]], Sequence[str]]:
    """The parts that are asked for, one after the other."""
    figures: list[dict[str, object]] = []
    differences: list[str] = []
    if given.kills:
        killed = kills.Kills(folder / "kills", given.seed, _say).run(given.kills)
        figures += kills.figures(killed)
        differences += killed.differences
    if given.races:
        raced = asyncio.run(races.Races(folder / "races", given.seed, _say).run(given.races))
        figures += races.figures(raced)
        differences += [text for tally in raced.values() for text in tally.differences]
    if given.backups:
        backed_up = asyncio.run(backups.Backups(folder / "backups", given.seed, _say).run(given.backups))
        figures += backups.figures(backed_up)
        differences += backed_up.differences
    return figures, differences


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
