"""Set-up from nothing: done once, and one line that names the fix when it cannot be done."""

import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from cluster import setup

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A clone in an empty folder, where every command succeeds at once and is written down."""
    ran: list[str] = []

    def succeed(command: list[str]) -> str:
        ran.append(" ".join(command))
        for made in (setup.VENV, setup.AIDER_VENV):
            if command[-1] == str(made):
                made.mkdir(exist_ok=True)
        return ""

    for name, path in {"ROOT": "", "VENV": ".venv", "AIDER_VENV": ".venv-aider", "LOG": ".venv-setup.log"}.items():
        monkeypatch.setattr(setup, name, tmp_path / path)
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    monkeypatch.setattr(setup, "_try", succeed)
    monkeypatch.setattr(sys, "argv", ["setup.py"])
    return ran


def stopped(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that set-up ended with."""
    with pytest.raises(SystemExit) as ended:
        setup.main()
    assert ended.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(lines) == 1
    return lines[0]


def failing(output: str, at: str) -> object:
    """Like the fixture's commands, but what holds `at` fails and prints `output`."""
    works = setup._try
    return lambda command: output if at in " ".join(command) else works(command)


def test_second_run__does_nothing(commands: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    setup.main()
    assert any("pip install" in command for command in commands)
    assert "GB of disk" in capsys.readouterr().out
    commands.clear()
    setup.main()
    assert commands == []
    assert capsys.readouterr().out == ""


def test_packages__for_the_tests_are_installed_with_those_of_the_service(
    commands: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["setup.py", "--for-tests"])
    setup.main()
    assert len([command for command in commands if f"-e {setup.ROOT}" in command]) == 1
    commands.clear()
    monkeypatch.setattr(sys, "argv", ["setup.py"])
    setup.main()
    assert commands == []


def test_changed_pyproject__installs_packages_again_and_nothing_else(commands: list[str]) -> None:
    setup.main()
    commands.clear()
    (setup.ROOT / "pyproject.toml").write_text("[project]\nversion = '2'\n")
    setup.main()
    assert len(commands) == 1
    assert commands[0].endswith(f"-e {setup.ROOT}")


def test_missing_venv_module__names_the_package(
    commands: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup, "_try", failing("Error: ensurepip is not available", at="-m venv"))
    assert f"apt-get install python3.{sys.version_info[1]}-venv" in stopped(capsys)


def test_no_network__says_so(
    commands: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "WARNING: Retrying ... Temporary failure in name resolution\nERROR: No matching distribution found for ray"
    monkeypatch.setattr(setup, "_try", failing(text, at="pip install"))
    assert "No network" in stopped(capsys)


def test_full_disk__is_named_before_and_while_installing(
    commands: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup, "_try", failing("OSError: [Errno 28] No space left on device", at="pip install"))
    assert "disk is full" in stopped(capsys)
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 10**6))
    assert "Not enough disk" in stopped(capsys)


def test_wrong_python__names_the_right_ones(
    commands: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    assert "Python 3.11 or 3.12" in stopped(capsys)
    assert commands == []


def test_uv_that_fails__is_replaced_by_pip(commands: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    works = setup._try
    monkeypatch.setattr(setup, "_try", lambda command: "no uv" if "uv" in command else works(command))
    setup.main()
    assert [command for command in commands if f"{setup.AIDER_VENV}/bin/python -m pip install" in command]


def test_missing_bubblewrap__names_the_command_for_who_may_not_install_it(
    commands: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup.shutil, "which", lambda name: None if name == "bwrap" else f"/usr/bin/{name}")
    monkeypatch.setattr(setup.os, "geteuid", lambda: 1000)
    assert setup.main() == 0
    assert "sudo apt-get install" in capsys.readouterr().err


def test_stacks__are_installed_only_when_asked_for(commands: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup.shutil, "which", lambda name: "/usr/bin/apt-get" if name == "apt-get" else None)
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda path: Usage(10**12, 0, 10**12))
    monkeypatch.setattr(setup.os, "geteuid", lambda: 0)
    monkeypatch.setattr(setup, "_announce", lambda steps: None)
    for arguments, expected in (
        ([], ["bubblewrap"]),
        (["--for-stacks"], ["bubblewrap", "nodejs", "npm", "chromium"]),
        (["--for-tests"], ["bubblewrap", "nodejs", "npm", "chromium"]),
    ):
        commands.clear()
        monkeypatch.setattr(sys, "argv", ["setup.py", *arguments])
        setup.main()
        installed = [command.rsplit(" ", 1)[1] for command in commands if command.startswith("apt-get install")]
        assert installed == expected


def test_script__runs_with_pythons_own_library_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(Path(setup.__file__)), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
