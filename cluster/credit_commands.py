"""Commands about wallets: what is there, what changed it, and what an operator gives, takes and gives back."""

import uuid
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

import click
from rich.table import Table

from cluster.project_commands import json_option
from cluster.terminal import Terminal, pass_terminal, plain, print_json
from cluster.wire import Answer


class NoticeLine(Answer):
    kind: str
    text: str
    at: str


class Wallet(Answer):
    user: str
    balance_credits: str
    held_credits: str
    free_credits: str
    balance_ucredits: int
    held_ucredits: int


class OwnWallet(Wallet):
    spent_today_credits: str = "0.00"
    cap_today_credits: str | None = None
    left_today_credits: str | None = None
    notices: Sequence[NoticeLine] = ()
    more: str = ""


class MovementLine(Answer):
    id: str
    type: str
    amount_credits: str
    amount_ucredits: int
    cost_usd: str | None = None
    call: str | None = None
    project: str | None = None
    external_id: str | None = None
    text: str = ""
    at: str


class Statement(Answer):
    user: str
    movements: Sequence[MovementLine]


class Refunded(Answer):
    call: str
    refunded_credits: str


class StarsRefunded(Answer):
    charge_id: str
    user: str
    stars: int
    taken_credits: str
    taken_days: float
    told: bool


class StoppedLine(Answer):
    user: str
    reason: str
    since: str


class StoppedLines(Answer):
    stopped: Sequence[StoppedLine]


class Released(Answer):
    user: str
    released: bool


def _of_change(command: Callable[..., None]) -> Callable[..., None]:
    """The arguments of a command that changes a wallet."""
    for each in (
        pass_terminal,
        json_option,
        click.option("--key", help="Names this change: the same key again changes nothing."),
        click.option("--reason", required=True, help="Stands in the user's statement."),
        click.argument("amount", metavar="CREDITS"),
        click.argument("user"),
    ):
        command = each(command)
    return command


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def credits(context: click.Context, as_json: bool) -> None:
    """Your wallet, and, for an operator, those of others."""
    if context.invoked_subcommand is None:
        context.invoke(show, as_json=as_json)


@credits.command("show")
@json_option
@pass_terminal
def show(terminal: Terminal, as_json: bool) -> None:
    """Balance, what is held by running calls, and what today's own calls used."""
    wallet = terminal.client.ask_api(OwnWallet, "GET", "credits")
    if as_json:
        print_json(wallet)
        return
    held = f", {wallet.held_credits} of them held by running calls" if wallet.held_ucredits else ""
    click.echo(f"{wallet.user} has {wallet.balance_credits} credits{held}.")
    if wallet.cap_today_credits is not None:
        click.echo(f"Own calls today: {wallet.spent_today_credits} of {wallet.cap_today_credits} credits.")
    for notice in wallet.notices[:3]:
        click.echo(f"{notice.at[:16].replace('T', ' ')}  {notice.text}")


@credits.command("add")
@_of_change
def add(terminal: Terminal, user: str, amount: str, reason: str, key: str | None, as_json: bool) -> None:
    """Gives a USER credits; `credits take` is the other way. Builds that waited for them go on."""
    _adjust(terminal, user, amount, reason, key, as_json)


@credits.command("take")
@_of_change
def take(terminal: Terminal, user: str, amount: str, reason: str, key: str | None, as_json: bool) -> None:
    """Takes credits of a USER, at most what is free."""
    _adjust(terminal, user, f"-{amount}", reason, key, as_json)


@credits.command("statement")
@click.argument("user", required=False)
@click.option("--limit", type=click.IntRange(1, 1_000), default=30, show_default=True)
@json_option
@pass_terminal
def statement(terminal: Terminal, user: str | None, limit: int, as_json: bool) -> None:
    """What changed your balance, or a USER's, newest first."""
    path = f"admin/credits/{quote(user, safe='')}/statement" if user else "credits/statement"
    found = terminal.client.ask_api(Statement, "GET", f"{path}?limit={limit}")
    if as_json:
        print_json(found)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("at", "what", "credits", "USD", "for", "text"):
        is_amount = heading in ("credits", "USD")
        table.add_column(heading, justify="right" if is_amount else "left", no_wrap=heading != "text")
    for move in found.movements:
        cells = (
            move.at[:16].replace("T", " "),
            move.type,
            move.amount_credits,
            move.cost_usd or "",
            move.call or move.external_id or "",
            move.text,
        )
        table.add_row(*map(plain, cells))
    terminal.console.print(table)


@credits.command("refund")
@click.argument("call")
@click.option("--reason", required=True, help="Stands in the receipt.")
@json_option
@pass_terminal
def refund(terminal: Terminal, call: str, reason: str, as_json: bool) -> None:
    """Gives back what one CALL was charged, as a receipt names it; once for ever."""
    refunded = terminal.client.ask(Refunded, "POST", "refunds", {"call": call, "reason": reason})
    if as_json:
        print_json(refunded)
    else:
        click.echo(f"{refunded.refunded_credits} credits of {refunded.call} are given back.")


@credits.command("refund-stars")
@click.argument("charge_id", metavar="CHARGE")
@click.option("--reason", required=True, help="Stands in the user's statement.")
@json_option
@pass_terminal
def refund_stars(terminal: Terminal, charge_id: str, reason: str, as_json: bool) -> None:
    """Takes back what a payment with Telegram's Stars bought: credits that are free, days that are left.

    The bot then has Telegram give the Stars back. CHARGE is the payment's id in the statement, or in the alert of one
    that failed.
    """
    said = {"charge_id": charge_id, "reason": reason}
    refunded = terminal.client.ask(StarsRefunded, "POST", "payments/refunds", said)
    if as_json:
        print_json(refunded)
        return
    click.echo(
        f"{refunded.taken_credits} credits and {refunded.taken_days:g} days of {refunded.user} are taken back; "
        f"{refunded.stars} Stars {'went' if refunded.told else 'go'} back to the payer."
    )


@credits.command("stopped")
@json_option
@pass_terminal
def stopped(terminal: Terminal, as_json: bool) -> None:
    """Accounts that do not add up: nothing is spent from them until `credits release`."""
    found = terminal.client.ask(StoppedLines, "GET", "accounts/stopped")
    if as_json:
        print_json(found)
        return
    for line in found.stopped:
        click.echo(f"{line.user}  since {line.since[:19].replace('T', ' ')}  {line.reason}")
    if not found.stopped:
        click.echo("No account is stopped.")


@credits.command("release")
@click.argument("user")
@json_option
@pass_terminal
def release(terminal: Terminal, user: str, as_json: bool) -> None:
    """Lets a USER's stopped account spend again, once you have looked into it."""
    released = terminal.client.ask(Released, "POST", f"accounts/{quote(user, safe='')}/release")
    if as_json:
        print_json(released)
    else:
        click.echo(f"{released.user} may spend again.")


def _adjust(terminal: Terminal, user: str, amount: str, reason: str, key: str | None, as_json: bool) -> None:
    said: dict[str, Any] = {"user": user, "amount_credits": amount, "reason": reason}
    wallet = terminal.client.ask_api(
        Wallet, "POST", "admin/credits", said, {"Idempotency-Key": key or str(uuid.uuid4())}
    )
    if as_json:
        print_json(wallet)
    else:
        click.echo(f"{wallet.user} has {wallet.balance_credits} credits now.")
