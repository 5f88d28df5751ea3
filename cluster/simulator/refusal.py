"""An answer that is an error, before it has the shape of a wire."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Literal

from cluster.simulator.allowance import Allowance

RetryForm = Literal["seconds", "ms", "date", "none"]


class Refusal(Exception):
    """`reason` tells what a status leaves open: the key is no good, or which of its limits was met."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        reason: Literal["", "key", "requests", "tokens", "concurrency"] = "",
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
        retry_form: RetryForm | None = None,
        allowances: tuple[Allowance | None, Allowance | None] = (None, None),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s
        self.retry_form = retry_form
        """None: in the way of the wire."""
        self.allowances = allowances
        """Of requests and of tokens, where they are limited."""


def retry_headers(refusal: Refusal, habit: tuple[RetryForm, ...]) -> Mapping[str, str]:
    """In the form that was ordered, else in those that are the wire's habit. Source: RFC 9110 §10.2.3."""
    wait_s = refusal.retry_after_s
    if wait_s is None:
        return {}
    headers = {}
    for form in (refusal.retry_form,) if refusal.retry_form else habit:
        if form == "seconds":
            headers["Retry-After"] = str(math.ceil(wait_s))
        elif form == "ms":
            headers["Retry-After-Ms"] = str(math.ceil(wait_s * 1000))
        elif form == "date":
            # A date has no fractions: one second is added, so that nobody comes back too early.
            until = datetime.now(UTC) + timedelta(seconds=math.ceil(wait_s) + 1)
            headers["Retry-After"] = format_datetime(until, usegmt=True)
    return headers
