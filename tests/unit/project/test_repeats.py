from collections.abc import Sequence

import pytest

from runtime.project.repeats import REDONE_MAX, Tried, Way, change_mark, failure_mark, way_on

ROUNDS_MAX = 3
REPORT = """$ python3 -m unittest tests/test_a.py
FAIL: test_a (tests.test_a.Case) at 0x7f3a2b1c pid 4711 in /tmp/tmpab12/x.py
2026-11-28T10:11:12.5Z AssertionError: 3 != 4
Ran 2 tests in 0.012s
[exit 1]"""
PATCH = b"""diff --git a/a.py b/a.py
index 1111111..2222222 100644
--- a/a.py
+++ b/a.py
@@ -1,3 +1,4 @@ def f():
 x = 1
+y = 2
"""


def failed(*marks: str) -> list[Tried]:
    """One letter an attempt: the same letter is the same failure."""
    return [Tried(cause="checks", failure=mark, change=f"change {n}") for n, mark in enumerate(marks)]


def way(tries: Sequence[Tried], *, has_stronger: bool = True) -> Way:
    return way_on(tries, ROUNDS_MAX, has_stronger=has_stronger)


@pytest.mark.parametrize(
    ("tries", "stronger", "hopeless"),
    [
        ("", False, False),
        ("a", False, False),
        ("ab", False, False),
        ("abc", True, False),
        ("abcd", True, True),
        ("aa", True, False),
        ("aab", True, True),
        ("aba", True, False),
        ("abac", True, True),
    ],
)
def test_way__leads_to_the_stronger_model_after_the_rounds_or_a_repetition(
    tries: str, stronger: bool, hopeless: bool
) -> None:
    found = way(failed(*tries))
    assert (found.stronger, found.hopeless) == (stronger, hopeless)
    assert bool(found.repeated) == (len(set(tries)) < len(tries))


def test_same_change__is_a_repetition_though_it_failed_in_another_way() -> None:
    tries = [Tried(cause="checks", failure=mark, change="same") for mark in "ab"]
    assert way(tries) == Way(stronger=True, repeated="made the same change")
    assert way(tries, has_stronger=False) == Way(stronger=True, hopeless=True, repeated="made the same change")


def test_what_went_back_to_a_newer_base__is_no_failure_but_not_for_ever() -> None:
    back = [Tried(cause="conflict", failure="same", change="same")] * REDONE_MAX
    assert way(back) == Way()
    assert way([*failed("a", "b"), *back]) == Way()
    assert way([*back, *failed("a", "b", "c")]).stronger
    endless = [Tried(cause="conflict", failure=f"{n}", change=f"{n}") for n in range(REDONE_MAX + ROUNDS_MAX + 1)]
    assert way(endless).hopeless


def test_failure__is_the_same_whatever_differs_from_run_to_run() -> None:
    again = REPORT.replace("0x7f3a2b1c", "0x11").replace("4711", "12").replace("tmpab12", "tmpzz")
    again = again.replace("10:11:12.5Z", "11:00:00Z").replace("0.012s", "1.5s")
    assert failure_mark(REPORT) == failure_mark(again)
    assert failure_mark(REPORT) != failure_mark(REPORT.replace("3 != 4", "3 != 5"))
    assert failure_mark(REPORT) != failure_mark(REPORT.replace("Ran 2", "Ran 3"))


def test_change__is_the_same_wherever_in_the_file_and_on_whatever_base() -> None:
    moved = PATCH.replace(b"1111111..2222222", b"3333333..4444444").replace(b"-1,3 +1,4", b"-9,3 +9,4")
    assert change_mark(PATCH) == change_mark(moved)
    assert change_mark(PATCH) != change_mark(PATCH.replace(b"y = 2", b"y = 3"))
