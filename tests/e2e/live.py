"""The whole product on this machine, as a user has it: the command, the service, and a simulated provider."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster.client import Client
from cluster.environment import clean_environment
from cluster.instance import Instance
from cluster.launch import down
from cluster.ports import free_ports
from cluster.processes import end_all, owned
from cluster.simulator_process import SimulatorProcess
from runtime.config import Secrets

_COMMAND_S_MAX = 600.0
PAYMENT_SECRET = "5e2a9c04f1b7d8836ac0195f7be24d3a90c7e6f2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """One installation with its own data folder and ports; nothing of it is left after `close`."""

    folder: Path
    environment: Mapping[str, str]
    """Everything `masterbuilder` needs to find this installation, without a provider."""

    @classmethod
    def in_folder(cls, folder: Path) -> "Live":
        http_port, dashboard_port = free_ports(2)
        environment = {
            **clean_environment(os.environ),
            "DATA_DIR": str(folder / "data"),
            "HTTP_PORT": str(http_port),
            "DASHBOARD_PORT": str(dashboard_port),
        }
        return cls(folder=folder, environment=environment)

    @property
    def instance(self) -> Instance:
        return Instance(data_dir=self.folder / "data")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.environment['HTTP_PORT']}"

    @property
    def client(self) -> Client:
        return Client(self.url, self.client_token)

    @property
    def client_token(self) -> str:
        return Secrets.load(self.folder / "data", {}).admin_token

    @property
    def bot_token(self) -> str:
        """By which the bot is known at the HTTP door."""
        return Secrets.load(self.folder / "data", {}).bot_service_token

    @property
    def usage_file(self) -> Path:
        return self.folder / "simulator-usage.jsonl"

    def start_simulator(self, latency_ms: int = 0) -> dict[str, str]:
        """The variables that make it the provider."""
        simulator = SimulatorProcess.start(self._simulator, self.usage_file, self.environment, latency_ms)
        return {"OPENAI_API_KEY": "sim-test", "OPENAI_BASE_URL": simulator.base_url}

    def start_shop(self) -> dict[str, str]:
        """The variables that make a simulator the provider of models and of payments, which it calls `sim`."""
        simulator = SimulatorProcess.start(
            self._simulator, self.usage_file, self.environment, latency_ms=0,
            webhook_url=f"{self.url}/api/v1/payments/sim/webhook", payment_secret=PAYMENT_SECRET,
        )  # fmt: skip
        page = {"id": "sim", "page_url": f"{simulator.root_url}/pay", "secret_variable": "SIM_PAYMENT_SECRET"}
        return {
            "OPENAI_API_KEY": "sim-test",
            "OPENAI_BASE_URL": simulator.base_url,
            "PAYMENTS_ENABLED": "true",
            "PAYMENT_PROVIDERS_JSON": json.dumps([page]),
            "SIM_PAYMENT_SECRET": PAYMENT_SECRET,
        }

    def run(self, *arguments: str, stdin: str = "", **variables: str) -> "subprocess.CompletedProcess[str]":
        """Runs `masterbuilder` as a process of its own and waits for it."""
        return subprocess.run(
            [str(Path(sys.executable).with_name("masterbuilder")), *arguments],
            env={**self.environment, **variables},
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_COMMAND_S_MAX,
            check=False,
        )

    def kill_everything(self) -> int:
        """kill -9 of every process of the service at once, the supervisor first. The simulator lives.

        A process may start another between our look and our kill: so it looks again until there is none.
        """
        killed = 0
        while processes := owned(self.instance):
            for process in processes:
                try:
                    process.send_signal(signal.SIGKILL)
                except psutil.NoSuchProcess:
                    continue
            psutil.wait_procs(processes, timeout=10.0)
            killed += len(processes)
        return killed

    def left_of_service(self) -> list[psutil.Process]:
        return owned(self.instance)

    def left(self) -> list[psutil.Process]:
        return [*self.left_of_service(), *owned(self._simulator)]

    def close(self) -> None:
        down(self.instance, lambda text: None)
        end_all(self._simulator)

    @property
    def _simulator(self) -> Instance:
        return Instance(data_dir=self.folder / "simulator")
