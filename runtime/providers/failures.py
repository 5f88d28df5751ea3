"""What an adapter can meet at a provider, and what may be done about it.

ProviderError                the provider refused this request; asking again changes nothing
├── LaterError               nothing was served; the same request may be sent again
│   ├── RateLimitedError     ... with another key, or with this one after a while
│   └── OutageError          ... shortly
├── KeyRefusedError          this key is no good; another may be
└── BrokenReplyError         something was served that nobody can use or bill
"""

from runtime.errors import ProviderError
from runtime.providers.usage import Usage

NOTHING = "Nothing was charged."


class LaterError(ProviderError):
    """`retry_after_s` is what the provider asked for, where it asked."""

    def __init__(
        self, message: str, next_step: str = "", charged: str = NOTHING, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, next_step, charged)
        self.retry_after_s = retry_after_s


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
