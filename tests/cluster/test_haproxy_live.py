"""HAProxy before real replicas: who listens, and what becomes of a call whose client is gone."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from cluster.instance import Instance
from cluster.launch import down, up
from cluster.ports import free_ports
from cluster.processes import owned
from runtime.config import Settings

pytestmark = pytest.mark.alone

HERE = Path(__file__).parent
LET_GO_S_MAX = 20.0
HELLO = {"messages": [{"role": "user", "content": "hi"}]}


class Service:
    def __init__(self, folder: Path, path: str = os.environ["PATH"]) -> None:
        self.folder = folder
        self.instance = Instance(data_dir=folder / "data")
        self.http_port, dashboard_port = free_ports(2)
        config_file = folder / "serve.yaml"
        applications = [
            {"name": "trivial", "route_prefix": "/", "import_path": "trivial_app:build"},
            {
                "name": "door",
                "route_prefix": "/v1",
                "import_path": "waiting_door:build",
                "args": {"folder": str(folder)},
            },
        ]
        config_file.write_text(yaml.safe_dump({"proxy_location": "HeadOnly", "applications": applications}))
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(HERE), str(HERE.parents[1]))),
            "DATA_DIR": str(self.instance.data_dir),
            "HTTP_PORT": str(self.http_port),
            "DASHBOARD_PORT": str(dashboard_port),
        }
        self.record = up(Settings.from_environment(environment), environment, lambda _: None, config_file).record

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}/v1/chat/completions"

    def appears(self, name: str, within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if (self.folder / name).exists():
                return True
            time.sleep(0.02)
        return False


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("service"))
    yield service
    down(service.instance, lambda text: None)


def test_haproxy__is_what_listens_and_its_files_go_with_the_instance(service: Service) -> None:
    deadline = time.monotonic() + 60.0  # It is replaced when its configuration changes.
    while not (names := _listening(service)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert names == {"haproxy"}
    assert service.record.proxy == "haproxy"


def test_waiting_client__that_hangs_up_lets_the_call_go(service: Service) -> None:
    client = httpx.Client(headers={"authorization": "Bearer t"}, timeout=httpx.Timeout(10, read=2))
    with pytest.raises(httpx.ReadTimeout), client:
        client.post(service.url, json={"model": "whole", **HELLO})
    assert service.appears("whole.begun", LET_GO_S_MAX)
    assert service.appears("whole.let-go", LET_GO_S_MAX)


def test_reading_client__that_hangs_up_lets_the_stream_go(service: Service) -> None:
    headers = {"authorization": "Bearer t"}
    with httpx.stream(
        "POST", service.url, json={"model": "streamed", "stream": True, **HELLO}, headers=headers
    ) as stream:
        pieces = stream.iter_bytes()
        assert next(pieces) == b"data: {}\n\n"
        assert not service.appears("streamed.let-go", 0.1)
    assert service.appears("streamed.let-go", LET_GO_S_MAX)


def test_refusal__comes_through_in_the_doors_own_words_under_the_clients_request_id(service: Service) -> None:
    headers = {"authorization": "Bearer t", "x-request-id": "mine"}
    refused = httpx.post(service.url.replace("chat/completions", "messages"), json={"a": 1}, headers=headers)
    assert refused.status_code == 400
    assert refused.json()["request_id"] == refused.headers["request-id"] == "mine"
    assert refused.headers["x-request-id"] == "mine"


def _listening(service: Service) -> set[str]:
    return {process.name() for process in owned(service.instance) if _listens(process, service.http_port)}


def _listens(process: psutil.Process, port: int) -> bool:
    """False of a process that ended meanwhile, as HAProxy's predecessor does when its configuration changes."""
    try:
        connections = process.net_connections("inet")
    except psutil.NoSuchProcess:
        return False
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in connections)
