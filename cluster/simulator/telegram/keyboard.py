"""What hangs under a message: inline buttons, or a keyboard for the person's own texts."""

from typing import Any

from cluster.simulator.telegram.refusal import bad_request

BUTTONS_MAX = 100
DATA_BYTES_MAX = 64
_ACTIONS = (
    "callback_data", "url", "pay", "web_app", "login_url", "switch_inline_query", "switch_inline_query_current_chat",
    "switch_inline_query_chosen_chat", "copy_text", "callback_game",
)  # fmt: skip
_OTHERS = ("keyboard", "remove_keyboard", "force_reply")


def check_markup(markup: Any) -> dict[str, Any] | None:
    """The markup, None for none. Raises TelegramRefusal as Telegram would."""
    if markup in (None, "", [], {}):
        return None
    if not isinstance(markup, dict):
        raise bad_request("object expected as reply markup")
    if "inline_keyboard" not in markup:
        if not any(name in markup for name in _OTHERS):
            raise bad_request("unsupported reply markup type specified")
        _check_keys(markup.get("keyboard", []))
        return markup
    rows = markup["inline_keyboard"]
    if not isinstance(rows, list) or any(not isinstance(row, list) for row in rows):
        raise bad_request('field "inline_keyboard" must be of type Array')
    buttons = [button for row in rows for button in row]
    if len(buttons) > BUTTONS_MAX:
        raise bad_request("REPLY_MARKUP_TOO_LONG")
    for place, button in enumerate(buttons):
        _check_button(button, first=place == 0)
    return {"inline_keyboard": [row for row in rows if row]} if buttons else None


def buttons_of(markup: Any) -> list[dict[str, Any]]:
    """The inline buttons of a checked markup, row by row."""
    return [button for row in (markup or {}).get("inline_keyboard", ()) for button in row]


def _check_keys(rows: Any) -> None:
    if not isinstance(rows, list) or any(not isinstance(row, list) for row in rows):
        raise bad_request('field "keyboard" must be of type Array')
    for key in (key for row in rows for key in row):
        if not (isinstance(key, str) or (isinstance(key, dict) and isinstance(key.get("text"), str))):
            raise bad_request("can't parse keyboard button: KeyboardButton must be a String or an Object")


def _check_button(button: Any, *, first: bool) -> None:
    if not isinstance(button, dict):
        raise bad_request("can't parse inline keyboard button: InlineKeyboardButton must be an Object")
    if not str(button.get("text", "")).strip():
        raise bad_request("can't parse inline keyboard button: Text buttons are unallowed in the inline keyboard")
    actions = [name for name in _ACTIONS if name in button]
    if len(actions) != 1:
        raise bad_request("can't parse inline keyboard button: Text buttons are unallowed in the inline keyboard")
    if actions[0] == "callback_data" and not 1 <= len(str(button["callback_data"]).encode()) <= DATA_BYTES_MAX:
        raise bad_request("BUTTON_DATA_INVALID")
    if actions[0] == "url" and not str(button["url"]).startswith(("http://", "https://", "tg://")):
        raise bad_request(f"inline keyboard button URL '{button['url']}' is invalid: Wrong HTTP URL")
    if actions[0] == "pay" and not first:
        raise bad_request("PAY_BUTTON_MUST_BE_FIRST")
