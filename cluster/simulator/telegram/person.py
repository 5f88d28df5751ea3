"""A person who uses the bot: says, presses, hears, pays."""

import asyncio
import mimetypes
from collections.abc import Callable

from cluster.simulator.telegram.client import Press, StandInClient
from cluster.simulator.telegram.control import WAIT_S_MAX
from cluster.simulator.telegram.seen import Answered, Paid, SeenButton, SeenMessage
from cluster.simulator.telegram.transcript import Line, Pressed, transcript
from runtime.errors import BadInputError, UnavailableError

HEARS_S = 10.0
Wanted = str | Callable[[SeenMessage], bool]
"""A part of the text, or a predicate."""
Choice = str | Callable[[SeenButton], bool]
"""A button's whole label, or a predicate."""


class Person:
    """In one chat, the private one unless another is named."""

    def __init__(self, control: StandInClient, id: int, name: str, *, chat_id: int | None = None) -> None:
        self.control = control
        self.id = id
        self.name = name
        self.chat_id = id if chat_id is None else chat_id
        self._heard = 0
        self._presses: list[Pressed] = []

    @classmethod
    async def arrives(cls, control: StandInClient, first_name: str = "Ada", *, language_code: str = "en") -> "Person":
        """Somebody new, who has not begun to talk with the bot."""
        return cls(control, await control.add_person(first_name, language_code=language_code), first_name)

    async def says(self, text: str, *, reply_to: int | None = None, thread_id: int | None = None) -> SeenMessage:
        return await self.control.say(self.chat_id, self.id, text, reply_to=reply_to, thread_id=thread_id)

    async def sends_document(
        self, name: str, content: bytes, *, caption: str = "", size_bytes: int | None = None
    ) -> SeenMessage:
        """`size_bytes` is told in the place of the true size."""
        mime_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return await self.control.send(
            self.chat_id,
            self.id,
            "document",
            content,
            name=name,
            mime_type=mime_type,
            caption=caption,
            size_bytes=size_bytes,
        )

    async def presses(self, choice: Choice, *, on: SeenMessage | None = None) -> Press:
        """On the newest message of the bot that has such a button, or on that one. Raises BadInputError where there is
        none now."""
        message, button = await self._button(choice, on)
        press = await self.control.press(
            self.chat_id, self.id, message_id=message.id, text=button.text, data=button.data
        )  # fmt: skip
        if press.callback_id:
            self._presses.append(Pressed(who=self.name, label=button.text, at=press.at))
        return press

    async def is_told(self, press: Press, timeout_s: float = HEARS_S) -> Answered:
        """What the bot answers to a press. Raises UnavailableError where it does not."""
        answered = await self.control.answered(press.callback_id, wait_s=timeout_s)
        if answered is None:
            raise UnavailableError(f"The bot did not answer {self.name}'s button in {timeout_s:g} s.")
        return answered

    async def hears(self, wanted: Wanted = "", timeout_s: float = HEARS_S) -> SeenMessage:
        """The first message of the bot that fits and is new, or edited, since what was heard last. What came before it
        and does not fit is passed over. Raises UnavailableError where nothing fits in time."""
        loop = asyncio.get_running_loop()
        ends_at_s = loop.time() + timeout_s
        after, last = self._heard, ""
        while True:
            left_s = max(0.0, ends_at_s - loop.time())
            changed = await self.control.messages(self.chat_id, after=after, wait_s=min(left_s, WAIT_S_MAX))
            fresh = (message for message in changed.messages if message.from_bot and not message.deleted)
            for message in sorted(fresh, key=lambda message: message.revision):
                last = message.text
                if _fits(message, wanted):
                    self._heard = message.revision
                    return message
            after = max(after, changed.revision)
            if loop.time() >= ends_at_s:
                said = f"Last it said: {last!r}." if last else "It said nothing."
                raise UnavailableError(f"{self.name} did not hear what was expected in {timeout_s:g} s. {said}")

    async def pays(self, *, on: SeenMessage | None = None, amount: int | None = None) -> Paid:
        """The newest invoice, or that one; `amount` in the place of its total."""
        return await self.control.pay(
            self.chat_id, self.id, message_id=None if on is None else on.id, amount=amount
        )  # fmt: skip

    async def sees(self) -> tuple[SeenMessage, ...]:
        """The chat as it is now."""
        messages = (await self.control.messages(self.chat_id)).messages
        return tuple(message for message in messages if not message.deleted)

    async def downloads(self, message: SeenMessage) -> bytes:
        """Raises BadInputError where the message has no file."""
        if message.file is None:
            raise BadInputError("This message has no file.", "Choose one with a document or a photo.")
        return await self.control.download(message.file.id)

    async def transcript(self) -> tuple[Line, ...]:
        return transcript(await self.sees(), self._presses)

    async def _button(self, choice: Choice, on: SeenMessage | None) -> tuple[SeenMessage, SeenButton]:
        seen = [message for message in await self.sees() if message.from_bot and (on is None or message.id == on.id)]
        for message in reversed(seen):
            keys = (SeenButton(text=key) for row in message.keyboard for key in row)
            for button in (*message.buttons, *keys):
                if button.text == choice if isinstance(choice, str) else choice(button):
                    return message, button
        there = sorted({label for message in seen for label in message.labels})
        wanted = repr(choice) if isinstance(choice, str) else "that fits"
        raise BadInputError(f"{self.name} sees no button {wanted}.", f"There are: {', '.join(there) or 'none'}.")


def _fits(message: SeenMessage, wanted: Wanted) -> bool:
    return wanted in message.text if isinstance(wanted, str) else wanted(message)
