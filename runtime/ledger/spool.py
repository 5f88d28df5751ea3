"""Where a process writes its calls before they are sent and when their usage is known, so that kill -9 loses nothing.

A line is one `write`: what the kernel has, a dying process cannot take back. A process owns its files by `flock`, which
falls with it: a file whose lock can be taken is an orphan, and whoever finds it settles its calls. Lines hold names and
numbers, never text of a prompt and never a key. Source: DESIGN §4.
"""

import fcntl
import json
import logging
import os
import secrets
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from runtime.errors import StoreUnavailableError
from runtime.ledger.money import Price
from runtime.ledger.port import EscrowCall, EscrowId, Hold, Meter
from runtime.ledger.records import at_us

log = logging.getLogger(__name__)

FOLDER = "spool"
"""In the data folder of every node."""
SUFFIX = ".spool"
UNFINISHED = ".new"
SEGMENT_BYTES_MAX = 4 << 20
CLEARED_ABOVE_BYTES = 64 << 10
UNFINISHED_S_MAX = 60.0

_ENCODE = msgspec.json.Encoder().encode
_EPOCH = at_us(0)


class Segment:
    """One file of a process: its lines, until every call in it is settled."""

    __slots__ = ("_descriptor", "_is_torn", "calls", "path", "size_bytes")

    def __init__(self, folder: Path, process: str) -> None:
        """Raises OSError. A sweeper never sees the file before it is locked."""
        name = f"{process}.{secrets.token_hex(4)}"
        unfinished = folder / f"{name}{UNFINISHED}"
        self.path = folder / f"{name}{SUFFIX}"
        self._descriptor = os.open(unfinished, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unfinished.rename(self.path)
        except OSError:
            os.close(self._descriptor)
            raise
        self.calls = 0
        """Begun in it and not settled."""
        self.size_bytes = 0
        self._is_torn = False

    def write(self, line: list[Any]) -> None:
        """One line, whole. Raises OSError; a part of it may be there then, which reading ignores."""
        data = _ENCODE(line) + b"\n"
        if self._is_torn:
            data = b"\n" + data
        self._is_torn = True
        if os.write(self._descriptor, data) != len(data):
            raise OSError("only a part of a line fitted")
        self._is_torn = False
        self.size_bytes += len(data)

    def clear(self) -> None:
        os.ftruncate(self._descriptor, 0)
        self.size_bytes = 0

    def close(self) -> None:
        os.close(self._descriptor)


class Spool:
    """The lines of one process. Touches nothing before the first call. Used from one thread."""

    def __init__(self, data_dir: Path, process: str, segment_bytes_max: int = SEGMENT_BYTES_MAX) -> None:
        """`process` names the process in the ledger: letters, digits and dashes, never used before."""
        assert process.replace("-", "").isalnum(), process
        self.process = process
        self._folder = data_dir / FOLDER
        self._segment_bytes_max = segment_bytes_max
        self._segments: list[Segment] = []
        """The last is written to."""

    def begin(self, escrow: EscrowId, hold: Hold, held_at: datetime) -> Segment:
        """Before the call is sent. Raises StoreUnavailableError: it must not be sent then."""
        try:
            segment = self._current()
            segment.write(_begun(escrow, hold, held_at))
        except OSError as error:
            raise _unwritable(self._folder, error) from error
        segment.calls += 1
        return segment

    def end(self, segment: Segment, meter: Meter) -> None:
        """When usage is known. Raises StoreUnavailableError: only the ledger can be told then."""
        try:
            segment.write(_metered(meter))
        except OSError as error:
            raise _unwritable(self._folder, error) from error

    def settled(self, segment: Segment) -> None:
        """One of the segment's calls is in the ledger. A segment without others is deleted, or begun anew."""
        segment.calls -= 1
        if segment.calls:
            return
        if segment is not self._segments[-1]:
            self._delete(segment)
        elif segment.size_bytes > CLEARED_ABOVE_BYTES:
            segment.clear()

    def close(self) -> None:
        """Deletes what is settled and leaves the rest to whoever finds it."""
        for segment in list(self._segments):
            if segment.calls:
                segment.close()
            else:
                self._delete(segment)
        self._segments.clear()

    def _current(self) -> Segment:
        if not self._segments or self._segments[-1].size_bytes >= self._segment_bytes_max:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._segments.append(Segment(self._folder, self.process))
        return self._segments[-1]

    def _delete(self, segment: Segment) -> None:
        segment.path.unlink(missing_ok=True)
        segment.close()
        self._segments.remove(segment)


@dataclass(slots=True)
class Orphan:
    """What a dead process left, locked by whoever found it."""

    process: str
    files: dict[Path, int]
    """With their descriptors."""

    def calls(self) -> Iterator[tuple[str, list[EscrowCall]]]:
        """Each file's name and calls; without a line of usage they have no meter. A line that was cut off is none."""
        for path, descriptor in sorted(self.files.items()):
            yield path.stem, _calls(_content(descriptor))

    def delete(self) -> None:
        """Once the ledger has everything."""
        for path in self.files:
            path.unlink(missing_ok=True)
        self.let_go()

    def let_go(self) -> None:
        for descriptor in self.files.values():
            os.close(descriptor)
        self.files.clear()


def find_orphans(data_dir: Path) -> list[Orphan]:
    """Takes over the files of processes that are dead. Blocks for a moment; each must be deleted or let go."""
    folder = data_dir / FOLDER
    found: dict[str, dict[Path, int]] = defaultdict(dict)
    for path in folder.glob(f"*{SUFFIX}"):
        descriptor = _locked(path)
        if descriptor is not None:
            found[path.name.split(".")[0]][path] = descriptor
    for path in folder.glob(f"*{UNFINISHED}"):
        _remove_unfinished(path)
    return [Orphan(process=process, files=files) for process, files in found.items()]


def _locked(path: Path) -> int | None:
    """None while its owner lives, or when it is gone."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _remove_unfinished(path: Path) -> None:
    """Left behind between making a file and locking it; it never held a line."""
    try:
        if time.time() - path.stat().st_mtime > UNFINISHED_S_MAX:
            path.unlink()
    except OSError:
        pass


def _content(descriptor: int) -> bytes:
    with os.fdopen(os.dup(descriptor), "rb") as file:
        file.seek(0)
        return file.read()


def _calls(content: bytes) -> list[EscrowCall]:
    begun: dict[str, EscrowCall] = {}
    meters: dict[str, Meter] = {}
    for line in content.split(b"\n"):
        try:
            kind, *values = json.loads(line)
            if kind == "begun":
                call = _call_of(*values)
                begun[call.hold.call] = call
            elif kind == "metered":
                meter = _meter_of(*values)
                meters.setdefault(meter.call, meter)
        except (ValueError, TypeError):
            if line:
                log.warning("a line of %d bytes in the spool was cut off", len(line))
    return [
        EscrowCall(escrow=call.escrow, hold=call.hold, meter=meters.get(name), held_at=call.held_at)
        for name, call in begun.items()
    ]


def _begun(escrow: EscrowId, hold: Hold, held_at: datetime) -> list[Any]:
    assert hold.run is None, "a run's calls are held one by one"
    price = hold.price
    return [
        "begun", escrow, _us(held_at), hold.call, hold.user, hold.project, hold.token_sha256, hold.task_type,
        hold.provider, hold.model, hold.input_tokens_max, hold.output_tokens_max, price.pricing_id,
        price.input_udollars_per_mtok, price.output_udollars_per_mtok, hold.images, price.image_udollars,
    ]  # fmt: skip


def _call_of(
    escrow: Any, held_at_us: Any, call: Any, user: Any, project: Any, token_sha256: Any, task_type: Any,
    provider: Any, model: Any, input_max: Any, output_max: Any, pricing_id: Any, input_price: Any, output_price: Any,
    images: Any = 0, image_price: Any = 0,
) -> EscrowCall:  # fmt: skip
    price = Price(
        pricing_id=pricing_id,
        input_udollars_per_mtok=input_price,
        output_udollars_per_mtok=output_price,
        image_udollars=image_price,
    )
    hold = Hold(
        call=call,
        user=user,
        run=None,
        task_type=task_type,
        provider=provider,
        model=model,
        input_tokens_max=input_max,
        output_tokens_max=output_max,
        price=price,
        project=project,
        token_sha256=token_sha256,
        images=images,
    )
    return EscrowCall(escrow=escrow, hold=hold, meter=None, held_at=at_us(held_at_us))


def _metered(meter: Meter) -> list[Any]:
    return [
        "metered", meter.call, meter.input_tokens, meter.output_tokens, meter.response_time_ms, meter.key_id,
        meter.provider_failed, meter.estimated, meter.unserved,
    ]  # fmt: skip


def _meter_of(
    call: Any,
    input_tokens: Any,
    output_tokens: Any,
    ms: Any,
    key_id: Any,
    failed: Any,
    estimated: Any,
    unserved: Any = False,  # Not told by an earlier version.
) -> Meter:
    return Meter(
        call=call,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        response_time_ms=ms,
        key_id=key_id,
        provider_failed=failed,
        estimated=estimated,
        unserved=unserved,
    )


def _us(moment: datetime) -> int:
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _unwritable(folder: Path, error: OSError) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"The spool in {folder} cannot be written ({error.strerror or error}), so no call can be accounted for.",
        "Check that its disk has room and is healthy.",
    )
