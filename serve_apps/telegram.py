"""How Telegram's door is deployed; what it does stands in `telegram_routes`."""

import asyncio
import os

from fastapi import FastAPI
from ray import serve

from actors.system import connect
from actors.telegram import TelegramHandle
from runtime.config import Secrets, Settings
from serve_apps.door import log_to_stderr
from serve_apps.telegram_routes import create_app


def build(args: Settings) -> serve.Application:
    """For `serve deploy`: `args` overrides, by field name, what the environment says."""
    settings = Settings.from_environment(os.environ, **args.model_dump(exclude_unset=True))
    deployment = serve.deployment(name="telegram", max_ongoing_requests=500, ray_actor_options={"num_cpus": 0})
    return deployment(serve.ingress()(Telegram)).bind(settings)


class Telegram:
    """A replica. It holds no state; it makes the actor that speaks with Telegram, in polling mode too."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def __serve_build_asgi_app__(self) -> FastAPI:
        log_to_stderr()
        system = await connect(self._settings)
        secrets = await asyncio.to_thread(Secrets.load, self._settings.data_dir, os.environ)
        bot = TelegramHandle(self._settings)
        await bot.start()
        app = create_app(system, secrets.webhook_secret, under_serve=True)
        if self._settings.telegram_mode == "webhook":
            self._settling = asyncio.create_task(app.state.reception.settle(bot.pending))
        return app
