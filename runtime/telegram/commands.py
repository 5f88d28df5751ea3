"""The commands, whose they are, and what the menu and /help say of them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from runtime.accounts.roles import Role
from runtime.config import Settings
from runtime.language.languages import LANGUAGES
from runtime.language.texts import Texts, texts
from runtime.telegram import admin, building, money, persons, steering
from runtime.telegram.calls import Call
from runtime.telegram.persons import ADDRESS
from runtime.telegram.talk import Talk

Handler = Callable[[Talk, str], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    name: str
    handler: Handler
    role: Role = "DEMO"
    """ADMIN: for administrators alone."""
    in_private_only: bool = False
    needs_payments: bool = False


async def help_command(talk: Talk, rest: str) -> None:
    """The commands of the caller's role. Source: spec/builder.md §4."""
    say, described = talk.say, descriptions(talk.say)
    lines = [say("<b>What I can do</b>")]
    commands = available(talk.desk.settings, talk.account.role)
    lines += [f"/{each.name}: {described[each.name]}" for each in commands if each.role != "ADMIN"]
    if talk.is_admin:
        lines.append(say("<b>For administrators</b>"))
        lines += [f"/{each.name}: {described[each.name]}" for each in commands if each.role == "ADMIN"]
    lines.append(say("Everything else you write is an answer to what I asked, or an idea."))
    talk.tell("\n".join(lines))


async def admin_help(talk: Talk, rest: str) -> None:
    await help_command(talk, rest)


async def bootstrap(talk: Talk, rest: str) -> None:
    say = talk.say
    if not rest:
        talk.tell(say("Send the code with it: <code>/bootstrap CODE</code>"))
        return
    await talk.desk.ledger.bootstrap(talk.user, rest, ADDRESS)
    scope = {"type": "chat", "chat_id": talk.where.chat}
    shown = {"commands": menu(talk.desk.settings, "ADMIN", say), "scope": scope}
    talk.calls.append(Call(method="setMyCommands", data=shown))
    talk.tell(say("👑 You are the administrator now. /help shows what that brings."))


COMMANDS: Sequence[Command] = (
    Command(name="start", handler=building.start),
    Command(name="new", handler=building.new),
    Command(name="status", handler=steering.status),
    Command(name="change", handler=steering.change_command),
    Command(name="pause", handler=steering.pause),
    Command(name="resume", handler=steering.resume),
    Command(name="cancel", handler=steering.cancel),
    Command(name="history", handler=steering.history),
    Command(name="credits", handler=money.credits, in_private_only=True),
    Command(name="buy", handler=money.buy, in_private_only=True, needs_payments=True),
    Command(name="subscribe", handler=money.subscribe, in_private_only=True, needs_payments=True),
    Command(name="paysupport", handler=money.paysupport, in_private_only=True, needs_payments=True),
    Command(name="feedback", handler=steering.feedback),
    Command(name="language", handler=persons.language),
    Command(name="privacy", handler=persons.privacy, in_private_only=True),
    Command(name="email", handler=persons.email, in_private_only=True),
    Command(name="login", handler=persons.login, in_private_only=True),
    Command(name="unlock", handler=persons.unlock, in_private_only=True),
    Command(name="invite", handler=persons.invite, in_private_only=True),
    Command(name="bootstrap", handler=bootstrap, in_private_only=True),
    Command(name="help", handler=help_command),
    Command(name="keys", handler=admin.keys, role="ADMIN", in_private_only=True),
    Command(name="stats", handler=admin.stats, role="ADMIN", in_private_only=True),
    Command(name="users", handler=admin.users, role="ADMIN", in_private_only=True),
    Command(name="invite_create", handler=admin.invite_create, role="ADMIN", in_private_only=True),
    Command(name="ban", handler=admin.ban, role="ADMIN", in_private_only=True),
    Command(name="unban", handler=admin.unban, role="ADMIN", in_private_only=True),
    Command(name="give", handler=admin.give, role="ADMIN", in_private_only=True),
    Command(name="refund", handler=admin.refund, role="ADMIN", in_private_only=True, needs_payments=True),
    Command(name="admin", handler=admin_help, role="ADMIN", in_private_only=True),
)
NOT_IN_MENU = ("bootstrap", "start")


def available(settings: Settings, role: Role) -> Sequence[Command]:
    """Those that somebody of this role has; what is switched off is not there."""
    return [
        command
        for command in COMMANDS
        if (command.role != "ADMIN" or role == "ADMIN") and (settings.payments_enabled or not command.needs_payments)
    ]


def menu(settings: Settings, role: Role, say: Texts) -> Sequence[Mapping[str, str]]:
    """As `setMyCommands` wants it."""
    described = descriptions(say)
    return [
        {"command": command.name, "description": described[command.name]}
        for command in available(settings, role)
        if command.name not in NOT_IN_MENU
    ]


def menus(settings: Settings, admins: Sequence[int]) -> Sequence[Mapping[str, object]]:
    """The parameters of every `setMyCommands`: for all, by language, and for each administrator's own chat."""
    made: list[Mapping[str, object]] = []
    for code in LANGUAGES:
        language = {} if code == "en" else {"language_code": code}
        say = texts(code)
        made.append({"commands": menu(settings, "DEMO", say), "scope": {"type": "default"}, **language})
        made += [
            {"commands": menu(settings, "ADMIN", say), "scope": {"type": "chat", "chat_id": chat}, **language}
            for chat in admins
        ]
    return made


def descriptions(say: Texts) -> Mapping[str, str]:
    return {
        "start": say("begin"),
        "new": say("build something new"),
        "status": say("how your project stands"),
        "change": say("change your project"),
        "pause": say("pause the build"),
        "resume": say("let the build go on"),
        "cancel": say("stop the project"),
        "history": say("your projects and their packages"),
        "credits": say("balance and purchases"),
        "buy": say("buy credits"),
        "subscribe": say("full access for 30 days"),
        "paysupport": say("help with a payment"),
        "feedback": say("rate a finished project"),
        "language": say("choose the language"),
        "privacy": say("your data: export, period, deletion"),
        "email": say("billing address"),
        "login": say("log in elsewhere"),
        "unlock": say("unlock with a code"),
        "invite": say("use an invite code"),
        "bootstrap": say("become the first administrator"),
        "help": say("all commands"),
        "keys": say("state of the API keys"),
        "stats": say("figures of this service"),
        "users": say("who uses it"),
        "invite_create": say("make an invite code"),
        "ban": say("ban a user"),
        "unban": say("lift a ban"),
        "give": say("give credits"),
        "refund": say("refund a payment"),
        "admin": say("commands for administrators"),
    }
