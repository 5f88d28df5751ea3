"""What fills a wallet and what is given back: grants, purchases, adjustments, referral bonuses, refunds.

    credits   grant       platform:promotions  -> wallet     once per person, for ever
              referral    platform:promotions  -> wallet     once per invited person, at their first purchase
              purchase    platform:sales       -> wallet     USD   income   payments:<provider> -> platform:income
              repayment   wallet -> platform:sales                 repaid   platform:income -> payments:<provider>
              adjustment  platform:adjustments <-> wallet    an operator's, with a reason
              refund      platform:revenue     -> wallet     of one call, once

Like `postings` they run inside a write of the store. Ids are the caller's: each has one effect, whatever comes twice.
Source: spec/builder.md §9.4-§9.7, DESIGN §11.
"""

from dataclasses import replace
from datetime import datetime

from runtime.errors import BadInputError, ConflictError, NotEnoughCreditsError, NotFoundError
from runtime.ids import UserId
from runtime.ledger import subscriptions
from runtime.ledger.caps import USERS, check_not_erased
from runtime.ledger.money import credits_exact
from runtime.ledger.port import Adjustment, Balance, CallRefund, Purchase, Repayment, Role
from runtime.ledger.postings import (
    ADJUSTMENTS,
    INCOME,
    PROMOTIONS,
    REVENUE,
    SALES,
    balance_of,
    held,
    post,
    wallet,
)
from runtime.ledger.records import (
    CHARGED,
    AdjustmentRow,
    CallRefundRow,
    Grant,
    PurchaseRow,
    RepaymentRow,
    User,
)
from runtime.store.transaction import Kind, Transaction

AMOUNT_UCREDITS_MAX = 10**18
"""A million million credits: above it something is wrong with whoever asks."""
ADJUSTED: Kind[tuple[str, int, str]] = Kind(
    name="adjustment", query="select_adjustment", read=lambda rows: rows[0] if rows else None
)
GRANTS: Kind[str] = Kind(name="grant", query="select_grant", read=lambda rows: rows[0][0] if rows else None)


def open_wallet(
    tx: Transaction, user: UserId, is_admin: bool, identity_sha256: str, grant_ucredits: int, now: datetime
) -> Balance:
    """Registers the user; grants once per `identity_sha256`, for ever. Raises BadInputError for an unusable id,
    ConflictError for somebody who is being erased."""
    check_not_erased(tx, user)
    known = tx.get(USERS, user)
    role: Role = known.role if known is not None and known.role != "ADMIN" else "DEMO"
    row = User(
        user_id=user,
        is_admin=is_admin,
        role="ADMIN" if is_admin else role,
        invited_by=known.invited_by if known is not None else None,
    )
    if known is None:
        tx.insert("users", row)
    elif known != row:
        tx.update("users", user, row)
    tx.keep(USERS, user, row)
    if tx.get(GRANTS, identity_sha256) is None:
        tx.insert("grants", Grant(identity_sha256=identity_sha256, granted_at=now))
        tx.keep(GRANTS, identity_sha256, identity_sha256)
        post(tx, "credit", PROMOTIONS, wallet(user), grant_ucredits, "grant", identity_sha256, now, user=user)
    return balance(tx, user)


def balance(tx: Transaction, user: UserId) -> Balance:
    reserved = balance_of(tx, held(user))
    return Balance(balance_ucredits=balance_of(tx, wallet(user)) + reserved, held_ucredits=reserved)


def set_role(tx: Transaction, user: UserId, role: Role) -> None:
    """Raises NotFoundError."""
    _change(tx, replace(known_user(tx, user), role=role))


def set_inviter(tx: Transaction, user: UserId, inviter: UserId) -> None:
    """Who gets the bonus when the user first buys. Said once, before that; saying the same again changes nothing.

    Raises NotFoundError, ConflictError, BadInputError for one's own invitation.
    """
    known = known_user(tx, user)
    known_user(tx, inviter)
    if user == inviter:
        raise BadInputError("Nobody invites themselves.")
    if known.invited_by == inviter:
        return
    if known.invited_by is not None or tx.committed("purchases_of_user", {"user_id": user}):
        raise ConflictError(f"Who invited {user} is settled already.")
    _change(tx, replace(known, invited_by=inviter))


def adjust(tx: Transaction, asked: Adjustment, now: datetime) -> Balance:
    """Raises NotFoundError, NotEnoughCreditsError where more would be taken than is free, ConflictError when the id was
    another adjustment's, BadInputError."""
    check_amount(abs(asked.amount_ucredits))
    check_reason(asked.reason)
    known_user(tx, asked.user)
    row = AdjustmentRow(
        adjustment=asked.id,
        user=asked.user,
        amount_ucredits=asked.amount_ucredits,
        reason=asked.reason,
        made_by=asked.made_by,
        made_at=now,
    )
    known = tx.get(ADJUSTED, asked.id)
    if known is not None:
        if known != (asked.user, asked.amount_ucredits, asked.reason):
            raise ConflictError(f"{asked.id} is the id of another adjustment.", "Use a new id.")
        return balance(tx, asked.user)
    taken = -asked.amount_ucredits
    if taken > balance_of(tx, wallet(asked.user)):
        raise NotEnoughCreditsError(
            f"{credits_exact(balance_of(tx, wallet(asked.user)))} credits of {asked.user} are free, "
            f"{credits_exact(taken)} cannot be taken.",
            "Take less, or wait until running calls are settled.",
        )
    book_adjustment(tx, row)
    return balance(tx, asked.user)


def book_adjustment(tx: Transaction, row: AdjustmentRow) -> None:
    """One that may be booked, under an id that is new."""
    tx.insert("adjustments", row)
    tx.keep(ADJUSTED, row.adjustment, (row.user, row.amount_ucredits, row.reason))
    way = (ADJUSTMENTS, wallet(row.user)) if row.amount_ucredits > 0 else (wallet(row.user), ADJUSTMENTS)
    post(
        tx, "credit", *way, abs(row.amount_ucredits), "adjustment", f"adjustment/{row.adjustment}", row.made_at,
        user=row.user,
    )  # fmt: skip


def purchase(tx: Transaction, made: Purchase, referral_ucredits: int, now: datetime) -> bool:
    """Credits a confirmed payment, and extends the subscription by its days, once for ever by provider and external id;
    False when it was credited before.

    The inviter's bonus goes with the first of a user. Raises NotFoundError, ConflictError when the payment comes back
    with other figures, BadInputError.
    """
    check_amount(made.ucredits)
    if not (0 <= made.paid_pusd <= AMOUNT_UCREDITS_MAX and 0 <= made.amount_minor <= AMOUNT_UCREDITS_MAX):
        raise BadInputError("What was paid is not a possible amount.")
    user = known_user(tx, made.user)
    if known := tx.committed("select_purchase", {"key": made.id}):
        if known[0] != (made.user, made.product, made.ucredits, made.paid_pusd, made.days):
            raise ConflictError(
                f"The payment {made.external_id} of {made.provider} was credited with other figures.",
                "Look at it in the provider's console.",
            )
        return False
    is_first = not tx.committed("purchases_of_user", {"user_id": made.user})
    tx.insert(
        "purchases",
        PurchaseRow(
            purchase=made.id,
            provider=made.provider,
            external_id=made.external_id,
            user=made.user,
            product=made.product,
            ucredits=made.ucredits,
            paid_pusd=made.paid_pusd,
            currency=made.currency,
            amount_minor=made.amount_minor,
            made_at=now,
        ),
    )
    subject = f"purchase/{made.id}"
    post(tx, "credit", SALES, wallet(made.user), made.ucredits, "purchase", subject, now, user=made.user)
    post(tx, "usd", f"payments:{made.provider}", INCOME, made.paid_pusd, "income", subject, now, user=made.user)
    if made.days:
        subscriptions.extend(tx, made.user, made.id, made.days, now)
    if is_first and user.invited_by is not None and tx.get(USERS, user.invited_by) is not None:
        inviter = user.invited_by
        post(
            tx, "credit", PROMOTIONS, wallet(inviter), referral_ucredits, "referral", f"referral/{made.user}", now,
            user=inviter,
        )  # fmt: skip
    return True


def repay(tx: Transaction, asked: Repayment, now: datetime) -> int:
    """Takes a purchase's credits back, as far as they are free; how many. Days that are left of it go too, and the
    money goes back whole. Twice is once.

    Raises NotFoundError.
    """
    check_reason(asked.reason)
    known = tx.committed("select_purchase", {"key": asked.purchase_id})
    if not known:
        raise NotFoundError(f"There is no payment {asked.external_id} of {asked.provider}.")
    if repaid := tx.committed("select_repayment", {"key": asked.purchase_id}):
        return int(repaid[0][0])
    user, _, ucredits, paid_pusd, _ = known[0]
    taken: int = min(ucredits, balance_of(tx, wallet(user)))
    tx.insert(
        "repayments",
        RepaymentRow(purchase=asked.purchase_id, taken_ucredits=taken, reason=asked.reason, made_at=now),
    )
    subject = f"purchase/{asked.purchase_id}"
    post(tx, "credit", wallet(user), SALES, taken, "repayment", subject, now, user=user)
    post(tx, "usd", INCOME, f"payments:{asked.provider}", paid_pusd, "repaid", subject, now, user=user)
    subscriptions.shorten(tx, user, asked.purchase_id, now)
    return taken


def refund_call(tx: Transaction, asked: CallRefund, now: datetime) -> int:
    """Gives back what a call was charged, once for ever; how much. The cost stays the platform's.

    Raises NotFoundError for a call that was never charged, ConflictError where its user was erased, BadInputError.
    """
    check_reason(asked.reason)
    if refunded := tx.committed("select_call_refund", {"key": asked.call}):
        return int(refunded[0][0])
    rows = tx.committed("charge_of_call", {"call": asked.call})
    if not rows or rows[0][2] != "settled" or rows[0][3] not in CHARGED or not rows[0][4]:
        raise NotFoundError(f"{asked.call} was not charged.", "The receipt lists what was.")
    user, project, _, _, charge = rows[0]
    check_not_erased(tx, user)
    tx.insert(
        "call_refunds",
        CallRefundRow(
            call=asked.call, user=user, project=project, amount_ucredits=charge, reason=asked.reason,
            made_by=asked.made_by, made_at=now,
        ),
    )  # fmt: skip
    post(tx, "credit", REVENUE, wallet(user), charge, "refund", asked.call, now, user=user, project=project)
    return int(charge)


def known_user(tx: Transaction, user: UserId) -> User:
    """Raises NotFoundError, ConflictError for somebody who is being erased."""
    known = tx.get(USERS, user)
    if known is None:
        raise NotFoundError(f"There is no user {user}.", "Issue a token for them first.")
    check_not_erased(tx, user)
    return known


def _change(tx: Transaction, row: User) -> None:
    tx.update("users", row.user_id, row)
    tx.keep(USERS, row.user_id, row)


def check_amount(amount_ucredits: int) -> None:
    if not 0 < amount_ucredits <= AMOUNT_UCREDITS_MAX:
        raise BadInputError("The amount must be more than nothing and less than a million million credits.")


def check_reason(reason: str) -> None:
    if not reason.strip() or len(reason) > 500:
        raise BadInputError("A reason of at most 500 characters is needed.", "It stands in the statement.")
