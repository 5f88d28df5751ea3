"""What every command of the terminal needs: settings, the way to the service, and how an error is told."""

import json
import os
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from rich.console import Console

from cluster.client import Client
from cluster.environment import with_installed
from cluster.instance import Instance
from cluster.keeper import Keeper
from cluster.launch import running
from runtime.config import Secrets, Settings, environment_with_dotenv
from runtime.errors import (
    BadInputError,
    MasterbuilderError,
    NotAuthenticatedError,
    RefusedError,
    TooLargeError,
)

OK, FAILED, BAD_INPUT, REFUSED, UNAVAILABLE = range(5)
"""Exit statuses of every command."""


class Terminal:
    """Made once for each run of the command. Nothing is read before it is asked for, so `--help` always works."""

    @cached_property
    def environment(self) -> Mapping[str, str]:
        """With `.env` of the current folder, and where `make setup` installed things."""
        return with_installed(environment_with_dotenv(os.environ, Path.cwd()))

    @cached_property
    def settings(self) -> Settings:
        return Settings.from_environment(self.environment)

    @cached_property
    def instance(self) -> Instance:
        return Instance(data_dir=self.settings.data_dir)

    @cached_property
    def console(self) -> Console:
        return Console()

    @cached_property
    def url(self) -> str:
        """MASTERBUILDER_URL, else where the service of this data folder runs, else where it would."""
        if given := self.environment.get("MASTERBUILDER_URL"):
            return given
        record = running(self.instance)
        return record.url if record else self.settings.api_url

    @cached_property
    def client(self) -> Client:
        return Client(self.url, self._token())

    @cached_property
    def keeper(self) -> Keeper:
        return Keeper(self.settings, self.environment, self.client)

    def interactive(self) -> bool:
        return sys.stdin.isatty() and sys.stdout.isatty()

    def _token(self) -> str:
        if given := self.environment.get("MASTERBUILDER_TOKEN"):
            return given
        if not (self.settings.data_dir / "secrets.json").exists():
            return ""
        try:
            return Secrets.load(self.settings.data_dir, self.environment).admin_token
        except (OSError, ValueError, KeyError) as error:
            raise NotAuthenticatedError(
                f"The token in {self.settings.data_dir / 'secrets.json'} cannot be read.",
                "Correct the file's owner, or give a token in MASTERBUILDER_TOKEN.",
            ) from error


_ROUTE_OF_PROJECTS, _PROJECTS_HERE = "GET /api/v1/projects", "See `masterbuilder projects`."
"""What to do next in a terminal, where the service speaks of a route."""

pass_terminal = click.make_pass_decorator(Terminal, ensure=True)


class CommandGroup(click.Group):
    """Turns every error into its exit status and at most three lines on stderr; never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MasterbuilderError as error:
            tell_error(error)
            ctx.exit(exit_status(error))
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            ctx.exit(130)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(OK)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            click.echo(f"error: {where}{error.strerror or error}", err=True)
            ctx.exit(FAILED)
        except Exception as error:
            if os.environ.get("MASTERBUILDER_DEBUG"):
                raise
            click.echo(f"error: this should not have happened: {type(error).__name__}: {error}", err=True)
            click.echo("next: run it again with MASTERBUILDER_DEBUG=1 and report what it prints.", err=True)
            ctx.exit(FAILED)


def exit_status(error: MasterbuilderError) -> int:
    """2 for input that must be corrected, 3 for what a rule refuses, 4 for what does not answer now."""
    if isinstance(error, BadInputError | TooLargeError):
        return BAD_INPUT
    return REFUSED if isinstance(error, RefusedError) else UNAVAILABLE


def tell_error(error: MasterbuilderError) -> None:
    """What happened and what it cost; what to do next; the request's id."""
    click.echo(f"error: {error.message} {error.charged}".rstrip(), err=True)
    next_step = _PROJECTS_HERE if error.next_step.startswith(_ROUTE_OF_PROJECTS) else error.next_step
    if next_step:
        click.echo(f"next: {next_step}", err=True)
    for note in getattr(error, "__notes__", ()):
        click.echo(note, err=True)


def print_json(facts: BaseModel | Mapping[str, Any] | list[Any]) -> None:
    data = facts.model_dump(mode="json") if isinstance(facts, BaseModel) else facts
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def plain(text: str) -> str:
    """A label is a person's text: never markup, never a control character."""
    return "".join(character for character in text if character.isprintable()).replace("[", r"\[")
