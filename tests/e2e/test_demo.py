"""`masterbuilder demo`, as `make demo` runs it, and what it leaves: a ZIP that works with nothing but Python."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import psutil

from cluster.environment import clean_environment
from runtime.project.documents import readme_commands

MASTERBUILDER = Path(sys.executable).with_name("masterbuilder")
DELIVERED = (
    "README.md",
    "TODO.md",
    ".gitignore",
    "docker-compose.yml",
    "docs/requirements.md",
    "docs/architecture.md",
    "docs/api_documentation.md",
    "docs/deployment_guide.md",
    "docs/traceability.md",
)


def test_demo__delivers_a_project_that_works_and_leaves_no_process(tmp_path: Path) -> None:
    before = {process.pid for process in psutil.process_iter()}
    ran = subprocess.run(
        [str(MASTERBUILDER), "demo", "--picture", "demo.svg"],
        cwd=tmp_path,
        env=clean_environment(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
    assert "no process is left" in ran.stdout
    left = [p for p in psutil.process_iter(["cmdline"]) if p.pid not in before and str(tmp_path) in str(p.info)]
    assert left == []
    assert (tmp_path / "demo.svg").read_text().startswith("<svg")

    with zipfile.ZipFile(tmp_path / ".demo" / "expense-tracker.zip") as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "out")
    project = tmp_path / "out" / "generated_project"
    assert all(f"generated_project/{name}" in names for name in DELIVERED)
    assert not [name for name in names if "/.git/" in name or ".code_index" in name or "__pycache__" in name]
    assert "- [ ]" not in (project / "TODO.md").read_text()

    bare = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path)}
    commands = readme_commands((project / "README.md").read_text())
    assert len(commands) > 10
    for command in commands:
        result = subprocess.run(
            ["sh", "-c", command], cwd=project, env=bare, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
