"""What Telegram says no to, in its own words.

Source: https://core.telegram.org/bots/api#making-requests, and the descriptions of `tdlib/telegram-bot-api`.
"""

from typing import Any

NOT_MODIFIED = (
    "message is not modified: specified new message content and reply markup are exactly the same as a current "
    "content and reply markup of the message"
)
QUERY_TOO_OLD = "query is too old and response timeout expired or query ID is invalid"
_TITLES = {
    400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 409: "Conflict",
    413: "Request Entity Too Large", 429: "Too Many Requests", 500: "Internal Server Error", 502: "Bad Gateway",
    503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip


class TelegramRefusal(Exception):
    """Becomes an answer that is not `ok`. `retry_after_s` goes into its `parameters`."""

    def __init__(self, error_code: int, reason: str = "", *, retry_after_s: int | None = None) -> None:
        title = _TITLES[error_code]
        self.error_code = error_code
        self.description = f"{title}: {reason}" if reason else title
        self.retry_after_s = retry_after_s
        super().__init__(self.description)

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"ok": False, "error_code": self.error_code, "description": self.description}
        if self.retry_after_s is not None:
            body["parameters"] = {"retry_after": self.retry_after_s}
        return body


def bad_request(reason: str) -> TelegramRefusal:
    return TelegramRefusal(400, reason)


def cannot_parse(reason: str) -> TelegramRefusal:
    return bad_request(f"can't parse entities: {reason}")


def too_many_requests(retry_after_s: int) -> TelegramRefusal:
    return TelegramRefusal(429, f"retry after {retry_after_s}", retry_after_s=retry_after_s)
