"""Each descriptor of a confined process's pipes is closed once, whichever loop reads them."""

import asyncio
import io
import os
from collections.abc import Callable, Coroutine

import pytest
import uvloop

from runtime.implementer.confined import _reader, _writer

LOOPS = pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])


class Watched(io.FileIO):
    """Notes whether its descriptor was still open whenever it was closed."""

    def __init__(self, descriptor: int, mode: str) -> None:
        super().__init__(descriptor, mode)
        self.was_open: list[bool] = []

    def close(self) -> None:
        if not self.closed:
            try:
                os.fstat(self.fileno())
            except OSError:
                self.was_open.append(False)
            else:
                self.was_open.append(True)
        super().close()


def assert_nothing_stays_open(
    work: Callable[[], Coroutine[None, None, None]], loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """A loop opens some of its own the first time."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(work())
        before = len(os.listdir("/proc/self/fd"))
        runner.run(work())
        assert len(os.listdir("/proc/self/fd")) == before


@LOOPS
def test_pipe_that_is_read__is_closed_once(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def work() -> None:
        ours, theirs = os.pipe()
        pipe = Watched(ours, "rb")
        stream = await _reader(pipe)
        os.write(theirs, b"said\n")
        os.close(theirs)
        assert await stream.read() == b"said\n"
        await asyncio.sleep(0.05)
        assert pipe.was_open == [True]

    assert_nothing_stays_open(work, loop_factory)


@LOOPS
def test_pipe_that_is_written__is_closed_once(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def work() -> None:
        theirs, ours = os.pipe()
        pipe = Watched(ours, "wb")
        stream = await _writer(pipe)
        stream.write(b"said\n")
        await stream.drain()
        stream.close()
        await asyncio.sleep(0.05)
        with os.fdopen(theirs, "rb") as other:
            assert other.read() == b"said\n"
        assert pipe.was_open == [True]

    assert_nothing_stays_open(work, loop_factory)
