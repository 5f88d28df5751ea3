"""The simulator as a child process."""

import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from cluster.environment import PAYMENT_SECRET_VARIABLE, without_secrets
from cluster.instance import MARK, Instance
from runtime.errors import UnavailableError

_READY = "Simulator ready: "
_START_S_MAX = 60.0


class SimulatorProcess:
    """Carries its instance's mark, so `processes.end_all` finds it even after its starter was killed."""

    def __init__(self, process: subprocess.Popen[str], base_url: str) -> None:
        self._process = process
        self.base_url = base_url
        """With `/v1`."""
        self.root_url = base_url.removesuffix("/v1")
        """As the clients of Anthropic and Gemini want it."""

    @classmethod
    def start(
        cls,
        instance: Instance,
        usage_file: Path,
        environment: Mapping[str, str],
        latency_ms: int = 40,
        *,
        webhook_url: str = "",
        payment_secret: str = "",
    ) -> "SimulatorProcess":
        """Returns once it listens, on a free port; with a `webhook_url` it also takes payments.

        Raises UnavailableError with its last words.
        """
        instance.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        log_file = simulator_log(instance)
        with log_file.open("ab") as log:
            process = subprocess.Popen(
                [
                    sys.executable, "-m", "cluster.simulator", "--port", "0", "--usage-file", str(usage_file),
                    "--latency-ms", str(latency_ms), *(["--webhook-url", webhook_url] if webhook_url else []),
                ],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
                env={**without_secrets(environment), MARK: instance.id, PAYMENT_SECRET_VARIABLE: payment_secret},
            )  # fmt: skip
        assert process.stdout is not None
        deadline = time.monotonic() + _START_S_MAX
        while time.monotonic() < deadline:
            if not select.select([process.stdout], [], [], 1.0)[0]:
                continue
            line = process.stdout.readline()
            if line.startswith(_READY):
                return cls(process, line.removeprefix(_READY).strip())
            if not line:
                break
        process.kill()
        process.wait()
        raise UnavailableError("The simulator did not start.", f"See {log_file}.")

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def simulator_log(instance: Instance) -> Path:
    return instance.run_dir / "simulator.log"
