"""Who somebody is here: codes, language, data."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime

from runtime.accounts.port import AuditEntry, By
from runtime.ids import user_entity
from runtime.language.languages import LANGUAGES
from runtime.privacy.export import export
from runtime.project.messages import SetPurgePeriod
from runtime.session.messages import ChangeSettings
from runtime.telegram.buttons import Press, press
from runtime.telegram.calls import Attached, Button, Call
from runtime.telegram.formatting import escape
from runtime.telegram.talk import Talk
from runtime.tokens import LINK_LIFE, new_link_token, token_hash

ADDRESS = "telegram"
"""Where a code was guessed from: Telegram says who, and not from which network address."""
AUTOMATIC = "auto"
PERIODS = (7, 30, 90, 365)
EXPORT_BYTES_MAX = 50 * 10**6


async def refuse_admin_command(talk: Talk, name: str) -> None:
    """Refused and written down. Source: spec/builder.md §18, line 55."""
    say = talk.say
    await talk.desk.ledger.note(
        AuditEntry(by=By(user=talk.user, address=ADDRESS), action="command_refused", target=f"/{name}")
    )
    talk.tell(say("🚫 /{name} is for administrators.", name=escape(name)))


async def unlock(talk: Talk, rest: str) -> None:
    say = talk.say
    if not rest:
        talk.tell(say("Send the code with it: <code>/unlock CODE</code>"))
        return
    await talk.desk.ledger.unlock(talk.user, rest, ADDRESS)
    talk.tell(say("🔓 Unlocked: you can build now, and chat with the assistant as soon as it is here."))


async def login(talk: Talk, rest: str) -> None:
    """What logs this person in at another door, once. Source: spec/assistant.md §14."""
    say = talk.say
    token = new_link_token()
    await talk.desk.ledger.add_login_link(talk.user, token_hash(token), datetime.now(UTC) + LINK_LIFE)
    url = f"{(talk.desk.settings.public_url or talk.desk.settings.api_url).rstrip('/')}/api/v1/auth/register"
    talk.tell(
        say(
            "🔑 This logs you in elsewhere, once, within five minutes:\n<code>{token}</code>\nSend it as "
            "<code>link</code> to {url} and you get a token for the HTTP interface and the command.",
            token=token,
            url=escape(url),
        )
    )


async def invite(talk: Talk, rest: str) -> None:
    say = talk.say
    if not rest:
        talk.tell(say("Send the code with it: <code>/invite CODE</code>"))
        return
    account = await talk.desk.ledger.redeem_invite(talk.user, rest, ADDRESS)
    talk.tell(say("🎟 Welcome: your role is {role}.", role=account.role))


async def language(talk: Talk, rest: str) -> None:
    say = talk.say
    if rest.lower() in (*LANGUAGES, AUTOMATIC):
        await _set_language(talk, rest.lower())
        return
    rows: list[list[Button]] = [[(name, press("language", about=code)) for code, name in LANGUAGES.items()]]
    rows.append([(say("As in Telegram"), press("language", about=AUTOMATIC))])
    talk.tell(say("🌍 Which language shall I speak?"), rows)


async def _set_language(talk: Talk, code: str) -> None:
    chosen = "" if code == AUTOMATIC else code
    await talk.desk.entities.ask(user_entity(talk.user), ChangeSettings(key=talk.key("language"), language=chosen))
    talk.say = await talk.desk.speak(talk.user)
    say = talk.say
    talk.tell(say("👍 I speak English now."))


async def language_pressed(talk: Talk, pressed: Press) -> None:
    talk.settle()
    await _set_language(talk, pressed.about)


async def privacy(talk: Talk, rest: str) -> None:
    """Source: spec/builder.md §4, §14."""
    say = talk.say
    session = await talk.desk.journal.head(user_entity(talk.user))
    days = (session.data.get("purge_days") if session else None) or talk.desk.settings.project_purge_days
    rows: list[list[Button]] = [
        [(say.count("{n} day", "{n} days", each), press("purge", about=str(each))) for each in PERIODS],
        [(say("📤 Export my data"), press("export"))],
        [(say("🗑 Delete me"), press("forget"))],
    ]
    erased = say.count(
        "🔒 A project's files, package and texts are erased {n} day after its end.",
        "🔒 A project's files, package and texts are erased {n} days after its end.",
        days,
    )
    rights = say(
        "You can change the period, take all your data with you, or have it deleted. Records of payments stay as long "
        "as the law requires, without your name."
    )
    talk.tell(f"{erased} {rights}", rows)


async def purge(talk: Talk, pressed: Press) -> None:
    say = talk.say
    days = int(pressed.about) if pressed.about.isdigit() else 0
    period = SetPurgePeriod(key=talk.key("purge"), days=days)
    await talk.desk.entities.ask(user_entity(talk.user), period)
    talk.toast(say.count("{n} day from now on.", "{n} days from now on.", days))


async def export_pressed(talk: Talk, pressed: Press) -> None:
    say = talk.say
    pieces = [piece async for piece in export(talk.user, talk.desk.ledger, talk.desk.journal, datetime.now(UTC))]
    data = b"".join(pieces)
    if len(data) > EXPORT_BYTES_MAX:
        talk.tell(say("Your data is too large for Telegram. The operator can give it to you."))
        return
    blob = await talk.desk.ledger.put_blob(data)
    file = Attached(field="document", name="masterbuilder-data.zip", blob=blob, is_for_this=True)
    talk.calls.append(Call(method="sendDocument", data=talk.where.data, file=file))
    talk.toast(say("On its way."))


async def forget(talk: Talk, pressed: Press) -> None:
    say = talk.say
    balance = await talk.desk.ledger.balance(talk.user)
    text = say(
        "🗑 Delete all your data for ever? Your projects are stopped, everything is erased within 24 hours, and "
        "{credits} credits are lost. The welcome gift is not given twice.",
        credits=say.credits(balance.balance_ucredits),
    )
    about = str(balance.balance_ucredits)
    talk.tell(text, [[(say("🗑 Delete everything"), press("forgetyes", about=about)), (say("No"), press("goon"))]])


async def forget_for_ever(talk: Talk, pressed: Press) -> None:
    """What is said last is sent at once: afterwards there is nobody to send it to."""
    say = talk.say
    forfeit = int(pressed.about) if pressed.about.isdigit() else 0
    deletion = await talk.desk.ledger.delete_person(talk.user, forfeit)
    text = say("Done. Everything is erased by {day}. Goodbye!", day=say.date(deletion.due_at))
    talk.urgent.append(Call(method="sendMessage", data=talk.where.data | {"text": text}))


async def email(talk: Talk, rest: str) -> None:
    """Source: spec/builder.md §4: the billing address."""
    say = talk.say
    if not rest:
        person = await talk.desk.ledger.person(talk.user)
        known = escape(person.email) if person and person.email else say("none")
        talk.tell(
            say(
                "Your billing address: {address}. Change it with <code>/email you@example.com</code>, remove it with "
                "<code>/email -</code>.",
                address=known,
            )
        )
        return
    await talk.desk.ledger.set_email(talk.user, "" if rest == "-" else rest)
    talk.tell(say("📧 Removed.") if rest == "-" else say("📧 Bills go to {address}.", address=escape(rest)))


PRESSED: Mapping[str, Callable[[Talk, Press], Awaitable[None]]] = {
    "language": language_pressed,
    "purge": purge,
    "export": export_pressed,
    "forget": forget,
    "forgetyes": forget_for_ever,
}
