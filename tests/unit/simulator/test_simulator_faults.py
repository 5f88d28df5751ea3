import pytest
from pydantic import ValidationError

from cluster.simulator.faults import Fault, Faults


def test_faults__are_taken_in_order_and_used_up() -> None:
    faults = Faults()
    faults.order(Fault(kind="status_429", count=2))
    faults.order(Fault(kind="status_500"))

    taken = [faults.take("plan.todo") for _ in range(4)]

    assert [fault and fault.kind for fault in taken] == ["status_429", "status_429", "status_500", None]
    assert not faults.waiting()


def test_faults__of_one_task_wait_for_it() -> None:
    faults = Faults()
    faults.order(Fault(kind="cut_stream", task="code.edit"))

    assert faults.take("plan.todo") is None
    assert faults.waiting() == [Fault(kind="cut_stream", task="code.edit")]
    assert faults.take("code.edit") is not None


def test_fault__that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValidationError):
        Fault.model_validate({"kind": "earthquake"})
