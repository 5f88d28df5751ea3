"""LiteLLM and Portkey, installed on first use into a cache folder and started beside each other on the loopback."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import yaml

from tests.bench.gateway.running import Running, child, wait_until_it_answers

LITELLM = "1.106.0"
PORTKEY = "1.15.2"
INSTALL_S_MAX = 900.0
KEY = "sk-bench"


class Peer(Protocol):
    name: str

    def install(self, cache: Path) -> None:
        """Does nothing where it is there. Raises CalledProcessError."""

    def start(
        self, cache: Path, folder: Path, port: int, delayed: int, instant: int
    ) -> AbstractAsyncContextManager[Running]:
        """In front of the upstreams on these two ports. It ends, and everything it started, when it is left."""


class LiteLLM:
    name = "litellm"

    def install(self, cache: Path) -> None:
        python = self._venv(cache) / "bin" / "python"
        if (self._venv(cache) / "bin" / "litellm").exists():
            return
        uv = Path(sys.executable).parent / "uv"
        program = str(uv) if uv.exists() else "uv"
        _run([program, "venv", "-q", "--clear", "--python", sys.executable, str(self._venv(cache))])
        _run([program, "pip", "install", "-q", "--python", str(python), f"litellm[proxy]=={LITELLM}"])

    @asynccontextmanager
    async def start(self, cache: Path, folder: Path, port: int, delayed: int, instant: int) -> AsyncIterator[Running]:
        models = [
            {
                "model_name": name,
                "litellm_params": {
                    "model": f"openai/{name}",
                    "api_base": f"http://127.0.0.1:{upstream}/v1",
                    "api_key": KEY,
                },
            }
            for name, upstream in (("delayed", delayed), ("instant", instant))
        ]
        config = folder / "litellm.yaml"
        config.write_text(yaml.safe_dump({"model_list": models, "general_settings": {"master_key": KEY}}))
        command = [
            str(self._venv(cache) / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1",
            "--port", str(port), "--num_workers", "1", "--telemetry", "False",
        ]  # fmt: skip
        quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "NO_PROXY": "*"}
        async with child(command, folder / "litellm.log", {**os.environ, **quiet}) as process:
            running = Running.of_child(
                self.name, port, process.pid, {"authorization": f"Bearer {KEY}"}, delayed="delayed", instant="instant"
            )
            await wait_until_it_answers(running, process)
            yield running

    def _venv(self, cache: Path) -> Path:
        return cache / f"litellm-{LITELLM}"


class Portkey:
    name = "portkey"

    def install(self, cache: Path) -> None:
        folder = self._folder(cache)
        if self._program(cache).exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        package = {
            "private": True,
            "dependencies": {"@portkey-ai/gateway": PORTKEY},
            "overrides": {"@hono/node-server": "1.13.5"},
        }
        (folder / "package.json").write_text(json.dumps(package))
        _run(["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", "--silent"])

    @asynccontextmanager
    async def start(self, cache: Path, folder: Path, port: int, delayed: int, instant: int) -> AsyncIterator[Running]:
        command = ["node", str(self._program(cache)), "--headless", f"--port={port}"]
        async with child(command, folder / "portkey.log", os.environ) as process:
            running = Running.of_child(self.name, port, process.pid, {}, delayed="gpt-4o-mini", instant="gpt-4o-mini")
            running = running.with_headers(delayed=_to(delayed), instant=_to(instant))
            await wait_until_it_answers(running, process)
            yield running

    def _folder(self, cache: Path) -> Path:
        return cache / f"portkey-{PORTKEY}"

    def _program(self, cache: Path) -> Path:
        return self._folder(cache) / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"


def missing_tools() -> list[str]:
    return [tool for tool in ("node", "npm") if shutil.which(tool) is None]


def cache_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "masterbuilder-bench"


def _to(upstream: int) -> Mapping[str, str]:
    return {
        "authorization": f"Bearer {KEY}",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://127.0.0.1:{upstream}/v1",
    }


def _run(command: list[str]) -> None:
    print(f"installing: {' '.join(command)}", file=sys.stderr, flush=True)
    subprocess.run(command, check=True, timeout=INSTALL_S_MAX, stdout=sys.stderr)
