"""Every error a user can meet.

    MasterbuilderError
    ├── RefusedError                 a rule says no; the same request will be refused again
    │   ├── BadInputError            the input is malformed or empty
    │   │   ├── InvalidValueError        a field has a value that it cannot have
    │   │   └── InviteCodeError          the invite is unknown, expired, revoked or used up
    │   ├── TooLargeError            the input is over a stated bound
    │   ├── NotAuthenticatedError    no token, or a wrong or expired one
    │   │   └── WrongCodeError           the code is not the right one
    │   ├── ForbiddenError           the token is good but not for this
    │   ├── NotFoundError            no such thing, or not yours
    │   ├── ExpiredError             it was there, or was good, until a moment that is over
    │   ├── ConflictError            the thing is not in a state that allows this
    │   ├── DoesNotFitError          the worst case of the call is more than is left
    │   │   ├── NotEnoughCreditsError    in the wallet
    │   │   └── CeilingReachedError      under the project's agreed ceiling, or in the token's budget
    │   ├── AccountStoppedError      the account does not add up, so nothing is spent from it until somebody looked
    │   ├── PaymentError             money was taken, and nothing could be given for it
    │   ├── UnpricedModelError       the model has no price, so it may not be called
    │   ├── ProviderRefusedError     the provider says this very request can never work
    │   ├── StaleWriterError         a newer owner or another append was first
    │   └── ReplyRejectedError       a model's reply did not fit what was asked, twice
    └── UnavailableError             something outside did not answer; the same request may work later
        ├── MovedError               the entity lives elsewhere now; callers look again by themselves
        ├── OverloadedError          too many wait already; `retry_after_s` says when to try again
        │   ├── TooManyRequestsError this token asks more often than it may
        │   └── DailyCapError        what may be spent in a day is spent; `scope` says whose cap it was
        ├── EntityFailedError        an error of ours; the entity was reset from its journal
        ├── QuarantinedError         the entity failed again and again and is set aside
        ├── WorkLostError            whoever had the work in hand died; nobody knows whether it was done
        ├── NoProviderError          no model provider is configured
        ├── ProviderError            the provider failed, or did not answer in time
        ├── AllProvidersFailedError  every model of a route failed; `attempts` tells each one's own error
        ├── GitHubError              GitHub, or another forge, failed or did not answer in time
        ├── NotEmbeddedError         vectors cannot be had now: search goes by words meanwhile
        ├── SandboxUnavailableError  what others wrote cannot be confined here, and is not run
        ├── EngineUnavailableError   the edit engine's environment is missing or broken
        └── StoreUnavailableError    the database or its disk cannot be used now

Every error says what happened, whether it cost anything, and what to do next. Each crosses process boundaries
by its positional fields, so each must be rebuildable from them.
"""

from collections.abc import Sequence
from typing import ClassVar, Self


class MasterbuilderError(Exception):
    """What happened (`message`), what it cost (`charged`), and what to do about it (`next_step`).

    `code` is stable and machine-readable; the texts are for people and may change.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, next_step: str = "", charged: str = "Nothing was charged.") -> None:
        super().__init__(message, next_step, charged)
        self.message = message
        self.next_step = next_step
        self.charged = charged

    def __str__(self) -> str:
        return " ".join(part for part in (self.message, self.next_step) if part)


class RefusedError(MasterbuilderError):
    code = "refused"


class BadInputError(RefusedError):
    code = "bad_input"


class InvalidValueError(BadInputError):
    code = "invalid_value"


class InviteCodeError(BadInputError):
    code = "invite_code_invalid"


class TooLargeError(RefusedError):
    code = "too_large"


class NotAuthenticatedError(RefusedError):
    code = "not_authenticated"


class WrongCodeError(NotAuthenticatedError):
    code = "wrong_code"


class ForbiddenError(RefusedError):
    code = "forbidden"


class NotFoundError(RefusedError):
    code = "not_found"


class ExpiredError(RefusedError):
    code = "expired"


class ConflictError(RefusedError):
    code = "conflict"


class DoesNotFitError(RefusedError):
    """`left_ucredits` is what would have fitted there, as it was then."""

    code = "does_not_fit"

    def __init__(
        self,
        message: str,
        next_step: str = "",
        charged: str = "Nothing was charged.",
        left_ucredits: int = 0,
    ) -> None:
        super().__init__(message, next_step, charged)
        self.args = (message, next_step, charged, left_ucredits)
        self.left_ucredits = left_ucredits


class NotEnoughCreditsError(DoesNotFitError):
    code = "not_enough_credits"


class CeilingReachedError(DoesNotFitError):
    code = "ceiling_reached"


class AccountStoppedError(RefusedError):
    code = "account_stopped"


class PaymentError(RefusedError):
    code = "payment"


class UnpricedModelError(RefusedError):
    code = "unpriced_model"


class ProviderRefusedError(RefusedError):
    code = "provider_refused"


class StaleWriterError(RefusedError):
    code = "stale_writer"


class ReplyRejectedError(RefusedError):
    code = "reply_rejected"


class UnavailableError(MasterbuilderError):
    code = "unavailable"


class MovedError(UnavailableError):
    code = "moved"


class OverloadedError(UnavailableError):
    """Nothing of the message was done."""

    code = "overloaded"

    def __init__(
        self,
        message: str,
        next_step: str = "Try again in a second.",
        charged: str = "Nothing was charged.",
        retry_after_s: float = 1.0,
    ) -> None:
        super().__init__(message, next_step, charged)
        self.args = (message, next_step, charged, retry_after_s)
        self.retry_after_s = retry_after_s


class TooManyRequestsError(OverloadedError):
    code = "too_many_requests"


class DailyCapError(OverloadedError):
    """`scope` is `user`, `platform` or `provider`: another provider's model may still be called under the last.

    `left_ucredits` is what would have fitted, as it was then.
    """

    code = "daily_cap_reached"

    def __init__(
        self,
        message: str,
        next_step: str = "",
        charged: str = "Nothing was charged.",
        retry_after_s: float = 1.0,
        scope: str = "user",
        left_ucredits: int = 0,
    ) -> None:
        super().__init__(message, next_step, charged, retry_after_s)
        self.args = (message, next_step, charged, retry_after_s, scope, left_ucredits)
        self.scope = scope
        self.left_ucredits = left_ucredits


class EntityFailedError(UnavailableError):
    code = "entity_failed"


class QuarantinedError(UnavailableError):
    code = "quarantined"


class WorkLostError(UnavailableError):
    code = "work_lost"


class NoProviderError(UnavailableError):
    code = "no_provider"


class ProviderError(UnavailableError):
    code = "provider_error"


class AllProvidersFailedError(UnavailableError):
    """`attempts` are pairs of a model's id and what went wrong with it, in the order they were tried."""

    code = "all_providers_failed"

    def __init__(
        self,
        message: str,
        next_step: str = "Try again in a moment, or choose another model.",
        charged: str = "Nothing was charged.",
        attempts: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message, next_step, charged)
        self.attempts = tuple((model, text) for model, text in attempts)
        self.args = (message, next_step, charged, self.attempts)

    @classmethod
    def of(cls, attempts: Sequence[tuple[str, str]]) -> Self:
        """Says them all in its message."""
        told = "; ".join(f"{model}: {text}" for model, text in attempts)
        return cls(f"All providers failed. {told}", attempts=attempts)


class GitHubError(UnavailableError):
    code = "github_error"


class NotEmbeddedError(UnavailableError):
    code = "not_embedded"


class SandboxUnavailableError(UnavailableError):
    code = "sandbox_unavailable"


class EngineUnavailableError(UnavailableError):
    code = "engine_unavailable"


class StoreUnavailableError(UnavailableError):
    code = "store_unavailable"
