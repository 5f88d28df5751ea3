"""The `masterbuilder` command."""

import click

from cluster import (
    credit_commands,
    keeping_commands,
    key_commands,
    model_commands,
    people_commands,
    privacy_commands,
    project_commands,
    reindex_commands,
    report_commands,
    search_commands,
    service_commands,
    steering_commands,
    token_commands,
)
from cluster.demo import demo
from cluster.terminal import CommandGroup


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Describe software; get a tested, documented project and an itemised receipt.

    Exit status: 0 done, 1 it failed, 2 the input must be corrected, 3 refused, 4 the service does not answer.
    """


for command in (
    service_commands.up,
    service_commands.down,
    service_commands.status,
    service_commands.doctor,
    keeping_commands.backup,
    keeping_commands.restore,
    keeping_commands.compact,
    keeping_commands.pardon,
    service_commands.simulate,
    service_commands.schemas,
    service_commands.setup,
    project_commands.build,
    project_commands.projects,
    project_commands.logs,
    project_commands.receipt,
    project_commands.package,
    project_commands.answer,
    project_commands.confirm,
    steering_commands.back,
    steering_commands.pause,
    steering_commands.resume,
    steering_commands.cancel,
    steering_commands.change,
    steering_commands.retry,
    steering_commands.skip,
    steering_commands.approve,
    steering_commands.reject,
    steering_commands.rewind,
    project_commands.feedback,
    key_commands.keys,
    token_commands.tokens,
    people_commands.users,
    people_commands.ban,
    people_commands.unban,
    people_commands.invite,
    people_commands.audit,
    credit_commands.credits,
    privacy_commands.privacy,
    model_commands.models,
    search_commands.index,
    search_commands.search,
    search_commands.related,
    reindex_commands.reindex,
    report_commands.report,
    demo,
):
    cli.add_command(command)


def main() -> None:
    cli(prog_name="masterbuilder")
