"""Payments with Telegram's Stars: what may be paid, what was paid, and what goes back.

    check_checkout   before anything is taken: product, price, currency and payer
    fulfil           -> completed    purchase, credits and days in one transaction
                     -> failed       taken, but not what the product costs, or nobody's: booked with the reason
    refund           -> refunded     of either: credits and days are taken back
    mark_told                        Telegram gave the Stars back

The order of a refund is what makes it safe. It is booked first: from then on the credits cannot be spent, and its row
has no `told_at`. Then Telegram is asked, and then that is noted. Cut off before Telegram was asked, the row is found
again; cut off after, Telegram is asked once more and says that it did it already. The other way round a crash would
leave somebody with both the Stars and the credits.

Like `wallets` they run inside a write of the store. Source: spec/assistant.md §15.
"""

import re
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from runtime.accounts.rules import BANNED
from runtime.errors import (
    BadInputError,
    ConflictError,
    ForbiddenError,
    MasterbuilderError,
    NotFoundError,
    UnavailableError,
)
from runtime.ids import UserId
from runtime.ledger import subscriptions
from runtime.ledger.accounts import ACCOUNTS
from runtime.ledger.caps import USERS, check_not_erased
from runtime.ledger.port import (
    Purchase,
    Repayment,
    StarPayment,
    StarsCheckout,
    StarsPayment,
    StarsRefund,
)
from runtime.ledger.records import StarPaymentRow, StarRefundRow, at_us
from runtime.ledger.wallets import check_reason, purchase, repay
from runtime.payments.products import PRODUCTS, more_credits
from runtime.payments.stars import CURRENCY, PROVIDER
from runtime.store.transaction import Kind, Transaction

STARS_MAX = 10**9
CHARACTERS_MAX = 255
"""Of a charge id. Source: spec/assistant.md §27."""
NOTHING_TAKEN = "No Stars were taken."
_CHARGE = re.compile(rf"[\x21-\x7e]{{1,{CHARACTERS_MAX}}}")
_LOOK = "Compare it with the payment in Telegram."


def star_payment_of(row: tuple[Any, ...]) -> StarPayment:
    """Reads the columns of `select_star_payment`."""
    (
        charge_id, provider_charge_id, user, product, stars, currency, paid_us, ucredits, days, failure, booked_us,
        taken_ucredits, taken_us, reason, made_by, made_us, told_us,
    ) = row  # fmt: skip
    refund = None
    if made_us is not None:
        refund = StarsRefund(
            telegram_charge_id=charge_id,
            user=user,
            stars=stars,
            taken_ucredits=taken_ucredits,
            taken=timedelta(microseconds=taken_us),
            reason=reason,
            made_by=made_by,
            made_at=at_us(made_us),
            told_at=at_us(told_us) if told_us is not None else None,
        )
    return StarPayment(
        paid=StarsPayment(
            telegram_charge_id=charge_id,
            provider_charge_id=provider_charge_id,
            user=user,
            product=product,
            stars=stars,
            currency=currency,
            at=at_us(paid_us),
        ),
        ucredits=ucredits,
        days=days,
        failure=failure,
        booked_at=at_us(booked_us),
        refund=refund,
    )


STAR_PAYMENTS: Kind[StarPayment] = Kind(
    name="star_payment", query="select_star_payment", read=lambda rows: star_payment_of(rows[0]) if rows else None
)
"""By charge id."""


def check_checkout(tx: Transaction, asked: StarsCheckout, *, payments_enabled: bool) -> None:
    """Raises what `Ledger.check_checkout` does."""
    if not payments_enabled:
        raise payments_are_off()
    refusal = refusal_of(asked.product, asked.stars, asked.currency) or _refusal_of_payer(tx, asked.user)
    if refusal is not None:
        raise refusal


def fulfil(tx: Transaction, paid: StarsPayment, referral_ucredits: int, now: datetime) -> StarPayment:
    """Raises BadInputError, ConflictError; every other fault is booked as the payment's failure."""
    check_payment(paid)
    known = tx.get(STAR_PAYMENTS, paid.telegram_charge_id)
    if known is not None:
        return check_repeat(known, paid)
    refusal = refusal_of(paid.product, paid.stars, paid.currency) or _refusal_of_payer(tx, paid.user)
    made = booked(paid, refusal.message if refusal is not None else "", now)
    if not made.failure and tx.committed("select_purchase", {"key": purchase_of(made).id}):
        made = booked(paid, "This charge was credited for something else already.", now)
    tx.insert("star_payments", _row_of(made))
    tx.keep(STAR_PAYMENTS, paid.telegram_charge_id, made)
    if not made.failure:
        purchase(tx, purchase_of(made), referral_ucredits, now)
    return made


def refund(tx: Transaction, charge_id: str, reason: str, made_by: UserId, now: datetime) -> StarsRefund:
    """Raises NotFoundError, BadInputError, UnavailableError for a payment that is being booked at this moment."""
    check_reason(reason)
    known = tx.get(STAR_PAYMENTS, charge_id)
    if known is None:
        raise no_payment(charge_id)
    if not tx.committed("select_star_payment", {"key": charge_id}):
        raise UnavailableError("The payment is being booked at this moment.", "Send it again.")
    if known.refund is not None:
        return known.refund
    user, taken_ucredits, taken = known.paid.user, 0, timedelta()
    if not known.failure:
        before = subscriptions.subscribed_until(tx, user)
        taken_ucredits = repay(tx, Repayment(provider=PROVIDER, external_id=charge_id, reason=reason), now)
        after = subscriptions.subscribed_until(tx, user)
        taken = before - after if before is not None and after is not None else timedelta()
    made = refunded(known, reason, made_by, taken_ucredits, taken, now)
    tx.insert(
        "star_refunds",
        StarRefundRow(
            charge_id=charge_id, taken_ucredits=taken_ucredits, taken_us=taken // timedelta(microseconds=1),
            reason=reason, made_by=made_by, made_at=now,
        ),
    )  # fmt: skip
    tx.keep(STAR_PAYMENTS, charge_id, replace(known, refund=made))
    return made


def mark_told(tx: Transaction, charge_id: str, now: datetime) -> None:
    """Raises NotFoundError for a payment of which no refund is booked."""
    known = tx.get(STAR_PAYMENTS, charge_id)
    if known is None or known.refund is None:
        raise no_refund(charge_id)
    if known.refund.told_at is None:
        tx.execute("mark_star_refund_told", charge_id=charge_id, told_at=now)
        tx.keep(STAR_PAYMENTS, charge_id, replace(known, refund=replace(known.refund, told_at=now)))


def refusal_of(product: str, stars: int, currency: str) -> MasterbuilderError | None:
    """Why this is not what a product costs; None where it is."""
    sold = PRODUCTS.get(product)
    if sold is None:
        return NotFoundError(f"There is no product {product[:60]!r}.", "/buy lists what there is.", NOTHING_TAKEN)
    if currency != CURRENCY:
        return BadInputError(
            f"{sold.id} is paid in Stars ({CURRENCY}), not in {currency[:10]!r}.", "/buy starts anew.", NOTHING_TAKEN
        )
    if stars != sold.stars:
        return BadInputError(
            f"{sold.id} costs {sold.stars} Stars, not {stars}.", "/buy starts anew at today's price.", NOTHING_TAKEN
        )
    return None


def check_payment(paid: StarsPayment) -> None:
    """Raises BadInputError for what Telegram cannot have said."""
    ids = (paid.telegram_charge_id, paid.provider_charge_id or "-")
    if not all(_CHARGE.fullmatch(each) for each in ids):
        raise BadInputError(f"A charge id is 1 to {CHARACTERS_MAX} printable characters without blanks.", _LOOK)
    if not 0 <= paid.stars <= STARS_MAX:
        raise BadInputError(f"{paid.stars} is no possible number of Stars.", _LOOK)


def check_repeat(known: StarPayment, paid: StarsPayment) -> StarPayment:
    """Raises ConflictError when a charge id comes back with other figures."""
    if (known.paid.product, known.paid.stars, known.paid.currency) != _told(paid):
        raise ConflictError(
            f"The payment {paid.telegram_charge_id} was booked with other figures.", _LOOK, "No credits were booked."
        )
    return known


def booked(paid: StarsPayment, failure: str, now: datetime) -> StarPayment:
    """As it stands from now on. What was taken for nothing that we sell gives nothing."""
    product, _, currency = _told(paid)
    sold = None if failure else PRODUCTS[product]
    return StarPayment(
        paid=replace(paid, product=product, currency=currency),
        ucredits=sold.ucredits if sold is not None else 0,
        days=sold.days if sold is not None else 0,
        failure=failure,
        booked_at=now,
    )


def refunded(
    payment: StarPayment, reason: str, made_by: UserId, taken_ucredits: int, taken: timedelta, now: datetime
) -> StarsRefund:
    return StarsRefund(
        telegram_charge_id=payment.paid.telegram_charge_id,
        user=payment.paid.user,
        stars=payment.paid.stars,
        taken_ucredits=taken_ucredits,
        taken=taken,
        reason=reason,
        made_by=made_by,
        made_at=now,
    )


def purchase_of(payment: StarPayment) -> Purchase:
    paid = payment.paid
    return Purchase(
        provider=PROVIDER,
        external_id=paid.telegram_charge_id,
        user=paid.user,
        product=paid.product,
        ucredits=payment.ucredits,
        paid_pusd=PRODUCTS[paid.product].worth_pusd,
        currency=paid.currency,
        amount_minor=paid.stars,
        days=payment.days,
    )


def payments_are_off() -> NotFoundError:
    return NotFoundError("Nothing is sold here now.", more_credits(False), NOTHING_TAKEN)


def unknown_payer() -> NotFoundError:
    return NotFoundError("You are not registered here.", "Send /start, then try again.", NOTHING_TAKEN)


def no_payment(charge_id: str) -> NotFoundError:
    return NotFoundError(
        f"There is no payment {charge_id[:CHARACTERS_MAX]} with Stars.", "See that the charge id is right.",
        "Nothing was taken back.",
    )  # fmt: skip


def no_refund(charge_id: str) -> NotFoundError:
    return NotFoundError(f"No refund of {charge_id[:CHARACTERS_MAX]} is booked.", "Book it first.")


def _refusal_of_payer(tx: Transaction, user: UserId) -> MasterbuilderError | None:
    """The one place that says who may pay."""
    if tx.get(USERS, user) is None:
        return unknown_payer()
    try:
        check_not_erased(tx, user)
    except ConflictError as erased:
        return ConflictError("You asked to be erased here.", erased.next_step, NOTHING_TAKEN)
    account = tx.get(ACCOUNTS, user)
    return ForbiddenError(BANNED, charged=NOTHING_TAKEN) if account is not None and account.banned else None


def _told(paid: StarsPayment) -> tuple[str, int, str]:
    """As it is kept: what is no product of ours may be of any length."""
    return paid.product[:100], paid.stars, paid.currency[:10]


def _row_of(made: StarPayment) -> StarPaymentRow:
    paid = made.paid
    return StarPaymentRow(
        charge_id=paid.telegram_charge_id,
        provider_charge_id=paid.provider_charge_id,
        user=paid.user,
        product=paid.product,
        stars=paid.stars,
        currency=paid.currency,
        ucredits=made.ucredits,
        days=made.days,
        failure=made.failure,
        paid_at=paid.at,
        booked_at=made.booked_at,
    )
