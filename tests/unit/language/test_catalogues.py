"""The catalogues fit the code, and what does not fit is found."""

from pathlib import Path
from textwrap import dedent

import pytest
from babel.messages.catalog import Catalog

from runtime.errors import BadInputError
from runtime.language.catalogue import TRANSLATED, read, write
from runtime.language.extraction import template
from runtime.language.faults import faults

PLURAL = ("{n} file", "{n} files")


def code(folder: Path, source: str, path: str = "runtime/chat.py") -> Path:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(dedent(source))
    return folder


def found(folder: Path) -> set[str | tuple[str, ...]]:
    return {message.id for message in template(folder) if message.id}


def catalogue(language: str = "pl", **translations: str) -> Catalog:
    """Of `{n} file` with its forms right, and of `translations` beside it."""
    made = Catalog(locale=language)
    made.add(
        PLURAL, ("plik", "{n} pliki", "{n} plików") if language == "pl" else ("{n} файл", "{n} файла", "{n} файлов")
    )
    for text, translation in translations.items():
        made.add(text, translation)
    return made


@pytest.mark.parametrize("language", TRANSLATED)
def test_catalogue__fits_the_code(language: str) -> None:
    """What this finds, `make texts` puts right, but for the translations."""
    assert faults(read(language), template()) == []


@pytest.mark.parametrize("language", TRANSLATED)
def test_catalogue__is_as_make_texts_writes_it(language: str, tmp_path: Path) -> None:
    kept = read(language)
    kept.update(template(), no_fuzzy_matching=True, update_creation_date=False)
    write(kept, language, tmp_path)
    assert {message.id: message.string for message in read(language, tmp_path)} == {
        message.id: message.string for message in read(language)
    }
    ours = (Path(__file__).parents[3] / "runtime/language/catalogues" / f"{language}.po").read_text()
    assert "FULL NAME" not in ours
    assert "#, fuzzy" not in ours


def test_template__has_both_kinds_of_call_wherever_they_stand(tmp_path: Path) -> None:
    code(
        tmp_path,
        """
        HELP = {"start": lambda say: say("Start")}
        async def answer(self, say: Texts, n: int) -> str:
            told = [say("One " "and two {name}", name=say("nested")), await x(say('''Three'''))]
            return f"{say.count('{n} file', '{n} files', n)} {told}"
        """,
    )
    code(tmp_path, "say('Of a door')", "serve_apps/door.py")
    assert found(tmp_path) == {"Start", "One and two {name}", "nested", "Three", PLURAL, "Of a door"}


def test_template__passes_over_what_is_no_text_of_ours(tmp_path: Path) -> None:
    code(tmp_path, "view.say(text); say.credits(5); say; essay('x'); x.say.count(a); [].count('x')")
    code(tmp_path, "say(anything)", "cluster/simulator/scenarios/shop/main.py")
    code(tmp_path, "say(anything)", "tests/test_chat.py")
    assert found(tmp_path) == set()


@pytest.mark.parametrize(
    "call",
    [
        "say(text)",
        "say(f'Hello {name}')",
        "say('a' + b)",
        "say('a' if b else 'c')",
        "say()",
        "say('')",
        "say(*texts)",
        "say(b'bytes')",
        "say(message='x')",
        "say.count('{n} file', many, n)",
        "say.count('{n} file')",
    ],
)
def test_template__refuses_what_cannot_be_translated(tmp_path: Path, call: str) -> None:
    with pytest.raises(BadInputError, match=r"runtime/chat.py: line 2 .* literal"):
        template(code(tmp_path, f"\n{call}\n"))


@pytest.fixture
def texts(tmp_path: Path) -> Catalog:
    return template(code(tmp_path, "say('<b>Hi</b> {name}'); say.count('{n} file', '{n} files', n)"))


def test_faults__are_none_where_all_is_translated(texts: Catalog) -> None:
    assert faults(catalogue("pl", **{"<b>Hi</b> {name}": "{name}, <b>cześć</b>"}), texts) == []
    assert faults(catalogue("ru", **{"<b>Hi</b> {name}": "<b>Привет</b>, {name}"}), texts) == []


@pytest.mark.parametrize(
    ("translation", "fault"),
    [
        ("", "is not translated"),
        (" \n", "is not translated"),
        ("<b>cześć</b>", "has other placeholders"),
        ("<b>cześć</b> {nazwa}", "has other placeholders"),
        ("<b>cześć</b> {name} {more}", "has other placeholders"),
        ("<b>cześć</b> {name!r}", "has other placeholders"),
        ("<b>cześć</b> {name.x}", "has other placeholders"),
        ("<b>cześć</b> {name", "has other placeholders"),
        ("<b>cześć {name}", "has other tags"),
        ("<i>cześć</i> {name}", "has other tags"),
    ],
)
def test_faults__name_a_translation_that_differs(texts: Catalog, translation: str, fault: str) -> None:
    (only,) = faults(catalogue(**{"<b>Hi</b> {name}": translation}), texts)
    assert only.startswith(f"'<b>Hi</b> {{name}}' {fault}")


def test_faults__name_what_is_missing_unused_and_unsure(texts: Catalog) -> None:
    kept = catalogue(Old="Stary")
    assert faults(kept, texts) == ["'<b>Hi</b> {name}' is missing", "'Old' is not used"]
    kept = catalogue()
    kept.add("<b>Hi</b> {name}", "<b>cześć</b> {name}", flags=["fuzzy"])
    assert faults(kept, texts) == ["'<b>Hi</b> {name}' is fuzzy"]


def test_faults__name_what_was_set_aside(tmp_path: Path) -> None:
    write(catalogue(), "pl", tmp_path)
    with (tmp_path / "pl.po").open("a") as file:
        file.write('\n#~ msgid "Old"\n#~ msgstr "Stary"\n')
    assert "'Old' is not used" in faults(read("pl", tmp_path), catalogue())


def test_faults__name_a_source_text_that_cannot_be_filled(tmp_path: Path) -> None:
    texts = template(code(tmp_path, "say('{a')"))
    made = Catalog(locale="pl")
    made.add("{a", "{a")
    assert faults(made, texts) != []


@pytest.mark.parametrize(
    ("language", "forms", "fault"),
    [
        ("pl", ("plik", "{n} pliki"), "has 2 plural forms; there are 3"),
        ("pl", ("plik", "{n} pliki", ""), "is not translated"),
        ("pl", ("plik", "pliki", "{n} plików"), "has other placeholders in 'pliki'"),
        ("ru", ("файл", "{n} файла", "{n} файлов"), "has other placeholders in 'файл'"),
    ],
)
def test_faults__name_wrong_plural_forms(tmp_path: Path, language: str, forms: tuple[str, ...], fault: str) -> None:
    texts = template(code(tmp_path, "say.count('one file', '{n} files', n)"))
    made = Catalog(locale=language)
    made.add(("one file", "{n} files"), forms)
    assert faults(made, texts) == [f"'one file' / '{{n}} files' {fault}"]


@pytest.mark.parametrize(
    ("rule", "fault"),
    [("nplurals=2; plural=n != 1;", "the header says 2"), ("nplurals=3; plural=n % 3;", "the header's rule")],
)
def test_faults__name_a_header_with_the_rule_of_another_language(tmp_path: Path, rule: str, fault: str) -> None:
    write(catalogue(), "pl", tmp_path)
    file = tmp_path / "pl.po"
    head, _, rest = file.read_text().partition('"Plural-Forms')
    file.write_text(
        f'{head}"Plural-Forms: {rule}\\n"\n{rest[rest.index(chr(34) + "MIME") :]}'.replace("msgstr[2]", "#")
    )
    if "nplurals=3" in rule:
        write(catalogue(), "pl", tmp_path)
        file.write_text(file.read_text().replace("n == 1 ? 0 :", "n == 2 ? 0 :"))
    assert any(found.startswith(fault) for found in faults(read("pl", tmp_path), template(code(tmp_path, ""))))
