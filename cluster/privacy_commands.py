"""Commands about one's own data: take it out, say where mail goes, and have it erased."""

from pathlib import Path
from urllib.parse import quote

import click

from cluster.credit_commands import Wallet
from cluster.project_commands import json_option
from cluster.terminal import Terminal, pass_terminal, print_json
from cluster.wire import Answer, Me
from runtime.errors import BadInputError

user_option = click.option("--user", help="Another's, for an operator; else your own.")


class Deleted(Answer):
    user: str
    due_at: str
    forfeited_credits: str
    text: str


@click.group()
def privacy() -> None:
    """Your own data, and, for an operator, that of others."""


@privacy.command("export")
@user_option
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The ZIP.")
@pass_terminal
def export(terminal: Terminal, user: str | None, output: Path) -> None:
    """Writes a ZIP of all that is kept of you: JSON files, and a README.txt that explains them."""
    if not output.absolute().parent.is_dir():
        raise BadInputError(f"There is no folder {output.absolute().parent}.", "Make it, or name another file.")
    size_bytes = terminal.client.save_export(user, output)
    click.echo(f"{output}: {size_bytes:,} bytes. Nobody but you should see it.")


@privacy.command("email")
@click.argument("address")
@json_option
@pass_terminal
def email(terminal: Terminal, address: str, as_json: bool) -> None:
    """Sets your e-mail ADDRESS; an empty one ("") removes it."""
    person = terminal.client.ask_api(Me, "PATCH", "me", {"email": address})
    if as_json:
        print_json(person)
    else:
        click.echo(f"{person.user} has the address {person.email}." if person.email else "There is no address now.")


@privacy.command("purge")
@click.argument("days", type=click.IntRange(1, 365))
@json_option
@pass_terminal
def purge(terminal: Terminal, days: int, as_json: bool) -> None:
    """Has files and texts of your projects erased so many DAYS after each one's end; of old projects too."""
    person = terminal.client.ask_api(Me, "PATCH", "me", {"purge_after_days": days})
    if as_json:
        print_json(person)
    else:
        click.echo(f"Projects of {person.user} are erased {person.purge_after_days} days after their end.")


@privacy.command("delete")
@user_option
@click.option("--yes", is_flag=True, help="Without being asked again.")
@json_option
@pass_terminal
def delete(terminal: Terminal, user: str | None, yes: bool, as_json: bool) -> None:
    """Erases all data of yours within 24 hours: projects, texts, packages, tokens, address. There is no way back.

    Credits that are left are forfeited. What bookkeeping needs stays, without your name.
    """
    wallet = _wallet(terminal, user)
    if not yes:
        _ask(terminal, wallet)
    body = {"confirm": True, "forfeit_credits": _exact(wallet.balance_ucredits), **({"user": user} if user else {})}
    deleted = terminal.client.ask_api(Deleted, "DELETE", "me", body)
    if as_json:
        print_json(deleted)
    else:
        click.echo(f"{deleted.user} is being erased. {deleted.text}")


def _wallet(terminal: Terminal, user: str | None) -> Wallet:
    return terminal.client.ask_api(Wallet, "GET", f"admin/credits/{quote(user, safe='')}" if user else "credits")


def _ask(terminal: Terminal, wallet: Wallet) -> None:
    what = f"all data of {wallet.user}, and {wallet.balance_credits} credits"
    if not terminal.interactive():
        raise BadInputError(f"This erases {what}, for ever.", "Export it first; then add --yes.")
    click.confirm(f"Erase {what}, for ever?", abort=True)


def _exact(ucredits: int) -> str:
    return f"{ucredits // 1_000_000}.{ucredits % 1_000_000:06}"
