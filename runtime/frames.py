"""Where an error happened, for logs that must not repeat what was being said."""

import traceback

FRAMES_MAX = 8


def frames(error: BaseException) -> list[str]:
    """File, line and function of each of the last frames, the innermost last. Nothing of the error's own text."""
    seen = traceback.extract_tb(error.__traceback__)
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in seen][-FRAMES_MAX:]
