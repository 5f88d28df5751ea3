"""Every command of the README, run as it stands, in order, in one shell."""

import subprocess
from pathlib import Path

from cluster.ports import free_ports
from runtime.project.documents import readme_commands
from tests.e2e.live import Live

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"make demo": "tests/e2e/test_demo.py", "make test": "what runs this test"}


def test_readme__every_command_runs(live: Live) -> None:
    """Ports are replaced by free ones, so that it runs beside a live service; nothing else is changed."""
    commands = [command for command in readme_commands((ROOT / "README.md").read_text()) if command not in ELSEWHERE]
    (simulator_port,) = free_ports(1)
    script = "\n".join(["set -eu -o pipefail", "trap 'kill %1' EXIT", *(f"{each}\necho" for each in commands)])
    script = script.replace("8900", str(simulator_port)).replace("127.0.0.1:8000", live.url.removeprefix("http://"))
    (live.folder / "cluster").symlink_to(ROOT / "cluster")
    (live.folder / ".venv").symlink_to(ROOT / ".venv")
    (live.folder / ".venv-aider").symlink_to(live.environment.get("AIDER_VENV", str(ROOT / ".venv-aider")))
    (live.folder / "ran.sh").write_text(script)
    ran = subprocess.run(
        ["bash", "ran.sh"], env=live.environment, cwd=live.folder, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, f"{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}"
    assert (live.folder / "expense-tracker.zip").stat().st_size > 10_000
    assert "completed" in ran.stdout
    assert "Total:" in ran.stdout
