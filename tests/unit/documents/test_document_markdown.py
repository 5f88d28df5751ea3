from runtime.documents.markdown import sections_of
from runtime.documents.outline import SECTIONS_MAX

TEXT = """Before all.

# Install
Get it.

```sh
# no heading
```

## On *Linux* ##
Use apt.

# Use
Run it.
"""


def test_section__stands_under_its_headings() -> None:
    assert [(section.heading, section.start_line) for section in sections_of(TEXT)] == [
        ("", 1),
        ("Install", 3),
        ("Install > On *Linux*", 10),
        ("Use", 13),
    ]


def test_heading__inside_code_is_code() -> None:
    (install,) = [section for section in sections_of(TEXT) if section.heading == "Install"]
    assert install.text == "Install\nGet it.\n\n```sh\n# no heading\n```\n\n"


def test_heading__of_a_deeper_level_ends_with_the_chapter() -> None:
    assert sections_of("# A\n### B\n# C\n## D\nText.")[-1].heading == "C > D"


def test_headings__beyond_the_bound_are_text() -> None:
    sections = sections_of("# a\n" * (SECTIONS_MAX + 500))
    assert len(sections) == SECTIONS_MAX
    assert sum(section.text.count("a") for section in sections) == SECTIONS_MAX + 500
