"""`python -m cluster.simulator.telegram --port 0 --token 123456:anything`"""

import sys

import click

from cluster.simulator.telegram.server import TOKEN, run
from runtime.errors import MasterbuilderError


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="On loopback.")
@click.option("--port", default=8901, show_default=True, type=click.IntRange(0, 65535), help="0 picks a free one.")
@click.option("--token", default=TOKEN, show_default=True, help="The only one that it takes.")
def main(host: str, port: int, token: str) -> None:
    """Speaks Telegram's Bot API at /bot<token>/<method>, and is told what people do at /__telegram/."""
    try:
        run(host, port, token)
    except MasterbuilderError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
