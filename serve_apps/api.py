"""How the HTTP door is deployed; what it does stands in `api_routes`."""

import asyncio
import os

from fastapi import FastAPI
from ray import serve

from actors.system import connect
from runtime.accounts.logins import Logins
from runtime.accounts.proofs import Proofs
from runtime.config import Secrets, Settings
from runtime.tokens import token_hash
from serve_apps.api_routes import create_app
from serve_apps.door import log_to_stderr


def build(args: Settings) -> serve.Application:
    """For `serve deploy`: `args` overrides, by field name, what the environment says."""
    settings = Settings.from_environment(os.environ, **args.model_dump(exclude_unset=True))
    deployment = serve.deployment(name="api", max_ongoing_requests=500, ray_actor_options={"num_cpus": 0})
    return deployment(serve.ingress()(Api)).bind(settings)


class Api:
    """A replica. It holds no state: handles to the actors, and the routes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def __serve_build_asgi_app__(self) -> FastAPI:
        """Runs once, in the replica, before its first request; Serve starts another replica where it raises."""
        log_to_stderr()
        system = await connect(self._settings)
        secrets = await asyncio.to_thread(Secrets.load, self._settings.data_dir, os.environ)
        operator_sha256 = token_hash(secrets.admin_token)
        return create_app(
            system,
            under_serve=True,
            operator_sha256=operator_sha256,
            link_key=secrets.link_key,
            logins=Logins(secrets.jwt_secret, secrets.jwt_secret_previous, hours=self._settings.jwt_expire_hours),
            proofs=Proofs(secrets.bot_service_token, secrets.telegram_bot_token),
        )
