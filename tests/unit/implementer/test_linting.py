"""Which languages' own checks of an edit are added, and that they tell good files from bad ones."""

import shutil
import subprocess
from pathlib import Path

import pytest

from runtime.implementer.linting import syntax_checks


def passes(folder: Path, path: str, text: str) -> bool:
    (folder / path).write_text(text)
    (command,) = syntax_checks([path], [path], [])
    return subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, check=False).returncode == 0


def test_python__that_cannot_be_read_is_red_and_leaves_nothing_behind(tmp_path: Path) -> None:
    assert passes(tmp_path, "it's.py", "def f(): return 1\n")
    assert not passes(tmp_path, "bad.py", "def f(: return 1\n")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["bad.py", "it's.py"]


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_javascript__that_cannot_be_read_is_red(tmp_path: Path) -> None:
    assert passes(tmp_path, "common.js", "module.exports = require('fs');\n")
    assert passes(tmp_path, "page.js", "import { a } from './b.js'; export const c = await a();\n")
    assert passes(tmp_path, "m.mjs", "export const c = 1;\n")
    assert not passes(tmp_path, "bad.js", "const = 1;\n")
    assert not passes(tmp_path, "bad.mjs", "export const = 1;\n")


@pytest.mark.parametrize(
    ("changed", "commands", "count"),
    [
        (["a.py"], ["python3 -m unittest"], 1),
        (["a.py"], ["python3 -m compileall -q src"], 0),
        (["a.py"], ["ruff check . && pytest"], 0),
        (["a.js"], ["node --test"], 1),
        (["a.js"], ["npx eslint ."], 0),
        (["a.ts"], ["node --test"], 1),
        (["a.ts"], ["npx tsc"], 0),
        (["a.ts"], ["npm run build"], 0),
        (["a.txt", "a.md", "py"], ["true"], 0),
        ([], ["true"], 0),
        (["a.py", "a.js", "a.ts"], ["true"], 3),
    ],
)
def test_checks__are_added_where_the_plan_names_none(changed: list[str], commands: list[str], count: int) -> None:
    assert len(syntax_checks(changed, ["tsconfig.json", "package.json", *changed], commands)) == count


def test_typescript__without_its_configuration_is_left_alone() -> None:
    assert syntax_checks(["a.ts"], ["a.ts", "package.json"], []) == []
