import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.documents.encodings import decoded

GERMAN = "Die Größe der Brücke über die Straße beträgt fünf Meter. Äpfel und Öl für Jürgen kosten 3 €. " * 5
RUSSIAN = "Длина моста через реку составляет пять метров, и это известно всем жителям города. " * 5


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_text__is_read_in_its_encoding(encoding: str) -> None:
    assert decoded(GERMAN.encode(encoding)) == GERMAN


def test_text__in_big_endian_utf16_is_read() -> None:
    assert decoded(b"\xfe\xff" + GERMAN.encode("utf-16-be")) == GERMAN


def test_text__in_another_legacy_encoding_is_told_by_its_letters() -> None:
    assert decoded(RUSSIAN.encode("cp1251")) == RUSSIAN


def test_letters__that_tell_may_be_far_down() -> None:
    text = "plain words " * 20_000 + RUSSIAN
    assert decoded(text.encode("cp1251")) == text


def test_encodings__that_are_mixed_lose_no_letter() -> None:
    mixed = GERMAN.encode() + "Café Zürich".encode("cp1252") + GERMAN.encode()
    assert decoded(mixed) == f"{GERMAN}Café Zürich{GERMAN}"


def test_html__is_read_as_it_declares() -> None:
    page = f'<meta charset="windows-1251"><p>{RUSSIAN[:60]}'
    assert decoded(page.encode("cp1251"), is_html=True) == page


@pytest.mark.parametrize("declared", ["utf-16", "hex", "no-such-thing", "rot13", "idna", "undefined"])
def test_html__that_declares_nonsense_is_read_all_the_same(declared: str) -> None:
    page = f'<meta http-equiv=content-type content="text/html; charset={declared}"><p>{GERMAN}'
    assert decoded(page.encode("cp1252"), is_html=True) == page


@given(st.binary(max_size=2_000), st.booleans())
def test_bytes__of_any_kind_become_text(content: bytes, is_html: bool) -> None:
    text = decoded(content, is_html=is_html)
    assert text.encode("utf-8", "strict") or not content.lstrip(b"\xef\xbb\xbf\xff\xfe\0")
