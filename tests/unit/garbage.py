"""What the work of a test leaves behind for Python's cycle collector."""

import gc
from collections import Counter
from collections.abc import Awaitable, Callable


async def frames_left_by(work: Callable[[], Awaitable[object]], times: int = 20) -> Counter[str]:
    """Functions whose frames are part of cycles, by name, after `work` was done so often: each holds all that its call
    held. `work` is done before once, for what only a first time makes."""
    await work()
    gc.collect()
    gc.disable()
    try:
        for _ in range(times):
            await work()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        return Counter(each.f_code.co_qualname for each in gc.garbage if type(each).__name__ == "frame")
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
