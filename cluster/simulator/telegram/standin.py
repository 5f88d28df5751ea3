"""The parts of one stand-in, wired together."""

import time
from collections.abc import Callable

from aiohttp import web

from cluster.simulator.telegram.callbacks import Callbacks
from cluster.simulator.telegram.calls import CallLog
from cluster.simulator.telegram.chats import Account, World
from cluster.simulator.telegram.commands import Commands
from cluster.simulator.telegram.disorder import Disorder
from cluster.simulator.telegram.doors import BotDoors
from cluster.simulator.telegram.faults import Faults
from cluster.simulator.telegram.files import Files
from cluster.simulator.telegram.limits import Limits
from cluster.simulator.telegram.methods import Methods
from cluster.simulator.telegram.payments import PRE_CHECKOUT_S, Payments
from cluster.simulator.telegram.people import People
from cluster.simulator.telegram.polling import Polling
from cluster.simulator.telegram.sending import Sending
from cluster.simulator.telegram.topics import Topics
from cluster.simulator.telegram.updates import Updates
from cluster.simulator.telegram.webhook import Webhook

BOT_NAME = "Masterbuilder"
BOT_USERNAME = "masterbuilder_bot"


class StandIn:
    """Everything in memory; a restart forgets it.

    `clock` counts seconds from anywhere: limits and the age of pressed buttons follow it. `pre_checkout_s` and
    `retry_s` are real time.
    """

    def __init__(
        self,
        token: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        privacy: bool = True,
        pre_checkout_s: float = PRE_CHECKOUT_S,
        retry_s: float = 1.0,
    ) -> None:
        bot_id = int(token.partition(":")[0])
        self.world = World(Account(id=bot_id, first_name=BOT_NAME, username=BOT_USERNAME, is_bot=True))
        self.updates = Updates()
        self.files = Files()
        self.faults = Faults()
        self.limits = Limits(clock)
        self.calls = CallLog()
        self.disorder = Disorder()
        self.commands = Commands()
        self.callbacks = Callbacks(self.world, self.updates, clock)
        self.webhook = Webhook(self.updates, self.disorder, retry_s=retry_s)
        sending = Sending(self.world, self.files)
        self.payments = Payments(self.world, self.updates, sending, answer_s=pre_checkout_s)
        self.people = People(
            self.world, self.updates, self.files, self.callbacks, self.payments, privacy=privacy
        )  # fmt: skip
        methods = Methods(
            self.world,
            sending,
            self.payments,
            self.callbacks,
            Topics(self.world),
            self.commands,
            self.webhook,
            Polling(self.updates, self.webhook, self.disorder),
            privacy=privacy,
        )
        self._doors = BotDoors(token, methods, self.files, self.faults, self.limits, self.calls, clock)

    def add_to(self, application: web.Application) -> None:
        """The Bot API's routes."""
        self._doors.add_to(application)
