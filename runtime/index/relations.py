"""Who calls what, by name: calls carry no types, so what is found is likely, not certain."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath

from runtime.index.chunk import Chunk
from runtime.index.language import SYNTAXES

RELATED_MAX = 50
AMBIGUOUS_MAX = 8
"""A name with more definitions than this, none of them closer than the others, says nothing of which is meant."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Of a definition: its first chunk, its file and the class around it."""

    number: int
    path: str
    outer: str


class Relations:
    """Of the chunks of one tree. Made in one pass; asking touches only the chunks that have the name."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self._chunks = chunks
        self._places: dict[str, dict[tuple[str, str], _Place]] = defaultdict(dict)
        self._calling: dict[str, list[int]] = defaultdict(list)
        for number, chunk in enumerate(chunks):
            for name in chunk.calls:
                self._calling[name].append(number)
            if chunk.symbol and _is_code(chunk.path):
                outer, _, name = chunk.symbol.rpartition(".")
                self._places[name].setdefault((chunk.path, chunk.symbol), _Place(number, chunk.path, outer))

    def definitions_of(self, symbol: str) -> list[int]:
        """The first chunk of each, in order, at most RELATED_MAX. `symbol` is `Class.method`, or the end of it."""
        return _bounded(place.number for place in self._defined(symbol))

    def callees_of(self, symbol: str) -> list[int]:
        """The first chunk of each definition that `symbol` calls, in order of the calls; at most RELATED_MAX."""
        pieces = list(islice(self._pieces_of(symbol), RELATED_MAX))
        named = {name: self._namesakes(name) for chunk in pieces for name in chunk.calls}
        return _bounded(
            place.number for chunk in pieces for name in chunk.calls for place in named[name].meant_by(chunk)
        )

    def callers_of(self, symbol: str) -> list[int]:
        """The chunks with a call that means `symbol`, those of its files first; at most RELATED_MAX."""
        defined = {place.number: place.path for place in self._defined(symbol)}
        paths = set(defined.values())
        name = _last(symbol)
        namesakes = self._namesakes(name)
        calling = sorted(self._calling.get(name, ()), key=lambda number: self._chunks[number].path not in paths)
        return _bounded(
            number
            for number in calling
            if any(place.number in defined for place in namesakes.meant_by(self._chunks[number]))
        )

    def _namesakes(self, name: str) -> "_Namesakes":
        return _Namesakes(self._places.get(name, {}).values())

    def _defined(self, symbol: str) -> list[_Place]:
        """The definitions with exactly this symbol, else those whose symbol ends with it."""
        places = self._places.get(_last(symbol), {})
        exact = [place for (_, it), place in places.items() if it == symbol]
        return exact or [place for (_, it), place in places.items() if it.endswith(f".{symbol}")]

    def _pieces_of(self, symbol: str) -> Iterator[Chunk]:
        for place in self._defined(symbol):
            defined = self._chunks[place.number]
            for number in range(place.number, len(self._chunks)):
                chunk = self._chunks[number]
                if chunk.path != defined.path:
                    break
                if chunk.symbol == defined.symbol:
                    yield chunk


class _Namesakes:
    """The definitions of one name, by where they are seen from: their class, file, folder, kind of file, anywhere."""

    def __init__(self, places: Iterable[_Place]) -> None:
        self._seen: dict[tuple[str, ...], list[_Place]] = defaultdict(list)
        for place in places:
            for view in _views(place.path, place.outer):
                self._seen[view].append(place)

    def meant_by(self, caller: Chunk) -> Sequence[_Place]:
        """The closest ones, if they are few enough to tell."""
        own, outer = _views(caller.path, caller.symbol), _views(caller.path, caller.symbol.rpartition(".")[0])
        meant = next((places for view in (own[0], *outer) if (places := self._seen.get(view))), [])
        return meant if len(meant) <= AMBIGUOUS_MAX else ()


def _views(path: str, outer: str) -> list[tuple[str, ...]]:
    """Closest first. A class has its methods in several files of a folder where it is Go's or C++'s."""
    folder, _, name = path.rpartition("/")
    in_class = ("class", folder, outer) if outer else ("file", path)
    return [in_class, ("file", path), ("folder", folder), ("kind", PurePosixPath(name).suffix), ()]


def _last(symbol: str) -> str:
    return symbol.rpartition(".")[2]


def _is_code(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in SYNTAXES


def _bounded(numbers: Iterable[int]) -> list[int]:
    """Each once, in order; asks for no more than it needs."""
    found: dict[int, None] = {}
    for number in numbers:
        found[number] = None
        if len(found) == RELATED_MAX:
            break
    return list(found)
