"""Imports run one way: runtime <- actors <- serve_apps <- cluster."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = ("runtime", "actors", "serve_apps", "cluster")


def imported(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("layer", LAYERS)
def test_layer__imports_nothing_that_stands_above_it(layer: str) -> None:
    forbidden = set(LAYERS[LAYERS.index(layer) + 1 :]) | ({"ray"} if layer == "runtime" else set())
    files = [file for file in (ROOT / layer).rglob("*.py") if "scenarios" not in file.parts]
    assert files, f"{layer} has no files"
    guilty = {str(file.relative_to(ROOT)): found for file in files if (found := imported(file) & forbidden)}
    assert not guilty
