"""Starting and stopping the service from outside: what `up` and `down` do."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.environment import (
    provider_variables,
    ray_client_environment,
    settings_as_environment,
    without_secrets,
)
from cluster.instance import MARK, Instance, Record, SupervisorLock, read_record
from cluster.keys_import import import_keys
from cluster.processes import end_all
from cluster.supervisor import EXIT_ALREADY_RUNNING
from runtime.config import Secrets, Settings
from runtime.errors import BadInputError, MasterbuilderError, StoreUnavailableError, UnavailableError
from runtime.payments.secrets import PaymentSecrets
from runtime.payments.terms import parse_providers

CONFIG_FILE = Path(__file__).resolve().parent.parent / "ray_config.yaml"

_START_S_MAX = 600.0
_STOP_S_MAX = 45.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    record: Record
    was_running: bool


def up(
    settings: Settings, environment: Mapping[str, str], tell: Callable[[str], None], config_file: Path = CONFIG_FILE
) -> Launched:
    """Returns once the service is healthy, and at once when it is already. Safe to call twice at the same time.

    `environment` is the caller's with `.env`. The provider keys in it replace those the ledger has, now or as soon
    as it is up, and reach no other process; without any the ledger keeps what it has.
    The secrets shared with payment providers are kept, sealed, where the API reads them.
    Raises BadInputError (a port is taken, a key cannot be read), UnavailableError (did not start; nothing runs then).
    """
    instance = Instance(data_dir=settings.data_dir)
    keys = provider_variables(environment)
    _prepare(instance, settings, environment)
    lock = SupervisorLock(instance)
    was_running = lock.holder() is not None
    supervisor = None if was_running else _spawn(instance, settings, environment, keys, config_file)
    try:
        record = _wait_ready(instance, lock, supervisor, tell)
    except _HolderGoneError:
        # A supervisor that was killed a moment ago still seemed to be there.
        was_running = False
        record = _wait_ready(instance, lock, _spawn(instance, settings, environment, keys, config_file), tell)
    if was_running and keys:
        secrets = Secrets.load(instance.data_dir, environment)
        client = {**_plain(settings, environment, instance), **ray_client_environment(secrets, record.ray_address)}
        asyncio.run(import_keys(keys, client))
    return Launched(record=record, was_running=was_running)


def down(instance: Instance, tell: Callable[[str], None]) -> int:
    """Stops the service and returns how many processes had to be killed. Nothing of the instance runs afterwards.

    Raises UnavailableError naming what could not be ended.
    """
    lock = SupervisorLock(instance)
    pid = lock.holder()
    if pid is not None:
        tell("Stopping.")
        _signal(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S_MAX
        while lock.holder() == pid and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        if lock.holder() == pid:
            _signal(pid, signal.SIGKILL)
    killed = end_all(instance)
    instance.record_file.unlink(missing_ok=True)
    return killed


def running(instance: Instance) -> Record | None:
    """What the living supervisor says; None when there is none."""
    return read_record(instance) if SupervisorLock(instance).holder() is not None else None


def _prepare(instance: Instance, settings: Settings, environment: Mapping[str, str]) -> None:
    try:
        instance.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        Secrets.keep(instance.data_dir, environment)
        if settings.payments_enabled:
            PaymentSecrets(instance.data_dir, environment).keep(parse_providers(settings.payment_providers_json))
    except OSError as error:
        raise StoreUnavailableError(
            f"The data folder {instance.data_dir} cannot be used: {error.strerror}.",
            "Choose another with DATA_DIR=/path, or correct its owner and free space.",
        ) from error


def _spawn(
    instance: Instance,
    settings: Settings,
    environment: Mapping[str, str],
    keys: Mapping[str, str],
    config_file: Path,
) -> subprocess.Popen[bytes]:
    with instance.log_file.open("ab") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "cluster.supervisor", str(config_file.resolve())],
            stdin=subprocess.PIPE, stdout=log, stderr=log, cwd="/", start_new_session=True,
            env=_plain(settings, environment, instance),
        )  # fmt: skip
    assert supervisor.stdin is not None
    with supervisor.stdin as pipe, contextlib.suppress(BrokenPipeError):
        pipe.write(json.dumps(dict(keys)).encode())
    return supervisor


def _plain(settings: Settings, environment: Mapping[str, str], instance: Instance) -> dict[str, str]:
    return {**without_secrets(environment), **settings_as_environment(settings), MARK: instance.id}


def _wait_ready(
    instance: Instance, lock: SupervisorLock, supervisor: subprocess.Popen[bytes] | None, tell: Callable[[str], None]
) -> Record:
    told = ""
    deadline = time.monotonic() + _START_S_MAX
    while time.monotonic() < deadline:
        status = supervisor.poll() if supervisor else None
        if status == EXIT_ALREADY_RUNNING:
            supervisor, status = None, None
        ended = status is not None or (supervisor is None and lock.holder() is None)
        record = read_record(instance)
        if record and supervisor and record.supervisor_pid != supervisor.pid:
            record = None
        if ended:
            why = _why_ended(instance, record)
            raise _HolderGoneError(why.message, why.next_step) if supervisor is None else why
        if record and record.state == "ready":
            return record
        if record and record.detail and record.detail != told:
            told = record.detail
            tell(told)
        time.sleep(_POLL_S)
    raise UnavailableError(f"The service is not ready after {_START_S_MAX:.0f} s.", f"See {instance.log_file}.")


class _HolderGoneError(UnavailableError):
    """The supervisor that was found running ended while it was waited for."""


def _why_ended(instance: Instance, record: Record | None) -> MasterbuilderError:
    if record is None or record.state != "failed":
        return UnavailableError("The supervisor ended before the service was ready.", f"See {instance.log_file}.")
    if record.error_code == BadInputError.code:
        return BadInputError(record.detail, record.next_step)
    return UnavailableError(record.detail, record.next_step or f"See {instance.log_file}.")


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
