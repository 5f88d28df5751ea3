"""Who should live where: balanced, with as few moves as possible, and always ending in place."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from runtime.entity.journal import Ownership
from runtime.ids import PARTITION_COUNT
from runtime.routing.placement import Living, Move, assign, overstayed, plan

HOSTS = [f"host-{number}" for number in range(12)]
some_hosts = st.sets(st.sampled_from(HOSTS), min_size=1)


def owned(partition: int, host: str, epoch: int = 1, incarnation: str = "first") -> Ownership:
    return Ownership(partition=partition, epoch=epoch, host=host, incarnation=incarnation)


def living(host: str, ownerships: list[Ownership], incarnation: str = "first") -> Living:
    mine = [each for each in ownerships if (each.host, each.incarnation) == (host, incarnation)]
    return Living(incarnation=incarnation, owned={each.partition: each.epoch for each in mine})


def carry_out(moves: list[Move], ownerships: list[Ownership], incarnations: dict[str, str]) -> list[Ownership]:
    """As the store would: a claim is granted where the epoch is the expected one."""
    table = {each.partition: each for each in ownerships}
    for move in moves:
        before = table.get(move.partition)
        repeated = before and (before.host, before.incarnation) == (move.target, incarnations[move.target])
        if repeated:
            continue
        assert move.epoch == (before.epoch if before else 0)
        table[move.partition] = owned(move.partition, move.target, move.epoch + 1, incarnations[move.target])
    return list(table.values())


@given(some_hosts, st.sampled_from(HOSTS))
def test_adding_a_host__moves_partitions_only_to_it(hosts: set[str], new: str) -> None:
    before, after = assign(hosts - {new} or {"other"}), assign((hosts - {new} or {"other"}) | {new})
    assert {after[number] for number in range(PARTITION_COUNT) if before[number] != after[number]} <= {new}


@given(some_hosts, st.sampled_from(HOSTS))
def test_removing_a_host__moves_only_what_was_its_own(hosts: set[str], gone: str) -> None:
    left = hosts - {gone} or {"other"}
    before, after = assign(left | {gone}), assign(left)
    assert all(before[number] in (after[number], gone) for number in range(PARTITION_COUNT))


@given(some_hosts)
def test_assignment__is_balanced_and_the_same_in_any_order(hosts: set[str]) -> None:
    assigned = assign(sorted(hosts))
    counts = Counter(assigned)
    fair = PARTITION_COUNT / len(hosts)
    assert list(assigned) == list(assign(sorted(hosts, reverse=True)))
    assert len(assigned) == PARTITION_COUNT
    assert counts.keys() == hosts
    # Five standard deviations of a fair draw.
    assert all(abs(count - fair) <= 5 * fair**0.5 for count in counts.values())


@given(
    some_hosts,
    some_hosts,
    st.dictionaries(
        st.integers(0, PARTITION_COUNT - 1), st.tuples(st.sampled_from(HOSTS), st.integers(1, 9), st.booleans())
    ),
)
def test_plan__ends_with_everything_in_place_when_every_host_lives(
    wanted: set[str], others: set[str], table: dict[int, tuple[str, int, bool]]
) -> None:
    ownerships = [
        owned(partition, host, epoch, "first" if is_current else "older")
        for partition, (host, epoch, is_current) in table.items()
    ]
    incarnations = dict.fromkeys(wanted | others, "first")
    alive = {host: living(host, ownerships) for host in incarnations}

    moves = list(plan(wanted, alive, ownerships, awaited=incarnations))
    after = carry_out(moves, ownerships, incarnations)

    assert [each.host for each in sorted(after, key=lambda each: each.partition)] == list(assign(wanted))
    assert not plan(wanted, {host: living(host, after) for host in incarnations}, after)
    assert all(move.source is None or move.source in alive for move in moves)


def test_first_start__every_partition_is_claimed_as_nobodys() -> None:
    moves = plan(["host-0"], {"host-0": living("host-0", [])}, [])
    assert [(move.partition, move.source, move.target, move.epoch) for move in moves] == [
        (number, None, "host-0", 0) for number in range(PARTITION_COUNT)
    ]


def test_restarted_host__claims_what_its_older_self_owned_and_asks_nobody() -> None:
    ownerships = [owned(number, "host-0", 4, "older") for number in range(PARTITION_COUNT)]
    moves = plan(["host-0"], {"host-0": living("host-0", ownerships)}, ownerships, awaited=["host-0"])
    assert len(moves) == PARTITION_COUNT
    assert {(move.source, move.target, move.epoch) for move in moves} == {(None, "host-0", 4)}


def test_restarting_host__keeps_its_partitions_until_it_is_given_up() -> None:
    ownerships = [owned(number, host) for number, host in enumerate(assign(["host-0", "host-1"]))]
    alive = {"host-0": living("host-0", ownerships)}
    assert not plan(["host-0", "host-1"], alive, ownerships, awaited=["host-0", "host-1"])

    moves = plan(["host-0"], alive, ownerships, awaited=["host-0"])

    assert {move.partition for move in moves} == {each.partition for each in ownerships if each.host == "host-1"}
    assert {move.source for move in moves} == {None}


def test_restarting_host__is_not_robbed_by_a_new_one() -> None:
    ownerships = [owned(number, "host-0") for number in range(PARTITION_COUNT)]
    alive = {"host-1": living("host-1", [])}
    assert not plan(["host-0", "host-1"], alive, ownerships, awaited=["host-0", "host-1"])
    assert len(plan(["host-1"], alive, ownerships, awaited=["host-1"])) == PARTITION_COUNT


def test_new_host_that_does_not_answer_yet__is_waited_for_where_the_partitions_are() -> None:
    ownerships = [owned(number, "host-0") for number in range(PARTITION_COUNT)]
    alive = {"host-0": living("host-0", ownerships)}
    assert not plan(["host-0", "host-1"], alive, ownerships, awaited=["host-0", "host-1"])


def test_new_host__gets_its_share_from_the_living_owner() -> None:
    ownerships = [owned(number, "host-0", 7) for number in range(PARTITION_COUNT)]
    alive = {"host-0": living("host-0", ownerships), "host-1": living("host-1", [])}
    moves = plan(["host-0", "host-1"], alive, ownerships)
    assert {(move.source, move.target, move.epoch) for move in moves} == {("host-0", "host-1", 7)}
    assert 400 < len(moves) < 624


def test_owner_that_does_not_know_that_it_is_one__claims_again() -> None:
    ownerships = [owned(number, "host-0") for number in range(PARTITION_COUNT)]
    knows_less = Living(incarnation="first", owned=dict.fromkeys(range(1, PARTITION_COUNT), 1))
    (move,) = plan(["host-0"], {"host-0": knows_less}, ownerships)
    assert move == Move(partition=0, source=None, target="host-0", epoch=1)


def test_owner_that_is_no_actor_any_more__is_not_asked_and_not_awaited() -> None:
    ownerships = [owned(number, "host-9", 3) for number in range(PARTITION_COUNT)]
    moves = plan(["host-0"], {"host-0": living("host-0", [])}, ownerships, awaited=["host-0"])
    assert {(move.source, move.target, move.epoch) for move in moves} == {(None, "host-0", 3)}
    assert len(moves) == PARTITION_COUNT


def test_no_host__no_moves() -> None:
    assert not plan([], {}, [])


def test_overstayed__names_what_somebody_newer_owns_and_nothing_else() -> None:
    ownerships = [owned(0, "host-1", 2), owned(1, "host-0", 1), owned(2, "host-1", 3)]
    alive = {
        "host-0": Living(incarnation="first", owned={0: 1, 1: 1}),
        "host-1": Living(incarnation="first", owned={0: 2, 2: 4}),
    }
    assert overstayed(alive, ownerships) == {"host-0": [0]}
