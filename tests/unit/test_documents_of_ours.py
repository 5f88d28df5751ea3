"""The documents that describe this repository name only what is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATH = re.compile(r"`((?:runtime|actors|serve_apps|cluster|tests)/[\w./-]*)`")


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "README.md"])
def test_path__that_a_document_names_exists(document: str) -> None:
    named = set(PATH.findall((ROOT / document).read_text()))
    assert named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_code_map__tells_of_every_package_of_runtime() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    packages = [folder.name for folder in (ROOT / "runtime").iterdir() if (folder / "__init__.py").exists()]
    assert [name for name in packages if f"runtime/{name}/" not in text] == []


def test_code_map__modules_of_a_row_stand_in_its_folder() -> None:
    """A row may name siblings without their folder: `runtime/project/finishing.py`, `documents.py`."""
    for line in (ROOT / "ARCHITECTURE.md").read_text().splitlines():
        folder = None
        for name in re.findall(r"`([\w./-]+)`", line):
            if "/" in name:
                folder = ROOT / name if name.endswith("/") else (ROOT / name).parent
            elif name.endswith(".py") and folder is not None:
                assert (folder / name).exists(), (name, line)
