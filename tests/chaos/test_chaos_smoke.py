"""A short chaos run. `make chaos` runs a long one, with builds."""

from pathlib import Path

from tests.chaos import index
from tests.chaos.killer import Kill, silences_s
from tests.chaos.run import Chaos


def test_random_kills__lose_and_double_no_acknowledged_message(tmp_path: Path) -> None:
    told: list[str] = []
    chaos = Chaos(folder=tmp_path, seed=7, with_builds=False, heavy=False, say=told.append)
    outcome = chaos.run(12.0)
    assert outcome.differences == []
    values = {figure["figure"]: figure["value"] for figure in outcome.figures}
    assert values["kills"]
    assert values["messages acknowledged"]


def test_killed_updates__leave_an_index_at_a_whole_commit() -> None:
    assert index.run(kills=3, seed=7) == 0


def test_silence__is_the_longest_wait_for_an_answer_from_a_kill_to_the_next() -> None:
    kills = [Kill(kind="host", pid=1, at=10.0), Kill(kind="ledger", pid=2, at=20.0)]
    answers = [9.0, 10.5, 14.0, 19.0, 26.0, 26.5]
    assert silences_s(kills, answers, until=27.0) == {"host": [7.0], "ledger": [6.0]}
