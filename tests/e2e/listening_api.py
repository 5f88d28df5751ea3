"""A Telegram that takes every call at once, and holds each to what the real one would take."""

import json
from collections.abc import Mapping
from typing import Any

from runtime.telegram.calls import Upload
from runtime.telegram.formatting import UNITS_MAX
from runtime.telegram.rich_text import utf16_units
from tests.unit.telegram.telegram_html import read

BOT = {"id": 7_000_000_001, "is_bot": True, "first_name": "Masterbuilder", "username": "masterbuilder_bot"}


class ListeningApi:
    """Implements `BotApi`. `faults` are calls that Telegram would refuse; it says why."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Mapping[str, Any]]] = []
        self.faults: list[str] = []

    async def call(
        self,
        method: str,
        data: Mapping[str, Any],
        upload: Upload | None = None,
        *,
        may_drop: bool = False,
        key: str = "",
    ) -> Any:
        self.calls.append((method, data))
        try:
            json.dumps(data, ensure_ascii=False).encode()
            check(method, data)
        except (ValueError, AssertionError) as error:
            self.faults.append(f"{method}: {error}: {str(data)[:300]}")
        if method == "getMe":
            return BOT
        return {"message_id": len(self.calls), "message_thread_id": len(self.calls)}


def check(method: str, data: Mapping[str, Any]) -> None:
    """Raises ValueError, AssertionError."""
    if method in ("sendMessage", "editMessageText"):
        text = data["text"]
        seen = read(text).text if data.get("parse_mode") == "HTML" else text
        assert seen.strip(), "nothing is seen"
        assert utf16_units(seen) <= UNITS_MAX, "it is too long"
    if method == "answerCallbackQuery":
        assert len(data.get("text", "")) <= 200, "the toast is too long"
    for row in data.get("reply_markup", {}).get("inline_keyboard", ()):
        for button in row:
            assert button["text"].strip(), "a button says nothing"
            assert len(button.get("callback_data", "").encode()) <= 64, "a button's data is too long"
