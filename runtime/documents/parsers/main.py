"""The process that reads one document: the file's path in, its sections or a refusal out, as JSON on stdout."""

import gc
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from runtime.documents.parsers.refusal import TOO_MUCH_MEMORY, Budget, Refusal
from runtime.documents.section import Section, cleaned

Read = Callable[[Path, Budget], Iterable[Section]]


def main() -> None:
    """Arguments: a module of this package, the path, and the two bounds of the budget."""
    reply = os.dup(1)
    # What a native library prints is not part of the reply.
    os.dup2(2, 1)
    # One document and then the end: looking for garbage among millions of values takes longer than reading them.
    gc.disable()
    module, path, characters_max, pages_max = sys.argv[1:5]
    budget = Budget(characters_max=int(characters_max), pages_max=int(pages_max))
    read: Read = import_module(f"runtime.documents.parsers.{module}").sections_of
    with os.fdopen(reply, "w", encoding="utf-8", errors="replace") as out:
        json.dump(_answer(read, Path(path), budget), out, ensure_ascii=False)


def _answer(read: Read, path: Path, budget: Budget) -> Mapping[str, Any]:
    try:
        return {"sections": [{**asdict(section), "text": cleaned(section.text)} for section in read(path, budget)]}
    except Refusal as refusal:
        return {"refused": refusal.why, "is_too_large": refusal.is_too_large}
    except MemoryError:
        return {"refused": TOO_MUCH_MEMORY, "is_too_large": True}
