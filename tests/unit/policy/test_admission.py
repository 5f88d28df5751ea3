import pytest

from runtime.errors import ConflictError, NotEnoughCreditsError
from runtime.ledger.port import Balance
from runtime.policy.admission import check_active, check_wallet

MORE = "Buy some."


def test_wallet__with_exactly_the_minimum_free_is_admitted():
    check_wallet(Balance(balance_ucredits=12_000_000, held_ucredits=2_000_000), 10, MORE)


def test_wallet__whose_free_part_is_below_the_minimum_is_refused_with_both_figures():
    with pytest.raises(NotEnoughCreditsError, match=r"at least 10 free credits; you have 9\.99\b"):
        check_wallet(Balance(balance_ucredits=12_000_000, held_ucredits=2_010_000), 10, MORE)


def test_wallet__that_is_refused_is_told_what_can_be_done():
    with pytest.raises(NotEnoughCreditsError) as refusal:
        check_wallet(Balance(balance_ucredits=0, held_ucredits=0), 10, MORE)
    assert refusal.value.next_step == MORE


def test_active_projects__at_the_limit_are_refused_except_for_an_admin():
    check_active(0, 1, is_admin=False)
    check_active(5, 1, is_admin=True)
    with pytest.raises(ConflictError, match="1 unfinished"):
        check_active(1, 1, is_admin=False)
