"""Who should live where: partitions to hosts, and the moves that make it so. Pure: facts in, decisions out."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from runtime.entity.journal import Ownership
from runtime.ids import PARTITION_COUNT


@dataclass(frozen=True, slots=True, kw_only=True)
class Living:
    """A host that answers: which start of its process, and what it says it may write (partition -> epoch)."""

    incarnation: str
    owned: Mapping[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A partition that should change hands. Repeating it is safe: the store lets only one claim of an epoch win."""

    partition: int
    source: str | None
    """The living host to be asked to let go of it first; None when nobody has to be asked."""
    target: str
    epoch: int
    """What the target must find in the store for its claim to be granted; 0: it was never owned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where messages go. Only a hint: a host refuses what is not its own, and the store what its host may not write."""

    version: int
    """Grows with every change; 0 means that nothing is known yet."""
    hosts: Sequence[str]
    """The host of each partition by number, or nothing at all yet."""
    homes: Mapping[str, str]
    """The host of each kind that is not spread over partitions."""


def assign(hosts: Collection[str]) -> Sequence[str]:
    """The host of each partition. Adding a host moves partitions only to it; removing one moves only its own.

    Rendezvous hashing: every host draws a number for every partition, and the highest draw has it. `hosts` are
    distinct and at least one.
    Source: Thaler and Ravishankar, "A name-based mapping scheme for rendezvous", 1996.
    """
    draws = {host: _draws(host) for host in sorted(hosts)}
    return [max(draws, key=lambda host: draws[host][partition]) for partition in range(PARTITION_COUNT)]


def plan(
    hosts: Collection[str],
    living: Mapping[str, Living],
    ownerships: Sequence[Ownership],
    awaited: Collection[str] = (),
) -> Sequence[Move]:
    """What has to move now so that every partition gets to its place among `hosts`.

    A host that is not `living` gets nothing. What an `awaited` one has is left to it: it is expected back soon, and
    moving twice costs more than waiting. A living owner that does not know of its ownership, because the answer to
    its claim was lost, claims again. Afterwards, with every host living, there is nothing left to move.
    """
    if not hosts:
        return ()
    known = {ownership.partition: ownership for ownership in ownerships}
    moves = []
    for partition, target in enumerate(assign(hosts)):
        owned = known.get(partition)
        if target not in living or (owned is not None and owned.host in awaited and owned.host not in living):
            continue
        if owned is None:
            moves.append(Move(partition=partition, source=None, target=target, epoch=0))
        elif owned.host != target or not has(living, owned):
            source = owned.host if owned.host != target and is_owners(living, owned) else None
            moves.append(Move(partition=partition, source=source, target=target, epoch=owned.epoch))
    return moves


def overstayed(living: Mapping[str, Living], ownerships: Sequence[Ownership]) -> Mapping[str, Sequence[int]]:
    """Host -> partitions that it still believes to own, though the store has granted a newer epoch to somebody else.

    What it writes is refused; but what it answers from memory may be old.
    """
    epochs = {owned.partition: owned.epoch for owned in ownerships}
    found = {
        name: [partition for partition, epoch in host.owned.items() if epoch < epochs.get(partition, 0)]
        for name, host in living.items()
    }
    return {name: partitions for name, partitions in found.items() if partitions}


def has(living: Mapping[str, Living], owned: Ownership) -> bool:
    """True when the owner lives and knows that it is the owner."""
    return is_owners(living, owned) and living[owned.host].owned.get(owned.partition) == owned.epoch


def is_owners(living: Mapping[str, Living], owned: Ownership) -> bool:
    """True when the very process that was granted the partition still lives."""
    return owned.host in living and living[owned.host].incarnation == owned.incarnation


@lru_cache(maxsize=256)
def _draws(host: str) -> Sequence[int]:
    """A good hash is needed: with a linear one (crc32) the draws of two hosts differ by a constant."""
    return tuple(
        int.from_bytes(hashlib.blake2b(f"{host}/{partition}".encode(), digest_size=8).digest(), "big")
        for partition in range(PARTITION_COUNT)
    )
