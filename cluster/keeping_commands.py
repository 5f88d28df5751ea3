"""Commands that keep what is stored, and that let an entity out of quarantine."""

from dataclasses import asdict
from pathlib import Path

import click

from cluster.launch import running
from cluster.processes import owned
from cluster.project_commands import json_option
from cluster.terminal import Terminal, pass_terminal, print_json
from cluster.wire import Backup
from runtime.errors import BadInputError, ConflictError, StoreUnavailableError

SECRETS = "secrets.json"
_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.argument("folder", type=_FOLDER)
@click.option("--with-secrets", is_flag=True, help="Also secrets.json, without which a backup opens nowhere else.")
@json_option
@pass_terminal
def backup(terminal: Terminal, folder: Path, with_secrets: bool, as_json: bool) -> None:
    """Copies everything that is stored into FOLDER, which must be new or empty, while work goes on.

    FOLDER is on the service's machine. Without --with-secrets keep DATA_DIR/secrets.json elsewhere: nobody can read
    the backup without it. With it, keep the backup as safe as a password.
    """
    report = terminal.keeper.backup(folder.absolute(), with_secrets)
    if as_json:
        print_json(report)
        return
    click.echo(f"{report.folder} is a backup: {_contents(report)}.")
    if not with_secrets:
        secrets = terminal.settings.data_dir / SECRETS
        click.echo(f"It holds no secrets: it opens only with {secrets}. Keep a copy of that file elsewhere.")


@click.command()
@click.argument("folder", type=_FOLDER)
@json_option
@pass_terminal
def restore(terminal: Terminal, folder: Path, as_json: bool) -> None:
    """Fills DATA_DIR, which must not hold anything yet, from the backup in FOLDER. The service must be down.

    A DATA_DIR may have its secrets.json already; one in the backup must then be the same.
    """
    from runtime.store import backup as backups

    data_dir = terminal.settings.data_dir
    if running(terminal.instance) or owned(terminal.instance):
        raise ConflictError(
            f"The service of {data_dir} runs, so nothing can be restored there.",
            "Stop it with `masterbuilder down`, or choose another DATA_DIR.",
        )
    report = Backup(**asdict(backups.restore(folder.absolute(), data_dir)))
    has_secrets = (data_dir / SECRETS).exists()
    if has_secrets:
        _try_secrets(terminal)
    if as_json:
        print_json(report)
        return
    click.echo(f"{data_dir} is filled from {folder}: {_contents(report)}.")
    if has_secrets:
        click.echo("Start it with `masterbuilder up`.")
    else:
        click.echo(f"The backup holds no secrets: put back the {SECRETS} it was made with, then `masterbuilder up`.")


@click.command()
@json_option
@pass_terminal
def compact(terminal: Terminal, as_json: bool) -> None:
    """Drops events that nobody reads any more. Their space is used again."""
    report = terminal.keeper.compact()
    if as_json:
        print_json(report)
        return
    before, after = report.bytes_before / (1 << 20), report.bytes_after / (1 << 20)
    click.echo(f"{report.events_dropped:,} events dropped; {before:,.1f} MiB before, {after:,.1f} MiB now.")


@click.command()
@click.argument("entity")
@json_option
@pass_terminal
def pardon(terminal: Terminal, entity: str, as_json: bool) -> None:
    """Lifts the quarantine of ENTITY, as `masterbuilder status` names it, so that it is tried again."""
    report = terminal.client.pardon(entity)
    if as_json:
        print_json(report)
    elif report.pardoned:
        click.echo(f"{entity} is out of quarantine: its next message is tried.")
    else:
        click.echo(f"{entity} was not in quarantine. `masterbuilder status` lists what is.")


def _contents(report: Backup) -> str:
    return (
        f"{report.entities:,} entities, {report.events:,} events, {report.blobs:,} files, "
        f"{report.bytes / (1 << 20):,.1f} MiB in {report.seconds:.1f} s"
    )


def _try_secrets(terminal: Terminal) -> None:
    """Opens what was restored, which needs the key."""
    try:
        terminal.keeper.open()
    except StoreUnavailableError as error:
        raise BadInputError(
            f"{terminal.settings.data_dir} is filled, but cannot be opened with the {SECRETS} there. {error.message}",
            f"Put back the {SECRETS} that the backup was made with.",
        ) from error
