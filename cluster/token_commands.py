"""Commands that issue, list and revoke tokens: what lets a person's tools call models here."""

import re
import shlex
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import click
from rich.table import Table

from cluster.project_commands import json_option
from cluster.terminal import Terminal, pass_terminal, plain, print_json
from cluster.wire import Answer
from runtime.errors import BadInputError

_UNITS_S = {"m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
_LIFETIME = re.compile(r"([1-9][0-9]{0,5})([mhdw])")
_COLOURS = {"revoked": "red", "expired": "yellow"}


class TokenLine(Answer):
    token_id: str
    state: str
    user: str
    kind: str
    label: str = ""
    project: str | None = None
    models: Sequence[str] = ()
    budget_credits: str | None = None
    spent_credits: str = "0.00"
    requests_per_minute: int | None = None
    created_at: str = ""
    expires_at: str | None = None


class TokenLines(Answer):
    tokens: Sequence[TokenLine]


class IssuedToken(TokenLine):
    token: str
    administers: bool = False
    role: str = ""


class RevokedToken(Answer):
    token_id: str
    revoked: bool


@click.group()
def tokens() -> None:
    """Tokens for tools that call models: the gateway speaks OpenAI's and Anthropic's wire formats."""


@tokens.command("create")
@click.option("--user", help="Whose wallet pays; yours when not given. A new user is registered.")
@click.option(
    "--role",
    type=click.Choice(["DEMO", "FULL_ACCESS"], case_sensitive=False),
    help="Of the named user: DEMO may not call every provider. Who is new is DEMO.",
)
@click.option("--project", help="Pays under this project's ceiling, from its owner's wallet.")
@click.option("--models", multiple=True, metavar="NAMES", help="Only these: provider/model, provider/* or a profile.")
@click.option("--budget", metavar="CREDITS", help="The most it may ever spend.")
@click.option("--rate", type=click.IntRange(min=1), metavar="N", help="Calls per minute.")
@click.option("--expires", metavar="TIME", help="30d, 12h, 2w: how long it is good; for ever when not given.")
@click.option("--label", default="", help="What it is for.")
@json_option
@pass_terminal
def create_token(
    terminal: Terminal,
    user: str | None,
    role: str | None,
    project: str | None,
    models: Sequence[str],
    budget: str | None,
    rate: int | None,
    expires: str | None,
    label: str,
    as_json: bool,
) -> None:
    """Issues a token, tells it once, and prints settings to paste into a shell.

    A token with models, a budget or a rate calls models; it administers nothing, even if it is an administrator's.
    """
    allowed = [name.strip() for names in models for name in names.split(",") if name.strip()]
    said: dict[str, Any] = {
        "user": user,
        "role": role,
        "project": project,
        "models": allowed,
        "budget_credits": budget,
        "requests_per_minute": rate,
        "expires_in_s": seconds_of(expires) if expires else None,
        "label": label,
    }
    issued = terminal.client.ask(
        IssuedToken, "POST", "tokens", {name: value for name, value in said.items() if value is not None}
    )
    usual = "auto" if issued.role == "DEMO" else terminal.settings.implementer_model
    model = example_model(allowed, usual)
    settings = paste_settings(terminal.client.url, issued.token, model)
    if as_json:
        print_json({**issued.model_dump(mode="json"), "settings": settings})
        return
    click.echo(f"Token {issued.token_id} of {issued.user}. It is told only now: keep it as safe as a password.")
    if issued.role == "DEMO":
        click.echo("Its user has the role DEMO, which may not call openai and claude; --role FULL_ACCESS changes that.")
    if issued.administers:
        click.echo("It is an administrator's and without limits, so it also opens the operator's doors.")
    for name, text in settings.items():
        click.echo(f"\n# {name}\n{text}")


@tokens.command("list")
@click.option("--user", help="Only this user's.")
@json_option
@pass_terminal
def list_tokens(terminal: Terminal, user: str | None, as_json: bool) -> None:
    """Every token, newest first, also those that expired or were revoked. The tokens themselves are not known."""
    found = terminal.client.ask(TokenLines, "GET", f"tokens?user={quote(user, safe='')}" if user else "tokens")
    if as_json:
        print_json(found)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("id", "state", "user", "for", "models", "spent / budget", "per minute", "expires", "label"):
        table.add_column(heading)
    for line in found.tokens:
        spent = f"{line.spent_credits} / {line.budget_credits}" if line.budget_credits else line.spent_credits
        cells = (
            line.token_id,
            line.state,
            line.user,
            line.project or line.kind,
            ", ".join(line.models) or "all",
            spent,
            str(line.requests_per_minute or ""),
            (line.expires_at or "")[:16].replace("T", " "),
            line.label,
        )
        table.add_row(*map(plain, cells), style=_COLOURS.get(line.state))
    terminal.console.print(table)


@tokens.command("revoke")
@click.argument("token_id", metavar="ID")
@json_option
@pass_terminal
def revoke_token(terminal: Terminal, token_id: str, as_json: bool) -> None:
    """Makes the token with this ID, as `tokens list` names it, worthless within five seconds."""
    revoked = terminal.client.ask(RevokedToken, "DELETE", f"tokens/{quote(token_id, safe='')}")
    if as_json:
        print_json(revoked)
    else:
        click.echo(f"{revoked.token_id} is revoked.")


def seconds_of(lifetime: str) -> int:
    """Raises BadInputError."""
    match = _LIFETIME.fullmatch(lifetime.strip())
    if match is None:
        raise BadInputError(f"{lifetime!r} is not a length of time.", "Write 45m, 12h, 30d or 2w.")
    return int(match[1]) * _UNITS_S[match[2]]


def example_model(allowed: Sequence[str], usual: str) -> str:
    """One that a token with these models may call, to stand in its examples."""
    named = [name for name in allowed if not name.endswith("/*")]
    if named:
        return named[0]
    providers = [name.removesuffix("*") for name in allowed]
    return usual if not providers or any(usual.startswith(provider) for provider in providers) else "auto"


def paste_settings(url: str, token: str, model: str) -> dict[str, str]:
    """By tool: lines for a shell that set it up and make a first call."""
    hello = '[{"role": "user", "content": "Say hello."}]'
    openai = f"export OPENAI_BASE_URL={shlex.quote(f'{url}/v1')}\nexport OPENAI_API_KEY={shlex.quote(token)}"
    openai_call = (
        "from openai import OpenAI; "
        f'print(OpenAI().chat.completions.create(model="{model}", messages={hello}).choices[0].message.content)'
    )
    anthropic = f"export ANTHROPIC_BASE_URL={shlex.quote(url)}\nexport ANTHROPIC_API_KEY={shlex.quote(token)}"
    anthropic_call = (
        "from anthropic import Anthropic; "
        f'print(Anthropic().messages.create(model="{model}", max_tokens=256, messages={hello}).content[0].text)'
    )
    aider = f"export OPENAI_API_BASE={shlex.quote(f'{url}/v1')}\nexport OPENAI_API_KEY={shlex.quote(token)}"
    body = f'{{"model": "{model}", "messages": {hello}}}'
    return {
        "OpenAI SDK": f"{openai}\npython -c {shlex.quote(openai_call)}",
        "Anthropic SDK": f"{anthropic}\npython -c {shlex.quote(anthropic_call)}",
        "Aider": f"{aider}\naider --model {shlex.quote(f'openai/{model}')}",
        "curl": (
            f"curl -sS {shlex.quote(f'{url}/v1/chat/completions')} -H {shlex.quote(f'Authorization: Bearer {token}')} "
            f"-H 'Content-Type: application/json' -d {shlex.quote(body)}"
        ),
    }
