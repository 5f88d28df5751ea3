import os

import pytest
from click.testing import CliRunner

from cluster.key_commands import keys
from cluster.terminal import CommandGroup

KEY = {
    "key_id": "openai-1", "provider": "openai", "label": "[red]mine", "state": "cooling", "limits": "",
    "cooling_s": 12.3,
    "in_flight": 1, "calls_last_minute": 2, "tokens_last_minute": 3, "calls": 4, "last_used_at": "2026-11-01T10:00:00Z",
    "expires_at": "2027-01-31T00:00:00Z",
}  # fmt: skip
ROTATION = {"rotated_at": "2026-11-01T10:00:00Z", "keys": 1, "old_master": "aaaa", "new_master": "bbbb"}


@pytest.fixture
def run(door, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    group = CommandGroup(commands={"keys": keys})
    variables = {
        "DATA_DIR": str(tmp_path / "data"),
        "MASTERBUILDER_URL": door.url,
        "MASTERBUILDER_TOKEN": "mb-test",
        "COLUMNS": "250",
    }
    runner = CliRunner(env={**os.environ, **variables})
    return lambda *arguments, stdin=None: runner.invoke(group, ["keys", *arguments], input=stdin)


def test_list__shows_every_key_and_the_last_rotation(run, door):
    door.says("GET /api/v1/admin/keys", {"keys": [KEY], "rotations": [ROTATION]})
    told = run("list")
    assert told.exit_code == 0
    for text in ("openai-1", "[red]mine", "cooling 12 s until 2027-01-31", "2026-11-01 10:00", "aaaa -> bbbb"):
        assert text in told.output


def test_add__reads_the_key_from_stdin_and_never_from_the_command_line(run, door):
    door.says("POST /api/v1/admin/keys", {"key_id": "openai-1", "provider": "openai"})
    limits = ("--requests-per-minute", "60", "--limits", '{"models": {"m": {"concurrency": 2}}}')
    told = run("add", "openai", "--label", "mine", *limits, "--expires-at", "2027-01-31T00:00:00Z", stdin="sk-secret\n")
    assert (told.exit_code, "sk-secret" in told.output) == (0, False)
    assert door.asked[0][2] == {
        "provider": "openai",
        "key": "sk-secret",
        "label": "mine",
        "limits": {"requests_per_minute": 60, "models": {"m": {"concurrency": 2}}},
        "expires_at": "2027-01-31T00:00:00Z",
    }
    assert run("add", "openai", "sk-secret").exit_code == 2
    assert run("add", "openai", stdin="").exit_code == 2
    assert run("add", "openai", "--limits", "x", stdin="sk-1").exit_code == 2
    for moment in ("tomorrow", "2027-01-31", "2027-01-31T00:00:00"):
        told = run("add", "openai", "--expires-at", moment, stdin="sk-1")
        assert (told.exit_code, f"--expires-at {moment}" in told.output) == (2, True)


def test_disable_and_enable__say_what_is_so_now(run, door):
    door.says("POST /api/v1/admin/keys/openai-1/disable", {"key_id": "openai-1", "disabled": True})
    door.says("POST /api/v1/admin/keys/openai-1/enable", {"key_id": "openai-1", "disabled": False})
    assert "out of use" in run("disable", "openai-1").output
    assert "in use" in run("enable", "openai-1").output


def test_rotate__gives_a_new_master_key_only_from_stdin_and_says_what_to_do_next(run, door):
    rotated = {"keys": 2, "unreadable": ["x"], "old_master": "a", "new_master": "b", "is_from_environment": True}
    door.says("POST /api/v1/admin/keys/rotate", rotated)
    told = run("rotate", "--stdin", stdin="bWFzdGVy\n")
    assert door.asked[0][2] == {"new_master_key": "bWFzdGVy"}
    assert "Set API_KEY_ENCRYPTION_KEY" in told.output
    assert "bWFzdGVy" not in told.output
    run("rotate")
    assert door.asked[1][2] == {}
