import string
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.ids import ProjectId
from runtime.telegram.buttons import BYTES_MAX, Press, parse_press, press

projects = st.one_of(st.just(ProjectId("")), st.uuids().map(lambda each: ProjectId(str(each))))
verbs = st.text(string.ascii_lowercase, min_size=1, max_size=10)
abouts = st.text(string.ascii_letters + string.digits + "_./-", max_size=20)


@given(verbs, projects, abouts)
def test_press__comes_back_as_it_was_made_and_fits(verb: str, project: ProjectId, about: str) -> None:
    data = press(verb, project, about)
    assert len(data.encode()) <= BYTES_MAX
    assert parse_press(data) == Press(verb=verb, project=project, about=about)


@pytest.mark.parametrize(
    ("verb", "about"), [("", ""), ("Yes", ""), ("y" * 11, ""), ("yes", "a" * 21), ("yes", "ą"), ("yes", "a:b")]
)
def test_press__is_not_made_of_what_could_not_be_read(verb: str, about: str) -> None:
    with pytest.raises(ValueError, match="no button's data"):
        press(verb, ProjectId(str(uuid.uuid4())), about)


@given(st.text(max_size=80))
def test_parse__takes_anything_and_knows_its_own_alone(data: str) -> None:
    found = parse_press(data)
    assert found is None or press(found.verb, found.project, found.about) == data.rstrip(":")


@pytest.mark.parametrize("data", ["", "YES", "yes:" + "a" * 33, "yes::x y", "yes\n", "a:b:c:d"])
def test_parse__refuses(data: str) -> None:
    assert parse_press(data) is None
