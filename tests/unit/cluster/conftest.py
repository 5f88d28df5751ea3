import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fake_door import FakeDoor, Run

from cluster.cli import cli


@pytest.fixture
def door() -> Iterator[FakeDoor]:
    door = FakeDoor()
    yield door
    door.close()


@pytest.fixture
def run(door: FakeDoor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command as a person would who has no settings but these: exit status, stdout and stderr."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HTTP_PORT", "DASHBOARD_PORT", "MASTERBUILDER_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("MASTERBUILDER_URL", door.url)
    monkeypatch.setenv("MASTERBUILDER_TOKEN", "mb-test")

    def invoke(*arguments: str, stdin: str | None = None, **variables: str) -> Result:
        return CliRunner(env={**os.environ, **variables}).invoke(cli, arguments, input=stdin)

    return invoke
