"""What must hold after a demo: the money to the last picodollar, and a ZIP that works by itself."""

import asyncio
import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from cluster.wire import Receipt, ReceiptRow
from runtime.catalogue.catalogue import CATALOGUE
from runtime.errors import ConflictError
from runtime.implementer.sandbox import Sandbox
from runtime.implementer.scratch import Scratch
from runtime.implementer.work import Limits
from runtime.project.schemas import Commands

TEST_FILES = "tests/*test*"
TESTS_MIN = 21
_RAN = re.compile(r"^Ran (\d+) tests? in|^(?:#|\u2139) pass (\d+)$", re.MULTILINE)
"""How unittest and Node's test runner say how many ran."""
_UNKNOWN = "interrupted_unknown"
_ESTIMATED = "interrupted_estimated"
_GUESSED = (_UNKNOWN, _ESTIMATED)
"""A call cut off before anybody could count it: its row holds the upper bound, or our estimate of what was sent.
Neither is charged."""
_UNTICKED = re.compile(r"^\s*[-*] \[ \]", re.MULTILINE)


def check_books(receipt: Receipt, paid_ucredits: int, usage_file: Path) -> Iterator[str]:
    """Compares receipt, wallet and the simulator's own count, call by call. Raises ConflictError where they differ."""
    if receipt.pending:
        raise ConflictError(f"{len(receipt.pending)} calls of the receipt are still pending.")
    if receipt.total_ucredits != paid_ucredits:
        raise ConflictError(f"The receipt says {receipt.total_ucredits} ucredits, the wallet paid {paid_ucredits}.")
    yield f"balance before - after = receipt: {receipt.total_credits} credits"

    if sum(row.cost_pusd for row in receipt.charged) != receipt.total_cost_pusd:
        raise ConflictError("The receipt's lines do not add up to its total.")
    served = _served(usage_file)
    booked = {row.call: row for row in (*receipt.charged, *receipt.losses)}
    if served.keys() != booked.keys():
        raise ConflictError(
            f"Served but not on the receipt: {sorted(served.keys() - booked.keys())}; "
            f"on the receipt but not served: {sorted(booked.keys() - served.keys())}."
        )
    for call, (input_tokens, output_tokens) in served.items():
        _compare(booked[call], input_tokens, output_tokens)
    counted = [row for row in booked.values() if row.outcome not in _GUESSED]
    total = sum(row.cost_pusd for row in counted)
    yield f"receipt = the provider's own count of {len(counted)} calls, to the last picodollar: {total} pUSD"
    if receipt.losses:
        yield f"{len(receipt.losses)} calls were interrupted; they are the platform's loss and cost nothing"


async def check_package(zip_file: Path, scratch_dir: Path, commands: Commands) -> Sequence[str]:
    """Unzips, builds and runs the delivered tests in the sandbox. Raises ConflictError, SandboxUnavailableError.

    A project that installs packages is not tested once more: here is nowhere to have them from.
    """
    files = await asyncio.to_thread(_unzipped, zip_file)
    root = next(iter(files)).split("/")[0]
    todo = files.get(f"{root}/TODO.md", b"").decode()
    if not todo or _UNTICKED.search(todo):
        raise ConflictError("The delivered TODO.md is missing or not fully ticked.")
    unzipped = f"the ZIP unzips: {len(files)} files, TODO.md fully ticked"
    if commands.install:
        return [unzipped, f"its packages are installed with `{commands.install}`: the build did so for every check"]
    command = " && ".join(each for each in (commands.build, commands.test.replace("{tests}", TEST_FILES)) if each)
    scratch = Scratch(scratch_dir)
    await scratch.open()
    try:
        async with scratch.subfolder("package") as folder:
            for path, data in files.items():
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
            result = await Sandbox().run(command, workdir=folder / root, limits=Limits(wall_s=120.0))
    finally:
        await scratch.close()
    ran = _RAN.search(result.output)
    count = int(ran[1] or ran[2]) if ran else 0
    if not result.passed or count < TESTS_MIN:
        raise ConflictError(f"The delivered tests do not pass ({count} ran):\n{result.output[-2000:]}")
    return [unzipped, f"its {count} tests pass in the sandbox, with nothing installed"]


def _compare(row: ReceiptRow, input_tokens: int, output_tokens: int) -> None:
    if row.outcome == _ESTIMATED and row.credits_ucredits == 0:
        if row.input_tokens > input_tokens or row.output_tokens > output_tokens:
            raise ConflictError(f"{row.call}: less was served than the loss that was booked for it.")
        return
    if row.outcome == _UNKNOWN and row.credits_ucredits == 0:
        if row.input_tokens < input_tokens or row.output_tokens < output_tokens:
            raise ConflictError(f"{row.call}: more was served than the loss that was booked for it.")
        return
    if (row.input_tokens, row.output_tokens) != (input_tokens, output_tokens):
        raise ConflictError(
            f"{row.call}: the receipt says {row.input_tokens} + {row.output_tokens} tokens, "
            f"{input_tokens} + {output_tokens} were served."
        )
    expected = CATALOGUE.named(row.model_id).price.cost_pusd(input_tokens, output_tokens)
    if row.cost_pusd != expected:
        raise ConflictError(f"{row.call}: the receipt says {row.cost_pusd} pUSD, the price list {expected}.")


def _served(usage_file: Path) -> dict[str, tuple[int, int]]:
    """Call id -> prompt and completion tokens, summed over repeats of the same call."""
    served: dict[str, tuple[int, int]] = {}
    for line in usage_file.read_text().splitlines():
        call = json.loads(line)
        before = served.get(call["call_id"], (0, 0))
        served[call["call_id"]] = (before[0] + call["prompt_tokens"], before[1] + call["completion_tokens"])
    return served


def _unzipped(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        if (broken := archive.testzip()) is not None:
            raise ConflictError(f"The ZIP is damaged at {broken}.")
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if not names or any(name.startswith("/") or ".." in name.split("/") for name in names):
            raise ConflictError("The ZIP is empty, or has paths outside its folder.")
        return {name: archive.read(name) for name in names}
