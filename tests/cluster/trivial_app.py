"""The smallest application the supervisor can be tried with: its doors are up, and it holds nothing."""

import os
from typing import Any

from fastapi import FastAPI
from ray import serve

door = FastAPI()


@serve.deployment
@serve.ingress(door)
class Trivial:
    @door.get("/live")
    def live(self) -> dict[str, str]:
        return {"status": "ok"}

    @door.get("/health")
    def health(self) -> dict[str, str]:
        return {"status": "ok", "ledger": "ok", "provider": "none", "version": "0"}

    @door.get("/environment")
    def environment(self) -> dict[str, str]:
        return dict(os.environ)


def build(args: dict[str, Any]) -> serve.Application:
    return Trivial.bind()
