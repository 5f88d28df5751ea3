"""How the model door is deployed; what it does stands in `gateway_routes`."""

import os

from ray import serve
from starlette.types import ASGIApp

from actors.process import prepare_process
from actors.system import connect
from runtime.config import Settings
from serve_apps.door import log_to_stderr
from serve_apps.gateway_routes import create_app


def build(args: Settings) -> serve.Application:
    """For `serve deploy` under the route prefix `/v1`: `args` overrides, by field name, what the environment says."""
    settings = Settings.from_environment(os.environ, **args.model_dump(exclude_unset=True))
    deployment = serve.deployment(name="gateway", max_ongoing_requests=1_000, ray_actor_options={"num_cpus": 0})
    return deployment(serve.ingress()(Gateway)).bind(settings)


class Gateway:
    """A replica. It holds handles to the actors, connections to providers, and what it knows for seconds. Of a call
    that falls with it its spool file tells, which another process settles."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        """Runs once, in the replica, before its first request; Serve starts another replica where it raises."""
        prepare_process(keeps_much=False)
        log_to_stderr()
        return create_app(await connect(self._settings), under_serve=True)
