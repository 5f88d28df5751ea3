"""What an adapter can meet at a provider, and what may be done about it.

ProviderError                the provider refused this request; asking again changes nothing
├── LaterError               nothing was served; the same request may be sent again
│   ├── RateLimitedError     ... with another key, or with this one after a while
│   └── OutageError          ... shortly
├── KeyRefusedError          this key is no good; another may be
└── BrokenReplyError         something was served that nobody can use or bill

`refusal` turns an HTTP answer into one of them, or into ProviderRefusedError: it can never work.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite

from runtime.errors import MasterbuilderError, ProviderError, ProviderRefusedError
from runtime.keys.keys import KeyLimits, Lease
from runtime.providers.usage import Usage

NOTHING = "Nothing was charged."
TRY_LATER = "Try again in a moment; if it goes on, look at the provider's status page or choose another model."
CORRECT = "Correct the request, or choose another model."
MESSAGE_CHARACTERS_MAX = 500
NO_CREDIT_REST_S = 60.0
"""How long a key whose account is out of credit rests. Short: some services refuse a single large request this way."""
RESET_S_MAX = 7 * 86_400.0
_SILENT = KeyLimits()

KEY_CODES = frozenset({"invalid_api_key", "API_KEY_INVALID", "API_KEY_SERVICE_BLOCKED", "account_deactivated"})
NO_CREDIT_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "billing_error"})
# Only a message's beginning is the provider's own word: further on it may quote the request, and no request may
# talk a key out of the pool.
_KEY_MESSAGE = re.compile(
    r"(incorrect|invalid|expired) api key|api key (not valid|expired|not found)|your api key was reported",
    re.IGNORECASE,
)
_NO_CREDIT_MESSAGE = re.compile(r"your credit balance is too low|insufficient balance", re.IGNORECASE)
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


class LaterError(ProviderError):
    """`retry_after_s` is what the provider asked for, where it asked; `limits` what its headers said of the key."""

    def __init__(
        self,
        message: str,
        next_step: str = "",
        charged: str = NOTHING,
        retry_after_s: float | None = None,
        limits: KeyLimits | None = None,
    ) -> None:
        super().__init__(message, next_step, charged)
        self.retry_after_s = retry_after_s
        self.limits = limits


class RateLimitedError(LaterError):
    pass


class OutageError(LaterError):
    pass


class KeyRefusedError(ProviderError):
    pass


class BrokenReplyError(ProviderError):
    """`usage` is what the provider says it used, where it says so: the platform's loss, not the user's."""

    def __init__(self, message: str, next_step: str = "", charged: str = NOTHING, usage: Usage | None = None) -> None:
        super().__init__(message, next_step, charged)
        self.usage = usage


def refusal(
    lease: Lease, *, status: int, code: str | None, message: str, headers: Mapping[str, str]
) -> MasterbuilderError:
    """What an answer that is no success means. The key never stands in it, whatever the provider quotes.

    `code` is the provider's machine-readable word for it, `message` its text; `headers` are looked up in lower case.
    """
    provider = lease.provider
    said = clean(message, lease)
    if status == 401 or code in KEY_CODES or (status in (400, 403) and _KEY_MESSAGE.match(message)):
        return KeyRefusedError(
            f"{provider} refused the key {lease.key_id} ({status}).", "Check the key in the provider's console."
        )
    limits = limits_of(headers)
    if status == 402 or code in NO_CREDIT_CODES or (status == 400 and _NO_CREDIT_MESSAGE.match(message)):
        return RateLimitedError(
            f"The account of the key {lease.key_id} at {provider} is out of quota or credit: {said}",
            "Add credit at the provider, or choose another model.",
            retry_after_s=NO_CREDIT_REST_S,
            limits=limits,
        )
    retry_after_s = retry_after(headers, datetime.now(UTC))
    if status == 429:
        return RateLimitedError(
            f"{provider} limits our requests: {said}", TRY_LATER, retry_after_s=retry_after_s, limits=limits
        )
    if status >= 500 or status in (408, 409, 498, 499):
        return OutageError(f"{provider} failed ({status}).", TRY_LATER, retry_after_s=retry_after_s, limits=limits)
    # A model that is gone (404) or an account that may not (403) is no fault of the request: another may serve it.
    kind = ProviderRefusedError if status >= 400 and status not in (403, 404) else ProviderError
    return kind(f"{provider} refused the request ({status}): {said}", CORRECT)


def clean(message: str, lease: Lease) -> str:
    """What the provider said, short, on one line, and never with our key in it."""
    if lease.key:
        message = message.replace(lease.key, "***")
    return " ".join(message.split())[:MESSAGE_CHARACTERS_MAX]


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `Retry-After` (seconds or a date); None where it says nothing usable.

    Source: RFC 9110 §10.2.3.
    """
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            wait_s = float(headers.get(name, "")) * unit_s
        except ValueError:
            continue
        if isfinite(wait_s):
            return max(0.0, wait_s)
    try:
        until = parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    return max(0.0, ((until if until.tzinfo else until.replace(tzinfo=UTC)) - now).total_seconds())


def timed_out(lease: Lease) -> OutageError:
    return OutageError(f"{lease.provider} did not answer in time.", TRY_LATER)


def no_connection(lease: Lease) -> OutageError:
    return OutageError(f"{lease.provider} could not be reached, or broke the connection.", TRY_LATER)


def no_content(lease: Lease, usage: Usage | None) -> BrokenReplyError:
    return BrokenReplyError(f"{lease.provider} answered without any content.", TRY_LATER, usage=usage)


def limits_of(headers: Mapping[str, str], now: datetime | None = None) -> KeyLimits | None:
    """What the headers of an answer say of the key's limits; None where they say nothing that can be believed.

    Source: platform.openai.com/docs/guides/rate-limits (`x-ratelimit-remaining-tokens: 149984`, `x-ratelimit-reset-
    tokens: 6m0s`; Groq and xAI send the same) and docs.claude.com/en/api/rate-limits (`anthropic-ratelimit-tokens-
    reset: 2026-01-02T03:04:05Z`).
    """
    at = now or datetime.now(UTC)
    for pattern in ("x-ratelimit-{figure}-{subject}", "anthropic-ratelimit-{subject}-{figure}"):
        limits = KeyLimits(
            requests_per_minute=_count(headers.get(pattern.format(subject="requests", figure="limit"))),
            requests_left=_count(headers.get(pattern.format(subject="requests", figure="remaining"))),
            requests_reset_s=_reset_s(headers.get(pattern.format(subject="requests", figure="reset")), at),
            tokens_per_minute=_count(headers.get(pattern.format(subject="tokens", figure="limit"))),
            tokens_left=_count(headers.get(pattern.format(subject="tokens", figure="remaining"))),
            tokens_reset_s=_reset_s(headers.get(pattern.format(subject="tokens", figure="reset")), at),
        )
        if limits != _SILENT:
            return limits
    return None


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) <= 12 else None


def _reset_s(text: str | None, now: datetime) -> float | None:
    """Of `6m0s`, `12ms`, plain seconds, or a date of RFC 3339."""
    if not text or len(text) > 40:
        return None
    try:
        seconds = float(text)
    except ValueError:
        if (parts := _DURATION.fullmatch(text)) is not None:
            days, hours, minutes, whole, milli = (float(part or 0) for part in parts.groups())
            seconds = days * 86_400 + hours * 3_600 + minutes * 60 + whole + milli / 1_000
        else:
            try:
                until = datetime.fromisoformat(text)
            except ValueError:
                return None
            seconds = ((until if until.tzinfo else until.replace(tzinfo=UTC)) - now).total_seconds()
    return min(max(0.0, seconds), RESET_S_MAX) if isfinite(seconds) else None
