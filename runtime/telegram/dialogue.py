"""What is answered to an update, whatever it is: nobody is left without a word of what works now."""

import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping

from runtime.errors import MasterbuilderError, NotFoundError, RefusedError, StaleWriterError, TooManyRequestsError
from runtime.frames import frames
from runtime.ids import UserId, user_entity
from runtime.policy.rates import WINDOW_S
from runtime.session.messages import Admit
from runtime.telegram import building, money, persons, steering
from runtime.telegram.buttons import Press, parse_press
from runtime.telegram.calls import Where
from runtime.telegram.commands import COMMANDS, available
from runtime.telegram.formatting import clean, escape
from runtime.telegram.reply import Reply
from runtime.telegram.state import ChatState
from runtime.telegram.talk import Desk, Talk
from runtime.telegram.updates import Message, Update

_COMMAND = re.compile(r"/([A-Za-z0-9_]{1,32})(?:@([A-Za-z0-9_]{1,64}))?(?:\s+(.*))?", re.DOTALL)

log = logging.getLogger(__name__)

Pressed = Callable[[Talk, Press], Awaitable[None]]
PRESSED: Mapping[str, Pressed] = {**building.PRESSED, **steering.PRESSED, **money.PRESSED, **persons.PRESSED}
"""What each button does, by its verb."""
IN_PRIVATE_ONLY = ("credits", "buy", "purge", "export", "forget", "forgetyes")
"""As the commands that show them: others of a group would see what is a person's own."""


class Dialogue:
    """Stateless: what a chat remembers comes with each update, and goes back with its reply.

    Messages to other entities carry keys made of the update's number, so an update may be answered again after a crash.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._told_to_wait: dict[UserId, float] = {}
        """Who was told that it is too much -> until when they are not told again. A restart tells once more."""

    async def answer(self, state: ChatState, update: Update, user: UserId) -> Reply:
        """Raises UnavailableError where it is to be tried again."""
        talk = await self._talk(state, update, user)
        if talk is None:
            return Reply()
        try:
            await self._answer(talk)
        except (RefusedError, TooManyRequestsError) as error:
            if isinstance(error, StaleWriterError):
                raise
            talk.calls, talk.urgent = [], [call for call in talk.urgent if call.method == "answerPreCheckoutQuery"]
            talk.toast(error.message)
            talk.tell(refusal_text(error))
        talk.toast()
        return talk.reply()

    async def apologise(self, update: Update, user: UserId) -> Reply:
        """When nothing else can be said."""
        try:
            talk = await self._talk(ChatState(), update, user)
        except Exception as error:
            log.error("nothing could be answered: %s at %s", type(error).__name__, frames(error)[-1:])
            return Reply()
        if talk is None:
            return Reply()
        say = talk.say
        payment = update.message.successful_payment if update.message is not None else None
        if payment is not None:
            text = say(
                "⚠️ Your payment arrived, but it could not be booked, and that is our fault. Whoever runs this service "
                "can book it or give it back; show them this: <code>{charge}</code>",
                charge=escape(payment.telegram_payment_charge_id),
            )
            talk.tell(text)
            return talk.reply()
        talk.toast(say("This did not work."))
        talk.tell(say("⚠️ This did not work, and it is our fault. Nothing was charged. Please try it again; /help."))
        return talk.reply()

    async def _talk(self, state: ChatState, update: Update, user: UserId) -> Talk | None:
        chat, account = update.chat, await self._desk.ledger.account(user)
        if chat is None or account is None:
            return None
        message = update.message or (update.callback_query.message if update.callback_query else None)
        return Talk(
            desk=self._desk,
            state=state,
            update=update,
            account=account,
            say=await self._desk.speak_to(user, account),
            where=Where(chat.id, message.thread if message else None),
            in_private=chat.is_private,
            is_forum=chat.is_forum,
        )

    async def _answer(self, talk: Talk) -> None:
        update, say = talk.update, talk.say
        if update.pre_checkout_query is not None:
            await money.check_out(talk, update.pre_checkout_query)
            return
        if update.message is not None and update.message.successful_payment is not None:
            await money.paid(talk, update.message.successful_payment, update.message.sent_at)
            return
        if talk.account.banned:
            talk.toast(say("You are banned here."))
            if talk.in_private and update.message is not None:
                talk.tell(say("🚫 You are banned here. Whoever runs this service can lift that."))
            return
        if update.callback_query is not None:
            if await self._admits(talk):
                await self._pressed(talk, update.callback_query.data)
        elif update.message is not None and await self._is_addressed(talk, update.message) and await self._admits(talk):
            await self._said(talk, update.message)

    async def _admits(self, talk: Talk) -> bool:
        """Source: spec/builder.md §14. Whoever writes too much is told so once a minute, and then not answered.

        Raises TooManyRequestsError where they are to be told.
        """
        try:
            await self._desk.entities.ask(user_entity(talk.user), Admit(kind="message", role=talk.account.role))
        except TooManyRequestsError as error:
            now_s, told = time.monotonic(), self._told_to_wait
            if told.get(talk.user, now_s) > now_s:
                talk.toast(error.message)
                return False
            self._told_to_wait = {user: until_s for user, until_s in told.items() if until_s > now_s}
            self._told_to_wait[talk.user] = now_s + WINDOW_S
            raise
        return True

    async def _pressed(self, talk: Talk, data: str) -> None:
        say = talk.say
        found = parse_press(data)
        handler = PRESSED.get(found.verb) if found else None
        if found is None or handler is None:
            log.warning("a button with unknown data was pressed in chat %d", talk.where.chat)
            talk.toast(say("This button is not known here."), alert=True)
            return
        if found.verb in IN_PRIVATE_ONLY and not talk.in_private:
            talk.toast(say("Ask for this in a private chat with me."), alert=True)
            return
        try:
            await handler(talk, found)
        except NotFoundError:
            log.warning("somebody pressed a button of a project that is not theirs, in chat %d", talk.where.chat)
            talk.calls, talk.expects, talk.follows = [], {}, {}
            talk.toast(say("This is not your project."), alert=True)

    async def _said(self, talk: Talk, message: Message) -> None:
        text = clean(message.text or message.caption).strip()
        _, username = await self._desk.bot()
        found = _COMMAND.fullmatch(text) if message.text else None
        if found is not None:
            name, _, rest = found.groups()
            await self._command(talk, name.lower(), (rest or "").strip())
            return
        if not message.text:
            await building.not_text(talk, message)
            return
        await building.take_text(talk, re.sub(rf"@{re.escape(username)}\b", "", text, flags=re.IGNORECASE).strip())

    async def _command(self, talk: Talk, name: str, rest: str) -> None:
        say = talk.say
        known = {command.name: command for command in available(talk.desk.settings, talk.account.role)}
        command = known.get(name)
        if command is None:
            if any(each.name == name and each.role == "ADMIN" for each in COMMANDS):
                await persons.refuse_admin_command(talk, name)
                return
            names = " ".join(f"/{each}" for each in known)
            talk.tell(say("I do not know /{name}. I know: {names}", name=escape(name), names=names))
            return
        if not talk.in_private and command.in_private_only:
            talk.tell(say("/{name} works in a private chat with me.", name=name))
            return
        talk.expect_nothing()
        await command.handler(talk, rest)

    async def _is_addressed(self, talk: Talk, message: Message) -> bool:
        """In a group only what is meant for the bot: a command, a mention, an answer to what it said."""
        if talk.in_private:
            return True
        bot, username = await self._desk.bot()
        found = _COMMAND.fullmatch(message.text.strip())
        if found is not None:
            return not found[2] or found[2].lower() == username.lower()
        replied = message.reply_to_message
        if replied is not None and replied.sender is not None and replied.sender.id == bot:
            return True
        return f"@{username}".lower() in (message.text or message.caption).lower()


def refusal_text(error: MasterbuilderError) -> str:
    return f"⚠️ {escape(str(error))}"
