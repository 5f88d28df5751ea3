"""Commands that keep the catalogue: which models there are, at which price."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import click
from pydantic import ValidationError
from rich.table import Column, Table

from cluster.project_commands import json_option
from cluster.terminal import Terminal, pass_terminal, print_json
from cluster.wire import Answer
from runtime.catalogue.files import FILE_BYTES_MAX, Form, models_in
from runtime.catalogue.listing import ListedModel
from runtime.catalogue.model import Ability, Profile, Tier
from runtime.errors import BadInputError, TooLargeError

_FORMS: Mapping[str, Form] = {".yaml": "yaml", ".yml": "yaml", ".json": "json", ".csv": "csv"}
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


class ModelLine(Answer):
    """Prices in USD as texts."""

    id: str
    built_in: bool
    input_cost_per_million_tokens: str
    output_cost_per_million_tokens: str
    image_input_cost_per_image: str | None = None
    context_tokens: int
    abilities: Sequence[str]
    profiles: Sequence[str] = ()
    tier: str | None = None
    is_active: bool = True
    effective_from: str | None = None


class ModelLines(Answer):
    models: Sequence[ModelLine]
    upcoming: Sequence[ModelLine] = ()


@click.group()
def models() -> None:
    """Models and their prices. Only a model with a price may be called."""


@models.command("list")
@click.option("--provider", help="Only this provider's.")
@json_option
@pass_terminal
def list_models(terminal: Terminal, provider: str | None, as_json: bool) -> None:
    """Every model, its price in USD per million tokens, and what it can do."""
    found = terminal.client.ask(ModelLines, "GET", "models")
    if provider:
        kept = [line for line in found.models if line.id.startswith(f"{provider}/")]
        coming = [line for line in found.upcoming if line.id.startswith(f"{provider}/")]
        found = ModelLines(models=kept, upcoming=coming)
    if as_json:
        print_json(found)
        return
    table = Table(
        Column("model", no_wrap=True), "input", "output", "window", "can", "plays", "since", box=None, pad_edge=False
    )
    for line in (*found.models, *found.upcoming):
        table.add_row(*_cells(line))
    terminal.console.print(table)


@models.command("set")
@click.argument("model")
@click.option("--input", "input_cost_per_million_tokens", metavar="USD", help="Per million tokens of questions.")
@click.option("--output", "output_cost_per_million_tokens", metavar="USD", help="Per million tokens of answers.")
@click.option("--image", "image_input_cost_per_image", metavar="USD", help="Per picture, beside its tokens.")
@click.option("--context", "context_tokens", metavar="TOKENS", help="Question and answer together.")
@click.option("--max-output", "output_tokens_max", metavar="TOKENS", help="Of one answer.")
@click.option("--ability", "abilities", multiple=True, type=click.Choice(get_args(Ability)), help="Repeat it for more.")
@click.option("--profile", "profiles", multiple=True, type=click.Choice(get_args(Profile)), help="That it plays.")
@click.option("--tier", type=click.Choice(get_args(Tier)), help="Of the router that chooses for `auto`.")
@click.option("--from", "effective_from", metavar="DATE", help="A day, or a time with its zone. Else from now on.")
@click.option("--on/--off", "is_active", default=True, help="--off: it may not be called.")
@click.option("--notes")
@json_option
@pass_terminal
def set_model(terminal: Terminal, /, model: str, as_json: bool, **said: Any) -> None:
    """Prices MODEL (provider/model), or changes it, for new calls.

    What is not said stays as it is; of a new model it becomes what its provider's models usually have.
    provider/* stands for every model of the provider that has no entry of its own.
    """
    provider, slash, name = model.partition("/")
    if not slash or not name:
        raise BadInputError(f"{model[:100]!r} is not provider/model.", "Name it as in openai/gpt-4o-mini.")
    row = {field: list(value) if isinstance(value, tuple) else value for field, value in said.items() if value != ()}
    try:
        listing = ListedModel.model_validate({"provider": provider, "model": name, **row})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = str(first["loc"][0]) if first["loc"] else "model"
        raise BadInputError(
            f"{field} {first['msg'].removeprefix('Value error, ')}.", "See `masterbuilder models set --help`."
        ) from None
    _send(terminal, [listing], as_json)


@models.command("import")
@click.argument("file", type=_FILE)
@click.option("--check", "only_check", is_flag=True, help="Reads the file and changes nothing.")
@json_option
@pass_terminal
def import_models(terminal: Terminal, file: Path, only_check: bool, as_json: bool) -> None:
    """Sets every model of FILE (YAML, JSON or CSV), all or none.

    Fields: provider, model, input_cost_per_million_tokens, output_cost_per_million_tokens, and what
    `masterbuilder models list --json` shows beside them. Prices are in USD.
    """
    form = _FORMS.get(file.suffix.lower())
    if form is None:
        raise BadInputError(f"{file.name} is no YAML, JSON or CSV file.", "End its name with .yaml, .json or .csv.")
    if file.stat().st_size > FILE_BYTES_MAX:
        raise TooLargeError(f"{file.name} is larger than {FILE_BYTES_MAX} bytes.", "Import it in parts.")
    try:
        text = file.read_text("utf-8")
    except UnicodeDecodeError:
        raise BadInputError(f"{file.name} is not UTF-8 text.", "Save it as UTF-8.") from None
    listings = models_in(text, form)
    if only_check:
        click.echo(f"Models that can be imported: {len(listings)}.")
        return
    _send(terminal, listings, as_json)


def _send(terminal: Terminal, listings: Sequence[ListedModel], as_json: bool) -> None:
    rows = [listing.model_dump(mode="json", exclude_none=True) for listing in listings]
    written = terminal.client.ask(ModelLines, "POST", "models", {"models": rows})
    if as_json:
        print_json(written)
        return
    for line in written.models:
        price = f"{line.input_cost_per_million_tokens} / {line.output_cost_per_million_tokens} USD per million tokens"
        state = price if line.is_active else "switched off"
        click.echo(f"{line.id}: {state}, from {line.effective_from}.")


def _cells(line: ModelLine) -> Sequence[str]:
    return (
        line.id,
        line.input_cost_per_million_tokens if line.is_active else "off",
        line.output_cost_per_million_tokens if line.is_active else "off",
        f"{line.context_tokens:,}",
        " ".join(line.abilities),
        " ".join([*line.profiles, *([line.tier] if line.tier else [])]),
        "" if line.built_in else (line.effective_from or ""),
    )
