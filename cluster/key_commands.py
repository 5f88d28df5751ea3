"""Commands that keep provider keys. A key is read from the terminal or from stdin, never from the command line."""

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any
from urllib.parse import quote

import click
from rich.markup import escape
from rich.table import Column, Table

from cluster.project_commands import json_option
from cluster.terminal import Terminal, pass_terminal, print_json
from cluster.wire import Answer
from runtime.errors import BadInputError

STDIN_CHARACTERS_MAX = 8_192
_COLOURS = {
    "refused": "red",
    "expired": "red",
    "unreadable": "red",
    "cooling": "yellow",
    "disabled": "dim",
    "withdrawn": "dim",
}


class KeyLine(Answer):
    key_id: str
    provider: str
    label: str
    state: str
    limits: str = ""
    cooling_s: float = 0.0
    in_flight: int = 0
    calls_last_minute: int = 0
    tokens_last_minute: int = 0
    calls: int = 0
    last_used_at: datetime | None = None
    expires_at: datetime | None = None


class RotationLine(Answer):
    rotated_at: datetime
    keys: int
    old_master: str
    new_master: str


class KeyLines(Answer):
    keys: Sequence[KeyLine]
    rotations: Sequence[RotationLine] = ()


class AddedKey(Answer):
    key_id: str
    provider: str


class SwitchedKey(Answer):
    key_id: str
    disabled: bool


class RotatedKeys(Answer):
    keys: int
    unreadable: Sequence[str] = ()
    old_master: str
    new_master: str
    is_from_environment: bool


@click.group()
def keys() -> None:
    """Provider keys. They are kept sealed and never shown."""


@keys.command("list")
@json_option
@pass_terminal
def list_keys(terminal: Terminal, as_json: bool) -> None:
    """Every key: its id, state, limits, and how much it is used."""
    found = terminal.client.ask(KeyLines, "GET", "keys")
    if as_json:
        print_json(found)
        return
    if not found.keys:
        click.echo("There are no keys. Add one with `masterbuilder keys add PROVIDER`.")
        return
    table = Table(
        Column("id", no_wrap=True),
        "label",
        "state",
        "in flight",
        "calls/min",
        "tokens/min",
        "calls",
        "last used",
        "limits",
    )
    table.box, table.pad_edge = None, False
    for line in found.keys:
        table.add_row(*_cells(line))
    terminal.console.print(table)
    if found.rotations:
        last = found.rotations[0]
        click.echo(f"Sealed anew {last.rotated_at:%Y-%m-%d %H:%M}: {last.old_master} -> {last.new_master}.")


@keys.command("add")
@click.argument("provider")
@click.option("--label", default="", help="What you call it; shown in the list.")
@click.option("--base-url", default="", help="Where it is used, if not at the provider's own address.")
@click.option("--requests-per-minute", type=click.IntRange(1), help="Of each model.")
@click.option("--tokens-per-minute", type=click.IntRange(1), help="Of each model, input and output together.")
@click.option("--concurrency", type=click.IntRange(1), help="Calls of each model at once.")
@click.option("--limits", "limits_json", default="", help='JSON, for limits by model: {"models": {"NAME": {...}}}.')
@click.option("--expires-at", default="", help="Out of use from then on, as 2027-01-31T00:00:00Z.")
@json_option
@pass_terminal
def add_key(
    terminal: Terminal,
    provider: str,
    label: str,
    base_url: str,
    requests_per_minute: int | None,
    tokens_per_minute: int | None,
    concurrency: int | None,
    limits_json: str,
    expires_at: str,
    as_json: bool,
) -> None:
    """Adds a key of PROVIDER, which is asked for, or read from stdin where that is no terminal."""
    stated = {
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "concurrency": concurrency,
    }
    if expires_at:
        _check_moment(expires_at)
    limits = {**_limits(limits_json), **{name: value for name, value in stated.items() if value is not None}}
    body: dict[str, Any] = {"provider": provider, "key": _secret(f"Key of {provider}")}
    more = {"base_url": base_url, "label": label, "limits": limits, "expires_at": expires_at}
    body |= {name: value for name, value in more.items() if value}
    added = terminal.client.ask(AddedKey, "POST", "keys", body)
    if as_json:
        print_json(added)
    else:
        click.echo(f"{added.key_id} is in use. It is kept sealed.")


def _check_moment(text: str) -> None:
    with suppress(ValueError):
        if datetime.fromisoformat(text).tzinfo is not None:
            return
    raise BadInputError(f"--expires-at {text} is not a moment with its time zone.", "Give it as 2027-01-31T00:00:00Z.")


@keys.command("disable")
@click.argument("key_id")
@json_option
@pass_terminal
def disable_key(terminal: Terminal, key_id: str, as_json: bool) -> None:
    """Takes KEY_ID out of use until it is enabled, whatever the environment says."""
    _switch(terminal, key_id, "disable", as_json)


@keys.command("enable")
@click.argument("key_id")
@json_option
@pass_terminal
def enable_key(terminal: Terminal, key_id: str, as_json: bool) -> None:
    """Puts KEY_ID into use again, also when its provider refused it."""
    _switch(terminal, key_id, "enable", as_json)


@keys.command("rotate")
@click.option("--stdin", "is_given", is_flag=True, help="Read the new master key, 32 bytes in base64, from stdin.")
@json_option
@pass_terminal
def rotate_keys(terminal: Terminal, is_given: bool, as_json: bool) -> None:
    """Seals every key under a new master key, while work goes on.

    Where API_KEY_ENCRYPTION_KEY comes from the environment, the new one must be given.
    """
    body = {"new_master_key": _secret("New master key")} if is_given else {}
    rotated = terminal.client.ask(RotatedKeys, "POST", "keys/rotate", body)
    if as_json:
        print_json(rotated)
        return
    click.echo(f"{rotated.keys} keys are sealed anew: {rotated.old_master} -> {rotated.new_master}.")
    if rotated.unreadable:
        click.echo(f"No known master key opens {', '.join(rotated.unreadable)}: add them again.", err=True)
    if rotated.is_from_environment:
        click.echo("Set API_KEY_ENCRYPTION_KEY to the new key before the next `masterbuilder up`.")


def _switch(terminal: Terminal, key_id: str, how: str, as_json: bool) -> None:
    switched = terminal.client.ask(SwitchedKey, "POST", f"keys/{quote(key_id, safe='')}/{how}", {})
    if as_json:
        print_json(switched)
    else:
        click.echo(f"{switched.key_id} is {'out of' if switched.disabled else 'in'} use.")


def _secret(what: str) -> str:
    if sys.stdin.isatty():
        secret: str = click.prompt(what, hide_input=True)
    else:
        secret = sys.stdin.read(STDIN_CHARACTERS_MAX)
    if not secret.strip():
        raise BadInputError(f"{what}: nothing was given.", "Pipe it in, or type it when you are asked.")
    return secret.strip()


def _limits(text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        limits = json.loads(text)
    except ValueError:
        limits = None
    if not isinstance(limits, dict):
        raise BadInputError("--limits is not a JSON object.", "Give it like '{\"requests_per_minute\": 60}'.")
    return limits


def _cells(line: KeyLine) -> list[str]:
    state = f"{line.state} {line.cooling_s:.0f} s" if line.state == "cooling" else line.state
    if line.expires_at and line.state != "expired":
        state += f" until {line.expires_at:%Y-%m-%d}"
    colour = _COLOURS.get(line.state)
    return [
        line.key_id,
        escape(line.label),
        f"[{colour}]{state}[/]" if colour else state,
        f"{line.in_flight:,}",
        f"{line.calls_last_minute:,}",
        f"{line.tokens_last_minute:,}",
        f"{line.calls:,}",
        f"{line.last_used_at:%Y-%m-%d %H:%M}" if line.last_used_at else "never",
        escape(line.limits or "-"),
    ]
