"""Ray's dashboard as the supervisor uses it: deploys the Serve applications and asks how they are."""

import asyncio
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from runtime.errors import BadInputError, UnavailableError

_POLL_S = 0.25


class ServeConfig(BaseModel):
    """`ray_config.yaml`, as far as we read it; the rest is Ray's to check."""

    model_config = ConfigDict(extra="allow")

    http_options: dict[str, Any] = {}
    applications: list[dict[str, Any]]


class _Application(BaseModel):
    status: str
    message: str = ""
    deployments: dict[str, dict[str, Any]] = {}


class _Applications(BaseModel):
    applications: dict[str, _Application] = {}


def load_config(path: Path, host: str, port: int, without: Collection[str] = ()) -> dict[str, Any]:
    """The Serve config as a JSON body, listening on `host:port`, without the applications of these names.

    Raises BadInputError naming the file.
    """
    try:
        config = ServeConfig.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise BadInputError(
            f"{path} is not a Ray Serve configuration: {error}", "Restore it from the repository."
        ) from error
    config.http_options.update(host=host, port=port)
    config.applications = [each for each in config.applications if each.get("name") not in without]
    return config.model_dump()


class Dashboard:
    """One Ray's dashboard. Every call raises UnavailableError when it does not answer as it should."""

    def __init__(self, url: str, token: str) -> None:
        self._url = f"{url}/api/serve/applications/"
        self._headers = {"Authorization": f"Bearer {token}"}

    async def wait(self, timeout_s: float) -> None:
        """Returns once the dashboard answers."""
        async with asyncio.timeout(timeout_s), self._client() as client:
            while True:
                try:
                    if (await client.get(self._url)).status_code == 200:
                        return
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(_POLL_S)

    async def deploy(self, config: Mapping[str, Any]) -> None:
        """Asks for these applications and no others. Returns before they run; asking again changes nothing."""
        async with self._client() as client:
            answer = await client.put(self._url, json=dict(config), timeout=60.0)
        if answer.status_code != 200:
            raise UnavailableError(f"Ray Serve refused the applications: {answer.text[:2000]}")

    async def wait_running(self, timeout_s: float) -> None:
        """Returns once every application runs; raises UnavailableError with Serve's message if one failed."""
        async with asyncio.timeout(timeout_s), self._client() as client:
            while True:
                applications = _Applications.model_validate((await client.get(self._url)).json()).applications
                for name, application in applications.items():
                    if application.status in ("DEPLOY_FAILED", "UNHEALTHY"):
                        raise UnavailableError(f"The application `{name}` did not start: {_reason(application)}")
                if applications and all(application.status == "RUNNING" for application in applications.values()):
                    return
                await asyncio.sleep(_POLL_S)

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(headers=self._headers, timeout=10.0, trust_env=False)


def _reason(application: _Application) -> str:
    """The last line of Serve's message is the exception; what is above it is a traceback."""
    texts = [
        application.message,
        *(str(deployment.get("message", "")) for deployment in application.deployments.values()),
    ]
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line]
    return (errors or lines or ["no reason was given"])[-1]
