"""The service as its operator meets it: started, asked, given a key, killed, started again, deployed by Serve."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import psutil
import pytest

from cluster.environment import ray_client_environment
from cluster.instance import read_record
from runtime.config import Secrets
from tests.e2e.live import Live

ROOT = Path(__file__).parent.parent.parent


def test_up_without_a_provider__starts_and_prints_the_commands_that_add_one(live: Live) -> None:
    started = live.run("up")
    assert started.returncode == 0, started.stderr
    assert "export OPENAI_API_KEY=" in started.stdout
    assert "masterbuilder simulate" in started.stdout
    assert live.client.health().provider == "none"


def test_build_without_a_provider__is_refused_and_costs_nothing(live: Live) -> None:
    live.run("up")
    before = live.client.me().balance_ucredits
    refused = live.run("build", "a tiny app", "--yes")
    assert refused.returncode == 4
    assert "provider" in refused.stderr
    assert "Nothing was charged." in refused.stderr
    assert live.client.me().balance_ucredits == before


@pytest.mark.parametrize(
    ("arguments", "stdin", "status", "words"),
    [
        (("build", "-"), "", 2, "empty"),
        (("build", "-"), "x" * (1 << 20), 2, "bytes"),
        (("receipt", "6f1c0000-0000-0000-0000-000000000000"), "", 3, "masterbuilder projects"),
        (("logs", "nonsense"), "", 3, "masterbuilder projects"),
    ],
)
def test_bad_input__has_its_exit_status_and_a_clear_text(
    live: Live, arguments: tuple[str, ...], stdin: str, status: int, words: str
) -> None:
    live.run("up")
    answer = live.run(*arguments, stdin=stdin)
    assert answer.returncode == status, answer.stderr
    assert words in answer.stderr
    assert "Traceback" not in answer.stdout + answer.stderr


def test_wrong_token__is_refused(live: Live) -> None:
    live.run("up")
    refused = live.run("projects", MASTERBUILDER_TOKEN="mb-wrong")
    assert refused.returncode == 3
    assert "token" in refused.stderr


def test_up_with_a_key__gives_it_to_the_running_service_and_to_no_process(live: Live) -> None:
    live.run("up")
    given = live.run("up", OPENAI_API_KEY="sim-very-secret", OPENAI_BASE_URL="http://127.0.0.1:9/v1")
    assert given.returncode == 0, given.stderr
    assert live.client.health().provider == "openai"
    environments = [_environment(process) for process in live.left()]
    assert any(environments)
    assert not [environment for environment in environments if "sim-very-secret" in str(environment)]
    stored = [path for path in live.instance.data_dir.rglob("*") if path.is_file()]
    assert not [path for path in stored if b"sim-very-secret" in path.read_bytes()]


def test_every_listener__is_on_the_loopback_interface(live: Live) -> None:
    live.run("up")
    listening = [
        connection.laddr
        for process in live.left()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert [address for address in listening if address.ip not in ("127.0.0.1", "::ffff:127.0.0.1", "::1")] == []


def test_doctor_and_status__tell_facts_of_the_running_service(live: Live) -> None:
    live.run("up")
    status = json.loads(live.run("status", "--json").stdout)
    assert status["running"] is True
    assert status["processes"] == len(live.left())
    checks = {check["name"]: check["verdict"] for check in json.loads(live.run("doctor", "--json").stdout)}
    assert checks["service"] == checks["books"] == checks["sandbox"] == checks["aider"] == "ok"


def test_supervisor_killed__status_and_doctor_name_the_command_that_mends_it(live: Live) -> None:
    live.run("up")
    assert json.loads(live.run("status", "--json").stdout)["state"] == "ready"
    record = read_record(live.instance)
    assert record is not None
    psutil.Process(record.supervisor_pid).kill()
    for command in ("status", "doctor"):
        told = live.run(command)
        assert "supervisor" in told.stdout
        assert "masterbuilder up" in told.stdout
        assert "another port" not in told.stdout
    assert live.run("up").returncode == 0


def test_everything_killed__up_starts_it_again_with_the_same_wallet_and_keys(live: Live) -> None:
    live.run("up", OPENAI_API_KEY="sim-test", OPENAI_BASE_URL="http://127.0.0.1:9/v1")
    balance = live.client.me().balance_ucredits
    assert live.kill_everything() > 10
    started = live.run("up")
    assert started.returncode == 0, started.stderr
    assert live.client.me().balance_ucredits == balance
    assert live.client.health().provider == "openai"


def test_person__takes_their_data_out_through_the_running_service_and_is_deleted(live: Live) -> None:
    live.run("up")
    issued = json.loads(live.run("tokens", "create", "--user", "ann", "--json").stdout)
    as_ann = {"MASTERBUILDER_TOKEN": issued["token"]}
    told = live.run("privacy", "email", "ann@example.org", **as_ann)
    assert told.returncode == 0, told.stderr
    target = live.folder / "ann.zip"
    exported = live.run("privacy", "export", "--output", str(target), **as_ann)
    assert exported.returncode == 0, exported.stderr
    with zipfile.ZipFile(target) as archive:
        assert archive.testzip() is None
        profile = json.loads(archive.read("profile.json"))
    assert (profile["user"], profile["email"]) == ("ann", "ann@example.org")
    assert live.run("privacy", "export", "--user", "local-admin", "-o", str(target), **as_ann).returncode == 3
    assert live.run("privacy", "delete", **as_ann).returncode == 2
    deleted = live.run("privacy", "delete", "--yes", **as_ann)
    assert deleted.returncode == 0, deleted.stderr
    assert "100.000000" not in deleted.stdout
    assert "100.00 credits are forfeited" in deleted.stdout
    assert live.run("privacy", "export", "-o", str(target), **as_ann).returncode == 3
    assert live.run("privacy", "delete", "--yes").returncode == 3, "the local admin stays"


def test_serve_deploy__of_the_config_file_starts_the_same_applications(live: Live) -> None:
    live.run("up")
    record = read_record(live.instance)
    assert record is not None
    secrets = Secrets.load(live.instance.data_dir, {})
    config = (ROOT / "ray_config.yaml").read_text().replace("8000", live.environment["HTTP_PORT"])
    (live.folder / "ray_config.yaml").write_text(config)
    deployed = subprocess.run(
        [Path(sys.executable).with_name("serve"), "deploy", "--address", record.dashboard_url, "ray_config.yaml"],
        env={**live.environment, **ray_client_environment(secrets, record.ray_address)},
        cwd=live.folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert deployed.returncode == 0, deployed.stderr
    assert live.client.health().ledger == "ok"


def test_down__leaves_nothing(live: Live) -> None:
    live.run("up")
    stopped = live.run("down")
    assert stopped.returncode == 0, stopped.stderr
    assert live.left() == []
    assert live.run("status").returncode == 4


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}
