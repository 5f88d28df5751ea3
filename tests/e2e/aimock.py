"""A model provider by somebody else: npm's `@copilotkit/aimock`, which speaks the wires of all three services."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.npm import AIMOCK, installed, node


@contextmanager
def aimock(folder: Path, fixtures: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Its URL. `folder` gets its fixtures and its log."""
    fixtures_file = folder / "fixtures.json"
    fixtures_file.write_text(json.dumps({"fixtures": list(fixtures)}))
    command = [installed(AIMOCK) / "dist" / "cli.js", "-h", "127.0.0.1", "-f", fixtures_file, "--strict"]
    with node(folder / "aimock.log", *command, "--chunk-size", "6", "-p") as url:
        yield url
