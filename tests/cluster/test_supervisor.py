"""A real Ray with a trivial application: started, lost, started again, stopped, with nothing left behind."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from cluster.instance import Instance, Record, read_record
from cluster.launch import Launched, down, running, up
from cluster.ports import free_ports
from cluster.processes import owned
from runtime.config import Settings
from runtime.errors import BadInputError
from tests.deep import nest

HERE = Path(__file__).parent
BACK_S_MAX = 180.0
"""How long anything may be away after kill -9 of GCS or raylet."""


class Service:
    """One instance with its own data folder, ports and application."""

    def __init__(self, folder: Path) -> None:
        self.instance = Instance(data_dir=folder / "data")
        self.config_file = folder / "serve.yaml"
        application = {"name": "trivial", "route_prefix": "/", "import_path": "trivial_app:build"}
        self.config_file.write_text(yaml.safe_dump({"proxy_location": "HeadOnly", "applications": [application]}))
        self.http_port, self.dashboard_port = free_ports(2)
        self.said: list[str] = []

    def up(self, **variables: str) -> Launched:
        environment = {
            **os.environ,
            "PYTHONPATH": str(HERE),
            "DATA_DIR": str(self.instance.data_dir),
            "HTTP_PORT": str(self.http_port),
            "DASHBOARD_PORT": str(self.dashboard_port),
            **variables,
        }
        return up(Settings.from_environment(environment), environment, self.said.append, self.config_file)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.http_port}{path}", timeout=60.0)

    def pid_of(self, name: str) -> int:
        return next(process.pid for process in owned(self.instance) if process.name() == name)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("service"))
    yield service
    down(service.instance, lambda text: None)


def test_up__is_healthy_and_a_second_up_finds_it_running(service: Service) -> None:
    first = service.up(SOME_SERVICE_TOKEN="not for implementers")
    second = service.up()
    assert not first.was_running
    assert second.was_running
    assert second.record.supervisor_pid == first.record.supervisor_pid
    assert service.get("/health").status_code == 200


def test_rays_environment__holds_settings_and_no_secret_of_the_caller(service: Service) -> None:
    service.up()
    environment = service.get("/environment").json()
    assert environment["DATA_DIR"] == str(service.instance.data_dir)
    assert "SOME_SERVICE_TOKEN" not in environment
    assert "not for implementers" not in str(
        [process.environ() for process in owned(service.instance) if process.is_running()]
    )


def test_every_listener__is_on_the_loopback_interface(service: Service) -> None:
    service.up()
    listening = {
        connection.laddr
        for process in owned(service.instance)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    outside = [address for address in listening if address.ip not in ("127.0.0.1", "::ffff:127.0.0.1", "::1")]
    assert service.http_port in {address.port for address in listening}
    assert outside == []


def test_the_supervisor__needs_no_ray(service: Service) -> None:
    supervisor = service.up().record.supervisor_pid
    mapped = Path(f"/proc/{supervisor}/maps").read_text()
    assert "python" in mapped
    assert "/ray/" not in mapped


@pytest.mark.parametrize("name", ["gcs_server", "raylet"])
def test_ray_killed__is_started_again_by_the_supervisor_within_a_minute(service: Service, name: str) -> None:
    before = service.up().record
    os.kill(service.pid_of(name), signal.SIGKILL)
    record = _wait_for_restart(service, before)
    assert record.supervisor_pid == before.supervisor_pid
    assert service.get("/health").status_code == 200


def test_ray_killed_without_a_supervisor__is_started_again_by_up(service: Service) -> None:
    before = service.up().record
    _kill_and_wait(before.supervisor_pid)
    os.kill(service.pid_of("gcs_server"), signal.SIGKILL)
    after = service.up()
    assert not after.was_running
    assert after.record.supervisor_pid != before.supervisor_pid
    assert service.get("/health").status_code == 200


def test_supervisor_killed_while_it_restarts_ray__up_goes_on(service: Service) -> None:
    before = service.up().record
    os.kill(service.pid_of("raylet"), signal.SIGKILL)
    _wait_until(lambda: _state(service) == "restarting", "the supervisor saw it")
    _kill_and_wait(before.supervisor_pid)
    after = service.up()
    assert not after.was_running
    assert after.record.restarts == 0
    assert service.get("/health").status_code == 200


def test_supervisor_killed__up_clears_what_is_left_and_starts_again(service: Service) -> None:
    before = service.up().record
    _kill_and_wait(before.supervisor_pid)
    left = {process.pid for process in owned(service.instance)}
    after = service.up().record
    assert after.supervisor_pid != before.supervisor_pid
    assert left.isdisjoint(process.pid for process in owned(service.instance))
    assert service.get("/health").status_code == 200


def test_down__leaves_no_process_no_folder_and_free_ports(service: Service, tmp_path: Path) -> None:
    down(service.instance, service.said.append)
    service.up(SCRATCH_DIR=str(tmp_path))
    assert owned(service.instance)
    prefix = Path(service.instance.temp_prefix)
    left_by_an_implementer = Settings(data_dir=service.instance.data_dir, scratch_dir=tmp_path).scratch_folder / "1-a"
    left_by_an_implementer.mkdir(parents=True)
    with nest(left_by_an_implementer), nest(next(prefix.parent.glob(f"{prefix.name}*"))):
        down(service.instance, service.said.append)
    assert owned(service.instance) == []
    assert running(service.instance) is None
    assert list(prefix.parent.glob(f"{prefix.name}*")) == []
    assert list(tmp_path.iterdir()) == []


def test_up__names_the_port_that_is_taken(service: Service) -> None:
    down(service.instance, service.said.append)
    with socket.socket() as other:
        # Connections that HAProxy has closed linger for a minute and bar a port to whoever does not say this.
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", service.http_port))
        other.listen()
        with pytest.raises(BadInputError, match=str(service.http_port)) as refused:
            service.up()
    assert "HTTP_PORT=" in refused.value.next_step
    assert owned(service.instance) == []


def test_application_that_cannot_start__is_reported_with_its_reason(tmp_path: Path) -> None:
    broken = Service(tmp_path)
    broken.config_file.write_text("applications: {}\n")
    with pytest.raises(BadInputError, match="not a Ray Serve configuration"):
        broken.up()
    assert owned(broken.instance) == []


def _wait_for_restart(service: Service, before: Record) -> Record:
    def restarted() -> bool:
        record = read_record(service.instance)
        return record is not None and record.restarts > before.restarts and record.state == "ready"

    _wait_until(restarted, "Ray was started again")
    record = read_record(service.instance)
    assert record is not None
    return record


def _kill_and_wait(pid: int) -> None:
    process = psutil.Process(pid)
    process.kill()
    process.wait(60.0)


def _state(service: Service) -> str:
    record = read_record(service.instance)
    return record.state if record else ""


def _wait_until(reached: Callable[[], bool], what: str) -> None:
    """Waits as long as the product may take to be back."""
    deadline = time.monotonic() + BACK_S_MAX
    while not reached():
        assert time.monotonic() < deadline, f"not within {BACK_S_MAX:.0f} s: {what}"
        time.sleep(0.1)
