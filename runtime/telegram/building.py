"""From an idea to a yes: /start, /new, the questions, and what a text means where nothing was asked."""

from collections.abc import Awaitable, Callable, Mapping

from runtime.errors import ConflictError, NotEnoughCreditsError
from runtime.ids import user_entity
from runtime.ledger.money import UCREDITS_PER_CREDIT
from runtime.project.messages import Answer, Approve, Back, OpenProject, ProjectView, Reject, Status, is_scope
from runtime.telegram import money, steering
from runtime.telegram.buttons import Press, press
from runtime.telegram.calls import Button, TelegramRefusedError
from runtime.telegram.formatting import escape
from runtime.telegram.progress import progress_text
from runtime.telegram.talk import Talk
from runtime.telegram.updates import Message
from runtime.telegram.yes import is_yes

IDEA_LEAST = 12
"""A shorter text that nobody asked for is hardly an idea."""
TITLE_CHARACTERS = 100


async def start(talk: Talk, rest: str) -> None:
    """Welcomes; what the free credits buy, and three ideas to begin with. Source: spec/builder.md §4."""
    say = talk.say
    active = await talk.active() if talk.in_private else None
    balance = await talk.desk.ledger.balance(talk.user)
    name = escape(talk.account.first_name or talk.account.username)
    lines = [say("👋 <b>Hello {name}!</b>", name=name) if name else say("👋 <b>Hello!</b>")]
    if active is not None:
        lines.append(say("Your project goes on:") + "\n\n" + progress_text(active, say))
        talk.tell("\n".join(lines), steering.status_rows(active, say))
        talk.follow(active, from_now=True)
        return
    lines.append(
        say(
            "I turn an idea into finished, tested software: I ask a few questions, tell you the price, build it after "
            "your yes, and send you a ZIP that runs."
        )
    )
    least = talk.desk.settings.min_credits_to_start * UCREDITS_PER_CREDIT
    if balance.free_ucredits < least:
        talk.tell("\n\n".join(lines))
        money.offer(talk, balance, too_few=True)
        return
    free, small = say.credits(balance.free_ucredits), talk.desk.small_quote()
    if small and balance.free_ucredits >= small:
        count = balance.free_ucredits // small
        lines.append(
            say.count(
                "💳 You have {credits} credits: enough for about {n} small project like these.",
                "💳 You have {credits} credits: enough for about {n} small projects like these.",
                count,
                credits=free,
            )
        )
    else:
        lines.append(say("💳 You have {credits} credits.", credits=free))
    lines.append(say("Write what you want, or press an example. /help shows what else I can do."))
    talk.tell("\n\n".join(lines), [[(label, press("idea", about=id))] for id, label, _ in ideas(talk)])
    talk.expect("description")


def ideas(talk: Talk) -> list[tuple[str, str, str]]:
    """Name, label and brief of each example."""
    say = talk.say
    return [
        (
            "split",
            say("🧮 Split the costs of a trip"),
            say(
                "A command-line program that reads who paid what on a trip from a CSV file and prints who owes whom "
                "how much, with as few payments as possible. It rejects invalid lines and names their numbers."
            ),
        ),
        (
            "quiz",
            say("🎓 A quiz in a web page"),
            say(
                "A web page, without a server, that asks ten multiple-choice questions from a JSON file, shows the "
                "score and which answers were wrong, and works on a phone."
            ),
        ),
        (
            "links",
            say("🔗 A link shortener"),
            say(
                "A small HTTP service that shortens links: POST a URL, get a short code, GET the code and be "
                "redirected. It counts visits, keeps everything in SQLite, and rejects what is not an http or https "
                "URL."
            ),
        ),
    ]


async def new(talk: Talk, rest: str) -> None:
    say = talk.say
    if rest:
        await begin(talk, rest)
        return
    await _refuse_second(talk)
    talk.tell(
        say("💡 What shall I build? Say it in your own words: what it does, and for whom."),
        [[(label, press("idea", about=id))] for id, label, _ in ideas(talk)],
    )
    talk.expect("description")


async def begin(talk: Talk, brief: str) -> None:
    """Answers with the first question, which comes as an event."""
    say = talk.say
    order = OpenProject(key=talk.key("open"), brief=brief, answers={}, max_ucredits=None, confirmed=False)
    try:
        view: ProjectView = await talk.desk.entities.ask(user_entity(talk.user), order)
    except NotEnoughCreditsError:
        money.offer(talk, await talk.desk.ledger.balance(talk.user), too_few=True)
        return
    except ConflictError:
        await _refuse_second(talk)
        raise
    talk.follow(view, thread=await _own_topic(talk, view))
    talk.expect_nothing()
    talk.toast(say("Reading it…"))
    talk.busy()


async def _own_topic(talk: Talk, view: ProjectView) -> int | None:
    """A project has a topic of its own in a forum, where the bot may make one; else it stays where it began.

    An update that is answered again makes a second one, which is the lesser evil.
    """
    if not talk.is_forum or talk.where.thread is not None or view.id in talk.state.follows:
        return talk.where.thread
    data = {"chat_id": talk.where.chat, "name": view.title[:TITLE_CHARACTERS]}
    try:
        topic = await talk.desk.api.call("createForumTopic", data)
    except TelegramRefusedError:
        return None
    return int(topic["message_thread_id"])


async def _refuse_second(talk: Talk) -> None:
    """Raises ConflictError that names the project in the way, where as many as may be are at work."""
    active = await talk.projects()
    if talk.is_admin or len(active) < talk.desk.settings.max_active_projects_per_user:
        return
    say, title = talk.say, active[0].title[:TITLE_CHARACTERS]
    raise ConflictError(
        say("“{title}” is not finished, and one project at a time is built.", title=title),
        say("/status shows it, /cancel stops it."),
    )


async def take_text(talk: Talk, text: str) -> None:
    """What is no command is the answer to what was asked. Source: spec/builder.md §4, DESIGN §11."""
    expected, say = talk.expected, talk.say
    if not text:
        talk.tell(say("Say it in words, please."))
        return
    if expected is not None and expected.what == "description":
        await begin(talk, text)
    elif expected is not None and expected.what == "change":
        talk.expect_nothing()
        await steering.change(talk, await talk.owned(expected.project), text)
    elif expected is not None and expected.what == "reject":
        talk.expect_nothing()
        view = await talk.ask(expected.project, Reject(key=talk.key("no"), text=text, about=expected.about))
        talk.follow(view, from_now=True)
        talk.tell(say("✏️ Understood. I come back with a new proposal."), quiet=True)
    elif expected is not None and expected.what == "again":
        talk.expect_nothing()
        old = await talk.owned(expected.project)
        await begin(talk, f"{old.scope or old.title}\n\n{text}")
    elif expected is not None and expected.what == "feedback":
        talk.expect_nothing()
        await steering.feedback(talk, f"{expected.about} {text}")
    elif (active := await talk.active()) is not None:
        await _answer(talk, active, text)
    else:
        await _offer_to_build(talk, text)


async def _answer(talk: Talk, view: ProjectView, text: str) -> None:
    say = talk.say
    if view.topic:
        view = await talk.ask(view.id, Answer(key=talk.key("answer"), text=text))
        talk.follow(view)
        talk.busy()
    elif view.asks and is_scope(view.asks) and is_yes(text):
        await yes(talk, Press(verb="yes", project=view.id, about=view.asks))
    elif is_scope(view.asks):
        await steering.change(talk, view, text)
    elif view.status in (Status.GATHERING_REQUIREMENTS, Status.CLARIFYING):
        talk.tell(say("⏳ One moment: I am still thinking, and did not take this. Say it with your next answer."))
    else:
        talk.expect("offer", view.id, text)
        rows: list[list[Button]] = [
            [(say("✏️ Make it a change"), press("offer", view.id, "change"))],
            [(say("No"), press("offer", view.id, "no"))],
        ]
        status = progress_text(view, say)
        talk.tell(say("Shall I change your project like this? It gets a price first.") + f"\n\n{status}", rows)


async def _offer_to_build(talk: Talk, text: str) -> None:
    say = talk.say
    if len(text) < IDEA_LEAST:
        talk.tell(say("Tell me what software you need, in a sentence or two, and I build it. /help shows the rest."))
        talk.expect("description")
        return
    talk.expect("offer", about=text)
    build: Button = (say("🔨 Build this"), press("offer", about="build"))
    question = say("Shall I build this? I ask a few questions first, and build nothing before your yes to a price.")
    talk.tell(question, [[build, (say("No"), press("offer", about="no"))]])


async def not_text(talk: Talk, message: Message) -> None:
    """Stickers, voice, pictures, files: what works instead."""
    say, view = talk.say, await talk.active()
    what = next((name for name in ("sticker", "voice", "photo", "document", "video") if getattr(message, name)), "")
    names = {
        "sticker": say("A sticker is nice, but I cannot read it."),
        "voice": say("I cannot listen to voice messages."),
        "photo": say("I cannot look at pictures here."),
        "document": say("I cannot take files here."),
        "video": say("I cannot watch videos."),
    }
    hint = say("Please write it as a text.")
    if view is not None and view.topic:
        hint += "\n\n" + say("I asked: {question}", question=escape(view.question or ""))
    elif view is not None:
        hint += " " + say("/status shows how your project stands.")
    else:
        hint += " " + say("/new begins a project.")
    talk.tell(f"{names.get(what, say('I cannot read that.'))} {hint}")


async def yes(talk: Talk, pressed: Press) -> None:
    """To what the button names, never to whatever is asked by now."""
    say = talk.say
    if not pressed.about:
        talk.toast(say("This button is not known here."), alert=True)
        return
    try:
        view = await talk.ask(pressed.project, Approve(key=talk.key("yes"), about=pressed.about))
    except ConflictError:
        if (await talk.owned(pressed.project)).asks == pressed.about:
            raise
        talk.toast(say("This was answered already."))
        talk.settle()
        return
    talk.follow(view, from_now=True)
    talk.settle()
    talk.toast(say("Agreed."))


async def no(talk: Talk, pressed: Press) -> None:
    """Of a change's price that is the end of it; of a scope or a gate it asks what should be different."""
    say, view = talk.say, await talk.owned(pressed.project)
    if view.asks != pressed.about:
        talk.toast(say("This was answered already."))
        talk.settle()
        return
    if pressed.about.startswith("change/"):
        await talk.ask(pressed.project, Reject(key=talk.key("no"), about=pressed.about))
        talk.settle()
        talk.toast(say("The change is dropped."))
        return
    talk.expect("reject", pressed.project, pressed.about)
    talk.tell(say("✏️ What should be different? Write it in your own words."))


async def decide(talk: Talk, pressed: Press) -> None:
    await _short_answer(talk, pressed, "you decide")


async def skip(talk: Talk, pressed: Press) -> None:
    await _short_answer(talk, pressed, "skip")


async def _short_answer(talk: Talk, pressed: Press, text: str) -> None:
    say = talk.say
    if await _is_old(talk, pressed):
        return
    view = await talk.ask(pressed.project, Answer(key=talk.key("answer"), text=text))
    talk.follow(view)
    talk.settle()
    talk.toast(say("Noted as an assumption."))
    talk.busy()


async def back(talk: Talk, pressed: Press) -> None:
    if await _is_old(talk, pressed):
        return
    view = await talk.ask(pressed.project, Back(key=talk.key("back")))
    talk.follow(view)
    talk.settle()


async def _is_old(talk: Talk, pressed: Press) -> bool:
    """Whether the question whose button was pressed is not the one that is open."""
    say = talk.say
    view = await talk.owned(pressed.project)
    if view.topic and str(view.asked) == pressed.about:
        return False
    talk.toast(say("This was answered already."))
    talk.settle()
    return True


async def idea(talk: Talk, pressed: Press) -> None:
    say = talk.say
    brief = next((brief for id, _, brief in ideas(talk) if id == pressed.about), None)
    if brief is None:
        talk.toast(say("This button is not known here."), alert=True)
        return
    talk.settle()
    await begin(talk, brief)


async def offered(talk: Talk, pressed: Press) -> None:
    """What somebody wrote unasked becomes a brief or a change, or nothing."""
    expected, say = talk.expected, talk.say
    if expected is None or expected.what != "offer" or expected.project != pressed.project:
        talk.toast(say("This was answered already."))
        talk.settle()
        return
    talk.expect_nothing()
    talk.settle()
    if pressed.about == "build":
        await begin(talk, expected.about)
    elif pressed.about == "change":
        await steering.change(talk, await talk.owned(pressed.project), expected.about)
    else:
        talk.toast(say("Forgotten."))


async def again(talk: Talk, pressed: Press) -> None:
    """A project that is over is not changed; another one begins from its scope."""
    say = talk.say
    view = await talk.owned(pressed.project)
    await _refuse_second(talk)
    talk.expect("again", view.id)
    talk.tell(
        say(
            "✏️ What should be different from “{title}”? I build it anew with your change; you see the price first.",
            title=escape(view.title[:TITLE_CHARACTERS]),
        )
    )


async def new_pressed(talk: Talk, pressed: Press) -> None:
    await new(talk, "")


PRESSED: Mapping[str, Callable[[Talk, Press], Awaitable[None]]] = {
    "idea": idea,
    "skip": skip,
    "decide": decide,
    "back": back,
    "yes": yes,
    "no": no,
    "offer": offered,
    "again": again,
    "new": new_pressed,
}
