from typing import Any

import pytest
from pydantic import ValidationError

from cluster.simulator.faults import ORDERS_MAX, Fault, Faults
from cluster.simulator.refusal import Refusal


def take(faults: Faults, task: str = "synthetic", **call: Any) -> str | None:
    fault = faults.take(call.get("wire", "openai"), call.get("key", "sim-1"), call.get("model", "gpt-4o"), task)
    return fault and fault.kind


def test_faults__are_taken_in_order_and_used_up() -> None:
    faults = Faults()
    faults.order(Fault(kind="status_429", count=2))
    faults.order(Fault(kind="status_500"))

    assert [take(faults) for _ in range(4)] == ["status_429", "status_429", "status_500", None]
    assert not faults.waiting()


@pytest.mark.parametrize(
    ("chosen", "other"),
    [
        ({"task": "code.edit"}, {"task": "plan.todo"}),
        ({"wire": "gemini"}, {"wire": "openai"}),
        ({"key": "sim-2"}, {"key": "sim-22"}),
        ({"key": "sim-2*"}, {"key": "sim-1"}),
        ({"model": "gpt-*"}, {"model": "o3"}),
    ],
)
def test_faults__wait_for_the_calls_they_fit(chosen: dict[str, Any], other: dict[str, Any]) -> None:
    faults = Faults()
    faults.order(Fault.model_validate({"kind": "cut_stream", **chosen}))

    assert take(faults, **other) is None
    assert faults.waiting()[0]["count"] == 1
    assert take(faults, **{name: value.replace("*", "x") for name, value in chosen.items()}) == "cut_stream"


def test_rate__spoils_that_share_of_calls_and_the_same_ones_again() -> None:
    def spoiled(seed: int) -> list[bool]:
        faults = Faults()
        faults.order(Fault(kind="status_500", rate=0.05, seed=seed))
        return [take(faults) is not None for _ in range(20_000)]

    first = spoiled(7)

    assert 0.045 < sum(first) / len(first) < 0.055
    assert spoiled(7) == first
    assert spoiled(8) != first


def test_rate__may_have_a_count_too() -> None:
    faults = Faults()
    faults.order(Fault(kind="status_500", rate=0.5, count=3))

    assert sum(take(faults) is not None for _ in range(100)) == 3


def test_revoked_key__stays_so_and_takes_no_place_among_the_others() -> None:
    faults = Faults()
    id = faults.order(Fault(kind="revoke_key", key="sim-2", wire="openai"))

    assert all(faults.revoked("openai", "sim-2") for _ in range(3))
    assert not faults.revoked("openai", "sim-22")
    assert not faults.revoked("gemini", "sim-2")
    assert take(faults, key="sim-2") is None
    faults.clear(id)
    assert not faults.revoked("openai", "sim-2")


def test_faults__are_listed_with_how_often_they_were_taken_and_cleared_one_by_one() -> None:
    faults = Faults()
    first = faults.order(Fault(kind="status_429", count=5))
    second = faults.order(Fault(kind="hang"))
    take(faults)

    assert [(each["id"], each["taken"], each["count"]) for each in faults.waiting()] == [(first, 1, 4), (second, 0, 1)]
    faults.clear(first)
    assert [each["id"] for each in faults.waiting()] == [second]


def test_faults__are_not_more_than_a_bound() -> None:
    faults = Faults()
    for _ in range(ORDERS_MAX):
        faults.order(Fault(kind="status_500"))

    with pytest.raises(Refusal):
        faults.order(Fault(kind="status_500"))


@pytest.mark.parametrize(
    "order",
    [
        {"kind": "earthquake"},
        {"kind": "revoke_key"},
        {"kind": "revoke_key", "key": "sim-1", "count": 1},
        {"kind": "status_500", "rate": 1.5},
        {"kind": "status_500", "key": "sim-"},
        {"kind": "status_500", "keys": "sim-1"},
    ],
)
def test_fault__that_cannot_be_meant_is_refused(order: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Fault.model_validate(order)
