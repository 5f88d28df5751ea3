"""What administrators do from the phone."""

import hashlib
import re
import secrets

from runtime.accounts.port import AccountChange, By, NewInvite
from runtime.accounts.roles import Role
from runtime.errors import BadInputError, NotFoundError
from runtime.ids import UserId, user_entity
from runtime.ledger.money import UCREDITS_PER_CREDIT
from runtime.ledger.port import Adjustment
from runtime.project.messages import Status
from runtime.session.session import ToppedUp
from runtime.telegram.formatting import escape
from runtime.telegram.persons import ADDRESS
from runtime.telegram.talk import Talk

USERS_SHOWN = 30
NAME_CHARACTERS = 32
KEYS_SHOWN = 40
ROLES: tuple[Role, ...] = ("DEMO", "FULL_ACCESS")


async def keys(talk: Talk, rest: str) -> None:
    """Never the key material. Source: spec/builder.md §4."""
    say = talk.say
    facts = (await talk.desk.keys.listed())[:KEYS_SHOWN]
    lines = [say("🔑 <b>API keys</b>")]
    for each in facts:
        used = say.date(each.last_used_at) if each.last_used_at else say("never")
        expires = say.date(each.expires_at) if each.expires_at else say("never")
        lines.append(
            f"<b>{escape(each.provider)}</b> <code>{escape(each.key_id)}</code> {escape(each.label)}: {each.state}\n"
            + say("used {n} times, last {used}; expires {expires}", n=each.calls, used=used, expires=expires)
        )
    if not facts:
        lines.append(say("There are none: set a provider's key and run masterbuilder up."))
    talk.tell("\n".join(lines))


async def stats(talk: Talk, rest: str) -> None:
    say = talk.say
    accounts = await talk.desk.ledger.accounts(10_000, 0)
    heads = await talk.desk.journal.heads("project", None)
    states = [Status(head.data["status"]) for head in heads]
    at_work = sum(not each.terminal for each in states)
    talk.tell(
        "\n".join(
            [
                say("📊 <b>This service</b>"),
                say("Users: {n}", n=len(accounts)),
                say("Projects: {n}, at work: {active}", n=len(states), active=at_work),
                say("Finished: {n}", n=sum(each is Status.COMPLETED for each in states)),
                say("Failed: {n}", n=sum(each is Status.FAILED for each in states)),
            ]
        )
    )


async def users(talk: Talk, rest: str) -> None:
    say = talk.say
    accounts = (await talk.desk.ledger.accounts(10_000, 0))[-USERS_SHOWN:]
    lines = [say("👥 <b>The newest users</b>")]
    for each in reversed(accounts):
        marks = "🚫" if each.banned else ""
        name = escape((each.username or each.first_name or each.user)[:NAME_CHARACTERS])
        lines.append(f"<code>{each.telegram_id or each.user}</code> {name} {each.role} {marks}")
    talk.tell("\n".join(lines))


async def invite_create(talk: Talk, rest: str) -> None:
    """`/invite_create FULL_ACCESS 3`: a role and how often it may be used."""
    say = talk.say
    name, _, number = (rest or "DEMO").partition(" ")
    role = next((role for role in ROLES if role == name.upper()), None)
    uses = _whole(number.strip() or "1")
    if role is None or uses is None:
        raise BadInputError(say("Say the role and how often: /invite_create FULL_ACCESS 3"))
    code = secrets.token_urlsafe(16)
    new = NewInvite(code_sha256=hashlib.sha256(code.encode()).hexdigest(), role=role, uses=uses)
    made = await talk.desk.ledger.add_invite(new, By(user=talk.user, address=ADDRESS))
    talk.tell(
        say(
            "🎟 <code>/invite {code}</code>\n{role}, {n} uses, id {id}. It is shown this once.",
            code=code, role=made.role, n=made.uses, id=made.invite_id,
        )
    )  # fmt: skip


async def ban(talk: Talk, rest: str) -> None:
    await _set_banned(talk, rest, banned=True)


async def unban(talk: Talk, rest: str) -> None:
    await _set_banned(talk, rest, banned=False)


async def give(talk: Talk, rest: str) -> None:
    """`/give 12345 100`: credits, whole ones."""
    say = talk.say
    who, _, number = rest.partition(" ")
    credits = _whole(number.strip())
    if credits is None:
        raise BadInputError(say("Say to whom and how many: /give TELEGRAM_ID CREDITS"))
    user = await _user(talk, who)
    balance = await talk.desk.ledger.adjust(
        Adjustment(
            id=talk.key("give"),
            user=user,
            amount_ucredits=credits * UCREDITS_PER_CREDIT,
            reason="given in Telegram",
            made_by=talk.user,
        )
    )
    await talk.desk.entities.ask(user_entity(user), ToppedUp())
    talk.tell(say("💳 They have {credits} credits now.", credits=say.credits(balance.balance_ucredits)))


async def refund(talk: Talk, rest: str) -> None:
    """`/refund CHARGE_ID reason`: the Stars go back, and what they bought."""
    say = talk.say
    charge, _, reason = rest.partition(" ")
    if not charge:
        raise BadInputError(say("Say which payment: /refund CHARGE_ID reason"))
    made = await talk.desk.ledger.refund_stars(charge, reason.strip() or "refunded in Telegram", talk.user)
    talk.tell(
        say(
            "↩️ {stars} Stars go back; {credits} credits were taken back.",
            stars=made.stars,
            credits=say.credits(made.taken_ucredits),
        )
    )


async def _set_banned(talk: Talk, rest: str, *, banned: bool) -> None:
    say, user = talk.say, await _user(talk, rest)
    await talk.desk.ledger.change_account(AccountChange(user=user, banned=banned), By(user=talk.user, address=ADDRESS))
    talk.tell(say("🚫 Banned.") if banned else say("✅ No longer banned."))


async def _user(talk: Talk, who: str) -> UserId:
    """By the Telegram id, or by the user's own. Raises NotFoundError, BadInputError."""
    say, named = talk.say, who.strip().lstrip("@")
    if not named:
        raise BadInputError(say("Say who it is, by the number that /users shows."))
    ledger = talk.desk.ledger
    number = _whole(named)
    known = await ledger.account(UserId(named)) if number is None else await ledger.account_of(number)
    if known is None:
        raise NotFoundError(say("There is no user {who}.", who=named[:60]), say("/users lists them."))
    return known.user


def _whole(text: str) -> int | None:
    """What `text` counts; None for what is no number, or none that anything here can be."""
    return int(text) if re.fullmatch(r"[0-9]{1,12}", text) else None
