"""What must hold after the run. Each function yields the differences, in words; nothing when all is well."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from runtime.catalogue.catalogue import CATALOGUE
from runtime.ledger.money import Tariff
from tests.chaos.calls.books import Booked, Books, Line
from tests.chaos.calls.load import Entry
from tests.chaos.calls.plan import tag
from tests.chaos.killer import Kill

CHARGED = {"ok", "estimated"}
UNKNOWN = "interrupted_unknown"
LEFT_EARLY = "interrupted_estimated"
"""Its client left before anything was said: what it used is the platform's."""
LEAVES_S_MAX = 2.0
"""A call whose client went away may be in flight for so long after."""
NOTED_S_MAX = 0.03
"""The moment of a kill is noted a little after it."""
PROXYS = (0, 502, 503, 504)
"""The statuses of a call that never reached us; 0 is none."""
SERVES = "Internal Server Error"
"""What Ray Serve's own proxy says, with status 500, of a call that it handed to a process that had just died."""
RECOVERS_S_MAX = 30.0
"""For so long after a kill of the gateway nobody but the proxy may be there."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """Everything that was written down, by each side."""

    diary: Sequence[Entry]
    served: Mapping[str, Sequence[Line]]
    books: Books
    kills: Sequence[Kill]
    granted_ucredits: int
    """What each wallet began with."""
    budgets_ucredits: Mapping[str, int]
    """User -> the most that may be spent with his token; each has one, under his name."""
    tariff: Tariff

    @cached_property
    def cut_off(self) -> frozenset[int]:
        """The numbers of the calls that were under way when the process that made them was killed."""
        return frozenset(
            entry.number for entry in self.diary if any(_was_under_way(entry, kill.at) for kill in self._gateway_kills)
        )

    def met_nobody(self, entry: Entry) -> bool:
        """Whoever makes calls had been killed shortly before."""
        return any(entry.began_at - RECOVERS_S_MAX <= kill.at <= entry.began_at for kill in self._gateway_kills)

    @property
    def _gateway_kills(self) -> Sequence[Kill]:
        return [kill for kill in self.kills if kill.kind == "gateway"]

    def of_outcome(self, *outcomes: str) -> Sequence[Booked]:
        return [call for call in self.books.calls.values() if call.outcome in outcomes]

    def forgiven(self) -> Sequence[Booked]:
        """Charged with less than their price, because their escrow had ended with its process and the wallet was
        empty: the platform bears the rest."""
        return [
            call for call in self.of_outcome(*CHARGED) if call.charge_ucredits < self.tariff.credits_for(call.cost_pusd)
        ]


def differences(record: Record) -> Iterator[str]:
    yield from _charged(record)
    yield from _uncharged(record)
    yield from _unsettled(record)
    yield from _clients(record)
    yield from _wallets(record)


def _charged(record: Record) -> Iterator[str]:
    """What was charged was served, in just these tokens; an estimate is at most what was sent."""
    for booked in record.of_outcome(*CHARGED):
        lines = record.served.get(booked.call, ())
        if not lines:
            yield f"{booked.call}: charged as {booked.outcome} but never served"
            continue
        last = lines[-1]
        if booked.outcome == "ok" and not (last.complete and last.tokens == booked.tokens):
            yield f"{booked.call}: charged {booked.tokens}, served {last}"
        if booked.outcome == "estimated" and not _within(booked.tokens, last.tokens):
            yield f"{booked.call}: the estimate {booked.tokens} is above what was sent: {last}"
        price = CATALOGUE.model(booked.provider, booked.model).price
        if booked.cost_pusd != price.cost_pusd(*booked.tokens):
            yield f"{booked.call}: its cost {booked.cost_pusd} pUSD is not its price"
        elif booked.charge_ucredits > record.tariff.credits_for(booked.cost_pusd):
            yield f"{booked.call}: charged {booked.charge_ucredits} ucredits for {booked.cost_pusd} pUSD"


def _uncharged(record: Record) -> Iterator[str]:
    for booked in record.books.calls.values():
        if booked.outcome in CHARGED:
            continue
        if booked.charge_ucredits:
            yield f"{booked.call}: {booked.outcome}, and charged {booked.charge_ucredits} ucredits"
        if booked.outcome not in ("provider_failed", UNKNOWN, LEFT_EARLY):
            yield f"{booked.call}: is {booked.outcome} ({booked.state}) at the end"
        lines = record.served.get(booked.call, ())
        if booked.outcome == LEFT_EARLY and lines and not _within(booked.tokens, lines[-1].tokens):
            yield f"{booked.call}: its estimated loss of {booked.tokens} is above what was sent: {lines[-1]}"
    if unlisted := record.served.keys() - record.books.calls.keys():
        yield f"{len(unlisted)} calls were served and are not in the ledger, for example {sorted(unlisted)[:3]}"
    if record.books.spooled:
        yield f"{len(record.books.spooled)} calls are left in the spool, for example {record.books.spooled[:3]}"


def _unsettled(record: Record) -> Iterator[str]:
    """Calls of which nobody knows what they used were in flight at a kill, and their loss covers what was served."""
    unknown = record.of_outcome(UNKNOWN)
    if len(unknown) > len(record.cut_off):
        yield f"{len(unknown)} calls are unsettled, but only {len(record.cut_off)} were in flight at a kill"
    at_a_kill = {tag(number) for number in record.cut_off}
    for booked in unknown:
        lines = record.served.get(booked.call, ())
        if lines and lines[-1].tag not in at_a_kill:
            yield f"{booked.call} ({lines[-1].tag}) is unsettled, and was not in flight at any kill"
        served = lines[-1].tokens if lines else (0, 0)
        if booked.cost_pusd < max(1, CATALOGUE.model(booked.provider, booked.model).price.cost_pusd(*served)):
            yield f"{booked.call}: its estimated loss of {booked.cost_pusd} pUSD does not cover {served}"


def _clients(record: Record) -> Iterator[str]:
    """Whoever was answered was charged for just what he was told, or by an estimate where the provider told nothing;
    whoever was not, for nothing, unless he left."""
    calls_of: dict[str, list[str]] = {}
    for call, lines in record.served.items():
        for name in {line.tag for line in lines}:
            calls_of.setdefault(name, []).append(call)
    for entry in record.diary:
        booked = [
            record.books.calls[call] for call in calls_of.get(tag(entry.number), ()) if call in record.books.calls
        ]
        charged = [each for each in booked if each.outcome in CHARGED]
        if entry.kind == "answered" and not _agrees(entry, charged):
            yield f"call {entry.number}: its client was told {entry.usage}, the ledger has {booked}"
        was_cut_off = entry.number in record.cut_off
        if entry.kind not in ("answered", "left") and charged and not was_cut_off:
            yield f"call {entry.number}: {entry.kind} {entry.code}, and charged: {charged}"
        is_proxys = entry.status in PROXYS or (entry.kind == "wrong" and entry.code == SERVES)
        met_nobody = is_proxys and record.met_nobody(entry)
        if entry.kind in ("cut", "unreachable", "wrong") and not (was_cut_off or met_nobody):
            yield f"call {entry.number}: {entry}, and nobody was killed meanwhile"
        if len(charged) > 1:
            yield f"call {entry.number}: charged more than once: {charged}"


def _wallets(record: Record) -> Iterator[str]:
    yield from record.books.mismatches
    charged = Counter[str]()
    for booked in record.books.calls.values():
        charged[booked.user] += booked.charge_ucredits
    for user, balance in record.books.balances.items():
        if balance.balance_ucredits < 0 or balance.free_ucredits < 0:
            yield f"the wallet of {user} is below zero: {balance}"
        if balance.held_ucredits:
            yield f"{balance.held_ucredits} ucredits of {user} are still held"
        if balance.balance_ucredits != record.granted_ucredits - charged[user]:
            yield f"{user} has {balance.balance_ucredits}, was given {record.granted_ucredits}, charged {charged[user]}"
        spent = record.books.spent_ucredits[user]
        if spent != charged[user]:
            yield f"the token of {user} says that {spent} ucredits were spent, the calls say {charged[user]}"
        if spent > record.budgets_ucredits.get(user, spent):
            yield f"the token of {user} spent {spent} ucredits, and may spend {record.budgets_ucredits[user]}"


def _agrees(entry: Entry, charged: Sequence[Booked]) -> bool:
    if entry.usage is None:
        return [each.outcome for each in charged] == ["estimated"]
    return [(each.outcome, each.tokens) for each in charged] == [("ok", entry.usage)]


def _was_under_way(entry: Entry, at: float) -> bool:
    if entry.kind in ("answered", "refused", "failed"):
        return False  # It had come to its end: the dead tell nothing.
    return entry.began_at <= at <= entry.ended_at + (LEAVES_S_MAX if entry.kind == "left" else NOTED_S_MAX)


def _within(tokens: tuple[int, int], sent: tuple[int, int]) -> bool:
    return tokens[0] <= sent[0] and tokens[1] <= sent[1]
