"""What of the caller's environment Ray's processes may see."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from cluster.instance import MARK, Instance
from runtime.config import Secrets, Settings
from runtime.keys.environment import found_keys, import_variables

_SECRET = re.compile(r"(^|_)(KEYS?|TOKENS?|SECRETS?|PASSWORDS?|PASSWD|CREDENTIALS?)(_|$)", re.IGNORECASE)
_CODES = {"DEMO_UNLOCK_CODE", "BOOTSTRAP_ADMIN_CODE"}
_STATED = {"API_KEY_ENCRYPTION_KEY"}
"""Secrets that the service's own processes read from their environment."""

BIND_HOOK = "cluster.replica_port.bind_to_node_address"
PAYMENT_SECRET_VARIABLE = "SIMULATOR_PAYMENT_SECRET"
"""With it the simulator signs what it tells of payments."""


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without provider keys, tokens and passwords: implementers run as children of it."""
    return {
        name: value
        for name, value in environment.items()
        if name in _STATED or not (_SECRET.search(name) or name.upper() in _CODES)
    }


def provider_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """What the environment says about model services, keys included; empty when it configures none.

    Raises BadInputError for a key or an address that cannot be one. Blocks for files that hold keys.
    """
    if not found_keys(environment):
        return {}
    names = import_variables(environment)
    return {name: value for name, value in environment.items() if name in names}


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Without secrets, and without the caller's settings except where Aider and the model are installed."""
    named = {name.upper() for name in Settings.model_fields} - {"AIDER_VENV", "MODEL_CACHE_DIR"}
    kept = without_secrets(environment)
    services = import_variables(environment)
    return with_installed({name: value for name, value in kept.items() if name not in named | services})


def with_installed(environment: Mapping[str, str]) -> dict[str, str]:
    """Adds where `make setup` put Aider and where the model belongs, if this is such an installation."""
    prefix = Path(sys.prefix)
    found = {"AIDER_VENV": prefix.parent / ".venv-aider", "MODEL_CACHE_DIR": prefix / "models"}
    known = {name: str(path) for name, path in found.items() if found["AIDER_VENV"].is_dir()}
    return {**known, **environment}


def settings_as_environment(settings: Settings) -> dict[str, str]:
    """The settings as `Settings.from_environment` reads them, with paths that hold in any folder."""
    given = {name.upper(): value for name, value in settings if value is not None}
    return {name: str(value.absolute() if isinstance(value, Path) else value) for name, value in given.items()}


def ray_client_environment(secrets: Secrets, ray_address: str) -> dict[str, str]:
    """What a process needs to speak with this Ray and with no other."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.ray_auth_token,
        "RAY_ADDRESS": ray_address,
        # Without this Ray replaces 127.0.0.1 by the machine's outer address and listens on all interfaces.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def ray_environment(
    environment: Mapping[str, str], settings: Settings, secrets: Secrets, instance: Instance, temp_dir: Path
) -> dict[str, str]:
    """The whole environment of Ray's head and so of everything it starts."""
    ours = ray_client_environment(secrets, "")
    del ours["RAY_ADDRESS"]
    kept = {name: value for name, value in without_secrets(environment).items() if name != "RAY_ADDRESS"}
    return {
        **kept,
        **settings_as_environment(settings),
        **ours,
        MARK: instance.id,
        "RAY_TMPDIR": str(temp_dir),
        # What its processes leave behind when they are killed is removed with this folder.
        "TMPDIR": str(temp_dir),
        # Ray has its workers behind everything else on the machine, and so calls that people wait for. What may wait is
        # what runs in the sandbox, which says so itself.
        "RAY_worker_niceness": "0",
        # Nothing needs draining: all state survives `kill -9`, and draining takes 30 s.
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        # Our applications never block: a thread of their own, with its queues, would cost more than what they do.
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
        # Every process of Serve counts and looks around ten times a second otherwise, busy or not.
        "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "5000",
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
        "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR": BIND_HOOK,
    }
