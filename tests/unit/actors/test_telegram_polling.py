"""What polling makes of what it fetches: nothing of it stops the loop, and what is not on disk is fetched again."""

from typing import Any

import pytest

from actors.telegram import next_offset, taken
from runtime.errors import UnavailableError
from runtime.telegram.reception import Reception
from tests.unit.telegram.fake_chats import Chats, Ledger, update


class Broken(Ledger):
    async def register(self, identity: Any) -> Any:
        raise KeyError("planted-needle")


@pytest.mark.parametrize("strange", [None, 7, "x", [], {}, {"update_id": "1"}, {"update_id": 2, "message": 5}])
async def test_update__that_is_none_is_let_go(strange: Any) -> None:
    await taken(Reception(Ledger(), Chats(), is_pushed=False), strange)  # type: ignore[arg-type]


async def test_update__that_meets_an_error_of_ours_is_let_go_and_its_text_is_not_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await taken(Reception(Broken(), Chats(), is_pushed=False), update(1))  # type: ignore[arg-type]
    assert "KeyError" in caplog.text
    assert "planted-needle" not in caplog.text


async def test_update__that_could_not_be_kept_is_fetched_again() -> None:
    with pytest.raises(UnavailableError):
        await taken(Reception(Ledger(), Chats(away=[1]), is_pushed=False), update(1))  # type: ignore[arg-type]


def test_offset__is_after_the_last_number_whatever_else_came() -> None:
    strange: list[Any] = [None, 7, {}, {"update_id": "9"}, {"update_id": None}]
    assert next_offset([*strange, update(4), update(3)], 2) == 5
    assert next_offset(strange, 2) == 2
    assert next_offset([], 2) == 2
