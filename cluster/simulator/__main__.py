"""`python -m cluster.simulator --port 0 --usage-file usage.jsonl`"""

import os
import sys
from pathlib import Path

import click

from cluster.simulator.payments import payment_setup
from cluster.simulator.server import run
from runtime.errors import MasterbuilderError


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8900, show_default=True, type=click.IntRange(0, 65535), help="0 picks a free one.")
@click.option("--usage-file", required=True, type=click.Path(path_type=Path), help="Gets a JSON line for each call.")
@click.option("--latency-ms", default=40, show_default=True, type=click.IntRange(0), help="Before each answer.")
@click.option("--webhook-url", help="Also play a payment page, and confirm what is paid there to this address.")
def main(host: str, port: int, usage_file: Path, latency_ms: int, webhook_url: str | None) -> None:
    """Speaks the wires of OpenAI, Anthropic and Gemini. Needs no model; takes any key that starts with sim-."""
    try:
        run(host, port, usage_file, latency_ms, payment_setup(webhook_url, os.environ))
    except MasterbuilderError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
