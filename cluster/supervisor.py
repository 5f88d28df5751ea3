"""The process that `masterbuilder up` leaves behind: starts Ray and the applications, and starts them again.

It needs no Ray itself. `python -m cluster.supervisor CONFIG` reads the settings from its environment and, as one JSON
object from stdin, the variables that hold the provider keys (empty when none are to be imported). It speaks by its
record (`cluster.instance.Record`) and by JSON lines on stdout. SIGTERM or SIGINT stop it and everything it started.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from cluster import haproxy
from cluster.environment import ray_client_environment, ray_environment
from cluster.instance import Instance, Record, State, SupervisorLock, write_record
from cluster.keys_import import import_keys
from cluster.ports import is_free
from cluster.processes import end_all
from cluster.ray_head import RayHead, make_temp_dir, remove_temp_dirs
from cluster.serving import Dashboard, load_config
from runtime.config import Secrets, Settings
from runtime.errors import BadInputError, MasterbuilderError, UnavailableError
from runtime.implementer.scratch import remove_tree_now

EXIT_ALREADY_RUNNING = 3

TELEGRAM_APPLICATION = "telegram"
_DASHBOARD_S_MAX = 90.0
_RUNNING_S_MAX = 120.0
_HEALTHY_S_MAX = 60.0
_UNANSWERED_S_MAX = 45.0
_WATCH_EVERY_S = 2.0
_FIRST_STARTS_MAX = 2
_BACK_OFF_S = (1.0, 2.0, 5.0, 10.0, 30.0)
_STEADY_S = 120.0
"""Ray that ran this long has recovered: the next failure is the first again."""


class Supervisor:
    """Owns one Ray, from start to end. The only process that starts or ends one for its instance."""

    def __init__(
        self,
        instance: Instance,
        settings: Settings,
        secrets: Secrets,
        config_file: Path,
        environment: Mapping[str, str],
        keys_environment: Mapping[str, str],
    ) -> None:
        self._instance = instance
        self._settings = settings
        self._secrets = secrets
        self._config_file = config_file
        self._environment = environment
        self._keys_environment = keys_environment
        self._head: RayHead | None = None
        self._proxy = ""
        self._restarts = 0

    async def run(self) -> int:
        """Runs until cancelled. Returns 1 when the service could not be started even once.

        Whatever ends it, nothing of the instance runs afterwards but the caller.
        """
        try:
            return await self._start_and_watch()
        finally:
            await self._stop()

    async def _start_and_watch(self) -> int:
        failures = 0
        while True:
            try:
                await self._start()
            except (MasterbuilderError, TimeoutError, httpx.HTTPError, OSError, ValueError) as error:
                failure = _as_error(error)
                failures += 1
                _log("start_failed", reason=failure.message, failures=failures)
                if self._restarts == 0 and (isinstance(failure, BadInputError) or failures >= _FIRST_STARTS_MAX):
                    self._tell("failed", failure.message, failure)
                    return 1
                self._tell("restarting" if self._restarts else "starting", failure.message, failure)
            else:
                self._tell("ready")
                since = time.monotonic()
                reason = await self._watch()
                failures = 1 if time.monotonic() - since > _STEADY_S else failures + 1
                self._restarts += 1
                _log("lost", reason=reason, restarts=self._restarts)
                self._tell("restarting", reason)
            await self._stop()
            await asyncio.sleep(_BACK_OFF_S[min(failures, len(_BACK_OFF_S)) - 1])

    async def _start(self) -> None:
        self._tell("restarting" if self._restarts else "starting", "Starting Ray.")
        await asyncio.to_thread(self._clear)
        self._demand_ports()
        binary = await asyncio.to_thread(haproxy.find)
        self._proxy = "haproxy" if binary else "ray serve"
        temp_dir = make_temp_dir(self._instance)
        environment = ray_environment(self._environment, self._settings, self._secrets, self._instance, temp_dir)
        http_host = self._settings.http_host
        if binary:
            environment |= haproxy.prepare(binary, self._settings, temp_dir)
            http_host = haproxy.LOOPBACK
        has_bot = self._settings.telegram_dry_run or self._secrets.telegram_bot_token
        without = () if has_bot else (TELEGRAM_APPLICATION,)
        config = load_config(self._config_file, http_host, self._settings.http_port, without)
        self._head = await RayHead.start(self._instance, self._settings, temp_dir, environment)
        ended = asyncio.create_task(self._head.ended())
        serving = asyncio.create_task(self._serve(self._head, config, environment))
        try:
            await asyncio.wait((ended, serving), return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                raise UnavailableError(
                    f"Ray ended with status {ended.result()}.", f"See {self._instance.ray_log_file} for its last words."
                )
            serving.result()
        finally:
            for task in (ended, serving):
                task.cancel()
            await asyncio.gather(ended, serving, return_exceptions=True)

    async def _serve(self, head: RayHead, config: Mapping[str, object], environment: Mapping[str, str]) -> None:
        dashboard = Dashboard(self._dashboard_url, self._secrets.ray_auth_token)
        await dashboard.wait(_DASHBOARD_S_MAX)
        self._tell("deploying" if self._restarts == 0 else "restarting", "Starting the applications.")
        await dashboard.deploy(config)
        await dashboard.wait_running(_RUNNING_S_MAX)
        if self._keys_environment:
            child = {**environment, **ray_client_environment(self._secrets, head.address)}
            await import_keys(self._keys_environment, child)
            self._keys_environment = {}
        await self._wait_healthy()

    async def _wait_healthy(self) -> None:
        answer = "nothing"
        deadline = time.monotonic() + _HEALTHY_S_MAX
        async with httpx.AsyncClient(timeout=10.0, trust_env=False) as client:
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx.HTTPError):
                    response = await client.get(f"{self._settings.api_url}/health")
                    if response.status_code == 200:
                        return
                    answer = f"{response.status_code} {response.text[:300]}"
                await asyncio.sleep(0.2)
        raise UnavailableError(f"The service did not become healthy; /health last answered: {answer}.")

    async def _watch(self) -> str:
        """Returns why, once the service is lost."""
        assert self._head is not None
        ended = asyncio.create_task(self._head.ended())
        answered_at = time.monotonic()
        try:
            async with httpx.AsyncClient(timeout=10.0, trust_env=False) as client:
                while True:
                    done, _ = await asyncio.wait((ended,), timeout=_WATCH_EVERY_S)
                    if done:
                        return f"Ray ended with status {ended.result()}."
                    with contextlib.suppress(httpx.HTTPError):
                        await client.get(f"{self._settings.api_url}/live")
                        answered_at = time.monotonic()
                    if time.monotonic() - answered_at > _UNANSWERED_S_MAX:
                        return f"The service has not answered for {_UNANSWERED_S_MAX:.0f} s."
        finally:
            ended.cancel()

    async def _stop(self) -> None:
        if self._head is not None:
            await self._head.stop()
            self._head = None
        await asyncio.to_thread(self._clear)

    def _clear(self) -> None:
        ended = end_all(self._instance)
        if ended:
            _log("ended_processes", count=ended)
        remove_temp_dirs(self._instance)
        if self._settings.scratch_dir is not None:
            remove_tree_now(self._settings.scratch_folder)

    def _demand_ports(self) -> None:
        named = (
            ("HTTP_PORT", self._settings.http_host, self._settings.http_port),
            ("DASHBOARD_PORT", "127.0.0.1", self._settings.dashboard_port),
        )
        for name, host, port in named:
            if not is_free(host, port):
                raise BadInputError(
                    f"Port {port} on {host} is in use by another program, or may not be opened.",
                    f"Choose another: `{name}={port + 1} masterbuilder up`.",
                )

    @property
    def _dashboard_url(self) -> str:
        return f"http://127.0.0.1:{self._settings.dashboard_port}"

    def _tell(self, state: State, detail: str = "", error: MasterbuilderError | None = None) -> None:
        _log("state", state=state, detail=detail)
        write_record(
            self._instance,
            Record(
                state=state,
                detail=detail,
                next_step=error.next_step if error else "",
                error_code=error.code if error else "",
                supervisor_pid=os.getpid(),
                url=self._settings.api_url,
                dashboard_url=self._dashboard_url,
                ray_address=self._head.address if self._head else "",
                restarts=self._restarts,
                proxy=self._proxy,
            ),
        )


def _as_error(error: Exception) -> MasterbuilderError:
    if isinstance(error, MasterbuilderError):
        return error
    if isinstance(error, TimeoutError):
        return UnavailableError("Ray did not start in time.", "Look for a machine that is out of memory or CPU.")
    return UnavailableError(f"The service could not be started: {type(error).__name__}: {error}")


def _log(event: str, **facts: object) -> None:
    print(json.dumps({"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "event": event, **facts}), flush=True)


async def _run(config_file: Path) -> int:
    settings = Settings.from_environment(os.environ)
    instance = Instance(data_dir=settings.data_dir)
    lock = SupervisorLock(instance)
    if not lock.take():
        return EXIT_ALREADY_RUNNING
    keys_environment = json.loads(sys.stdin.read() or "{}")
    secrets = Secrets.load(settings.data_dir, os.environ)
    supervisor = Supervisor(instance, settings, secrets, config_file, os.environ.copy(), keys_environment)
    running = asyncio.create_task(supervisor.run())
    for stop in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(stop, running.cancel)
    try:
        return await running
    except asyncio.CancelledError:
        _log("stopped")
        return 0


def main() -> int:
    return asyncio.run(_run(Path(sys.argv[1])))


if __name__ == "__main__":
    sys.exit(main())
