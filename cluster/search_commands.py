"""Commands that search code: a project's through the service, and any folder of one's own without it."""

import time
import uuid
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.syntax import Syntax

from cluster.project_commands import json_option, resolved_project
from cluster.terminal import Terminal, pass_terminal, plain, print_json
from cluster.wire import Hit, Hits, Place, Related
from runtime.config import Secrets
from runtime.errors import BadInputError
from runtime.index.filter import KINDS, LANGUAGES, Filter
from runtime.store.seal import Seal
from serve_apps.hit_json import hit_json, related_json

if TYPE_CHECKING:
    from runtime.index.embedder import Embedder, Vectors

BATCH = 32
SHOWN_LINES_MAX = 12


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@json_option
@pass_terminal
def index(terminal: Terminal, path: Path, as_json: bool) -> None:
    """Makes the folder PATH searchable, on this machine alone; again, it reads what has changed."""
    local = _Local(terminal, path)
    began_s = time.monotonic()
    local.update(Console(stderr=True))
    facts = {**local.facts(), "seconds": round(time.monotonic() - began_s, 1)}
    if as_json:
        print_json(facts)
        return
    click.echo(
        f"{facts['files']} files, {facts['chunks']} chunks in {facts['seconds']} s; "
        f"{facts['embedded']} were embedded anew ({facts['embedder']})."
    )
    if facts["skipped"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in facts["skipped"].items())
        click.echo(f"Not searched, or not wholly: {reasons}.")
    if facts["embedder"] == "lexical":
        click.echo("There is no embedding model here, so it goes by words and names alone: `make setup` installs one.")
    click.echo(f'Ask it: masterbuilder search {path} "where is the configuration read"')


@click.command()
@click.argument("where", metavar="PROJECT|PATH")
@click.argument("query")
@click.option("--limit", type=click.IntRange(1, 50), default=5, show_default=True, help="How many at most.")
@click.option("--path", "below", default="", help="Only this file, this folder, or what fits a pattern: 'src/*.py'.")
@click.option("--language", type=click.Choice(sorted({*LANGUAGES.values(), "text"})), help="Only files of this.")
@click.option("--kind", type=click.Choice(KINDS), help="Only these.")
@click.option("--threshold", type=click.FloatRange(0, 1), default=0.0, help="Only what scores at least this.")
@json_option
@pass_terminal
def search(
    terminal: Terminal,
    where: str,
    query: str,
    limit: int,
    below: str,
    language: str | None,
    kind: str | None,
    threshold: float,
    as_json: bool,
) -> None:
    """Finds the code of a PROJECT, or of the folder PATH, that is nearest to QUERY: a name, or what it should do."""
    if not query.strip():
        raise BadInputError("The question is empty.", "Say what you look for, by its name or in your own words.")
    asked = {
        "query": query,
        "limit": limit,
        "path": below,
        "language": language or "",
        "kind": kind or "",
        "threshold": threshold,
    }
    if where == "last" or _is_id(where):
        found = terminal.client.search(resolved_project(terminal, where), asked)
    else:
        found = _Local(terminal, Path(where)).search(asked)
    if found.by_words_because and not as_json:
        click.echo(f"By words and names alone for now: {found.by_words_because}", err=True)
    if as_json:
        print_json(found)
    elif not found.hits:
        click.echo("Nothing was found. Fewer conditions or other words may help.")
    else:
        for number, hit in enumerate(found.hits, 1):
            _show(terminal.console, number, hit)


@click.command()
@click.argument("where", metavar="PROJECT|PATH")
@click.argument("symbol")
@json_option
@pass_terminal
def related(terminal: Terminal, where: str, symbol: str, as_json: bool) -> None:
    """Shows where SYMBOL (`Class.method`, or `method`) is defined in a PROJECT or the folder PATH, who calls it and
    what it calls.

    Calls are told by their names, so what is shown is likely, not certain.
    """
    if not symbol.strip():
        raise BadInputError("The symbol is empty.", "Name a function, a class or a method: Cart.total.")
    if where == "last" or _is_id(where):
        found = terminal.client.related(resolved_project(terminal, where), symbol.strip())
    else:
        found = _Local(terminal, Path(where)).related(symbol.strip())
    if as_json:
        print_json(found)
    elif not found.definitions:
        click.echo(f"Nothing of this name is defined here: {plain(symbol)}.")
        click.echo(f'Find it by what it does: masterbuilder search {where} "WHAT IT DOES"')
    else:
        for title, places in (("Defined", found.definitions), ("Called by", found.callers), ("Calls", found.callees)):
            _show_places(terminal.console, title, places)


class _Local:
    """The index of a folder, in the data folder of whoever asks."""

    def __init__(self, terminal: Terminal, path: Path) -> None:
        from runtime.index.folder import Folder
        from runtime.index.shard import IndexShard

        self._source = Folder(path)
        settings = terminal.settings
        self._embedder = _Watched(terminal)
        self._seal = Seal(Secrets.load(settings.data_dir, terminal.environment).data_encryption_key)
        name = sha256(str(path.resolve()).encode()).hexdigest()[:32]
        self._file = settings.data_dir / "index" / f"folder-{name}.index"
        self._shard: IndexShard = IndexShard(self._embedder)
        self._shard.load(self._file, self._seal)

    def update(self, console: Console) -> None:
        if self._shard.status.commit == self._source.commit:
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            self._embedder.progress = progress
            self._shard.update(self._source)
        self._embedder.progress = None
        self._shard.save(self._file, self._seal)

    def search(self, asked: dict[str, Any]) -> Hits:
        self.update(Console(stderr=True))
        wanted = Filter(path=asked["path"], language=asked["language"], kind=asked["kind"])
        hits = self._shard.search(asked["query"], asked["limit"], wanted, asked["threshold"])
        return Hits(commit=self._source.commit, hits=[Hit(**hit_json(hit)) for hit in hits])

    def related(self, symbol: str) -> Related:
        self.update(Console(stderr=True))
        return Related(**related_json(self._shard.related(symbol)))

    def facts(self) -> dict[str, Any]:
        status = self._shard.status
        return {
            "files": len(self._source.ids),
            "chunks": status.chunks,
            "embedded": status.embedded,
            "embedder": status.embedder,
            "skipped": dict(Counter(self._shard.skipped.values()).most_common()),
        }


class _Watched:
    """An embedder that shows how far it is."""

    def __init__(self, terminal: Terminal) -> None:
        from runtime.index.embedder import choose_embedder

        self._embedder: Embedder = choose_embedder(terminal.settings.models_dir)
        self.name, self.dimension = self._embedder.name, self._embedder.dimension
        self.progress: Progress | None = None

    def embed(self, texts: Sequence[str]) -> "Vectors":
        import numpy as np

        if self.progress is None:
            return self._embedder.embed(texts)
        task = self.progress.add_task("Reading what the code means", total=len(texts))
        found = [np.empty((0, self.dimension), np.float32)]
        for start in range(0, len(texts), BATCH):
            found.append(self._embedder.embed(texts[start : start + BATCH]))
            self.progress.update(task, completed=min(start + BATCH, len(texts)))
        return np.concatenate(found)


def _is_id(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _show(console: Console, number: int, hit: Hit) -> None:
    lines = hit.text.split("\n")
    cut = [*lines[:SHOWN_LINES_MAX], "..."] if len(lines) > SHOWN_LINES_MAX else lines
    symbol = f" {plain(hit.symbol)}" if hit.symbol else ""
    parts = ", ".join(f"{name} {value:.2f}" for name, value in hit.why.items() if value)
    console.print(f"[bold]{number}. {plain(hit.path)}:{hit.start_line}-{hit.end_line}[/]{symbol}", highlight=False)
    console.print(f"[dim]   {hit.score:.2f}: {parts}[/]", highlight=False)
    console.print(Syntax("\n".join(cut), _lexer(hit.language), word_wrap=True, background_color="default"))


def _show_places(console: Console, title: str, places: Sequence[Place]) -> None:
    console.print(f"[bold]{title}[/]{'' if places else ': nothing'}")
    for place in places:
        symbol = f" {plain(place.symbol)}" if place.symbol else ""
        console.print(f"  {plain(place.path)}:{place.start_line}-{place.end_line}{symbol}", highlight=False)


def _lexer(language: str) -> str:
    return {"c++": "cpp", "shell": "bash"}.get(language, language)
