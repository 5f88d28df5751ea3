"""How deep code nests, told without a parser."""

import numpy as np
import numpy.typing as npt

_WEIGHTS = np.zeros(256, dtype=np.int32)
_WEIGHTS[list(b"([{")] = 1
_WEIGHTS[list(b")]}")] = -1
_IS_ANGLES_END = np.zeros(256, dtype=np.bool_)
_IS_ANGLES_END[list(b";{}()>")] = True
_IS_BLANK = np.zeros(256, dtype=np.bool_)
_IS_BLANK[list(b" \t\r\n\f\v")] = True
_IS_STATEMENTS_END = np.zeros(256, dtype=np.bool_)
_IS_STATEMENTS_END[list(b";{}")] = True


def nesting_of(source: bytes) -> int:
    """The most brackets open at a time, or, if it is more, the most `<` without a bracket, `>` or `;` between, or the
    most `#` side by side: the ends of a raw string in Swift.

    Brackets in strings and comments count too. 3 ms for 256 KiB.
    """
    if not source:
        return 0
    characters = np.frombuffer(source, dtype=np.uint8)
    opened = np.cumsum(_WEIGHTS[characters])
    depth = opened - np.minimum(np.minimum.accumulate(opened), 0)
    is_hash = characters == ord("#")
    return max(
        int(depth.max()),
        _most_between(characters == ord("<"), _IS_ANGLES_END[characters]),
        _most_between(is_hash, ~is_hash),
    )


def arrows_of(source: bytes) -> int:
    """The most `=` with a `>` behind it, blanks apart, in one statement."""
    characters = np.frombuffer(source, dtype=np.uint8)
    words = characters[~_IS_BLANK[characters]]
    is_arrow = (words[:-1] == ord("=")) & (words[1:] == ord(">"))
    return _most_between(is_arrow, _IS_STATEMENTS_END[words[:-1]])


def _most_between(is_counted: npt.NDArray[np.bool_], is_end: npt.NDArray[np.bool_]) -> int:
    return int(np.bincount(np.cumsum(is_end)[is_counted]).max(initial=0))
