"""The operator's commands about people: who is there, what they may do, who is let in, and who did what."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import click
from rich.table import Table

from cluster.project_commands import json_option
from cluster.terminal import Terminal, pass_terminal, plain, print_json
from cluster.token_commands import seconds_of
from cluster.wire import Answer
from runtime.errors import BadInputError

_COLOURS = {"revoked": "red", "expired": "yellow", "used": "dim"}
limit_option = click.option("--limit", type=click.IntRange(1, 1_000), default=100, show_default=True)
offset_option = click.option("--offset", type=click.IntRange(0), default=0, help="How many are left out first.")
yes_or_no = click.Choice(["yes", "no"], case_sensitive=False)


class UserLine(Answer):
    user_id: str
    telegram_id: int | None = None
    username: str = ""
    first_name: str = ""
    last_name: str = ""
    role: str
    authorized: bool = False
    verified: bool = False
    banned: bool = False


class UserLines(Answer):
    users: Sequence[UserLine]


class InviteLine(Answer):
    invite_id: str
    role: str
    state: str
    uses: int
    uses_left: int
    expires_at: str | None = None
    consumers: Sequence[str] = ()


class InviteLines(Answer):
    invites: Sequence[InviteLine]


class MadeInvite(InviteLine):
    code: str


class RevokedInvite(Answer):
    invite_id: str
    revoked: bool


class AuditLine(Answer):
    at: str
    actor: str
    action: str
    target: str
    details: Mapping[str, Any]
    ip_address: str = ""


class AuditLines(Answer):
    audit: Sequence[AuditLine]


@click.group()
def users() -> None:
    """Who is registered, and what they may do."""


@users.command("list")
@limit_option
@offset_option
@json_option
@pass_terminal
def list_users(terminal: Terminal, limit: int, offset: int, as_json: bool) -> None:
    """Every user, oldest first."""
    found = terminal.client.ask(UserLines, "GET", f"users?limit={limit}&offset={offset}")
    if as_json:
        print_json(found)
        return
    rows = [
        (line.user_id, str(line.telegram_id or ""), _name(line), line.role, _flags(line), "red" if line.banned else "")
        for line in found.users
    ]
    _table(terminal, ("user", "telegram id", "name", "role", ""), rows)


@users.command("set")
@click.argument("user")
@click.option("--role", type=click.Choice(["DEMO", "FULL_ACCESS", "ADMIN"], case_sensitive=False))
@click.option("--authorized", type=yes_or_no, help="Whether they may chat.")
@click.option("--verified", type=yes_or_no)
@click.option("--logout", is_flag=True, help="Ends every login of theirs.")
@json_option
@pass_terminal
def set_user(
    terminal: Terminal,
    user: str,
    role: str | None,
    authorized: str | None,
    verified: str | None,
    logout: bool,
    as_json: bool,
) -> None:
    """Changes what USER, by Telegram id or user id, may do. It counts at once."""
    said: dict[str, Any] = {"role": role, "authorized": authorized, "verified": verified, "logout": logout or None}
    body = {name: value == "yes" if value in ("yes", "no") else value for name, value in said.items() if value}
    if not body:
        raise BadInputError("Nothing is to be changed.", "Give --role, --authorized, --verified or --logout.")
    _change(terminal, user, body, as_json)


@click.command()
@click.argument("user")
@json_option
@pass_terminal
def ban(terminal: Terminal, user: str, as_json: bool) -> None:
    """Keeps USER, by Telegram id or user id, out of every door until `unban`."""
    _change(terminal, user, {"banned": True}, as_json)


@click.command()
@click.argument("user")
@json_option
@pass_terminal
def unban(terminal: Terminal, user: str, as_json: bool) -> None:
    """Lets USER in again."""
    _change(terminal, user, {"banned": False}, as_json)


@click.group()
def invite() -> None:
    """Codes that let people in."""


@invite.command("create")
@click.option("--role", type=click.Choice(["DEMO", "FULL_ACCESS"], case_sensitive=False), default="DEMO",
              show_default=True, help="What whoever uses it becomes, if they are not more already.")  # fmt: skip
@click.option("--uses", type=click.IntRange(1, 10_000), default=1, show_default=True)
@click.option("--expires", metavar="TIME", help="30d, 12h, 2w; for ever when not given.")
@json_option
@pass_terminal
def create_invite(terminal: Terminal, role: str, uses: int, expires: str | None, as_json: bool) -> None:
    """Makes a code and tells it once."""
    body = {"role": role, "uses": uses, **({"expires_in_s": seconds_of(expires)} if expires else {})}
    made = terminal.client.ask(MadeInvite, "POST", "invite", body)
    if as_json:
        print_json(made)
        return
    click.echo(made.code)
    click.echo(f"Invite {made.invite_id}, {made.role}, {made.uses} use(s). The code is told only now.", err=True)


@invite.command("list")
@click.option("--all", "every", is_flag=True, help="Also those that nobody can use any more.")
@json_option
@pass_terminal
def list_invites(terminal: Terminal, every: bool, as_json: bool) -> None:
    """Codes that can be used, newest first. The codes themselves are not known."""
    found = terminal.client.ask(InviteLines, "GET", "invite?all=true" if every else "invite")
    if as_json:
        print_json(found)
        return
    rows = [
        (line.invite_id, line.state, line.role, f"{line.uses_left} / {line.uses}", _moment(line.expires_at),
         ", ".join(line.consumers), _COLOURS.get(line.state, ""))
        for line in found.invites
    ]  # fmt: skip
    _table(terminal, ("id", "state", "role", "left / uses", "expires", "used by"), rows)


@invite.command("revoke")
@click.argument("invite_id", metavar="ID")
@json_option
@pass_terminal
def revoke_invite(terminal: Terminal, invite_id: str, as_json: bool) -> None:
    """Makes the code with this ID, as `invite list` names it, worthless."""
    revoked = terminal.client.ask(RevokedInvite, "DELETE", f"invite/{quote(invite_id, safe='')}")
    if as_json:
        print_json(revoked)
    else:
        click.echo(f"{revoked.invite_id} is revoked.")


@click.command()
@limit_option
@offset_option
@json_option
@pass_terminal
def audit(terminal: Terminal, limit: int, offset: int, as_json: bool) -> None:
    """Who did what, newest first."""
    found = terminal.client.ask(AuditLines, "GET", f"audit?limit={limit}&offset={offset}")
    if as_json:
        print_json(found)
        return
    rows = [
        (_moment(line.at), line.actor, line.action, line.target, line.ip_address,
         ", ".join(f"{name}: {value}" for name, value in line.details.items()), "")
        for line in found.audit
    ]  # fmt: skip
    _table(terminal, ("at", "who", "what", "whom", "from", "details"), rows)


def _change(terminal: Terminal, user: str, body: Mapping[str, Any], as_json: bool) -> None:
    line = terminal.client.ask(UserLine, "PATCH", f"users/{quote(user, safe='')}", body)
    if as_json:
        print_json(line)
    else:
        click.echo(plain(f"{line.user_id} is {line.role}. {_flags(line)}".strip()))


def _table(terminal: Terminal, headings: Sequence[str], rows: Sequence[tuple[str, ...]]) -> None:
    """The last cell of a row is its colour."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        table.add_column(heading)
    for *cells, colour in rows:
        table.add_row(*map(plain, cells), style=colour or None)
    terminal.console.print(table)


def _name(line: UserLine) -> str:
    told = " ".join(part for part in (line.first_name, line.last_name) if part)
    return f"{told} (@{line.username})" if line.username else told


def _flags(line: UserLine) -> str:
    return ", ".join(name for name in ("authorized", "verified", "banned") if getattr(line, name))


def _moment(text: str | None) -> str:
    return (text or "")[:16].replace("T", " ")
