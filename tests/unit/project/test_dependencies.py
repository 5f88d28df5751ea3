"""What a project is built on, read from its manifests."""

import json

from runtime.project.dependencies import UNKNOWN, dependencies, dependencies_document

LOCK = {
    "packages": {
        "": {"name": "app"},
        "node_modules/left-pad": {"version": "1.3.0", "license": "WTFPL"},
        "node_modules/a/node_modules/@scope/b": {"version": "2.0.0", "license": "GPL-3.0"},
    }
}
FILES = {
    "requirements.txt": b"# tools\nRequests[socks]==2.32.0  # http\n-r other.txt\nflask >= 3 ; python_version > '3'\n",
    "backend/requirements-dev.txt": b"pytest\n",
    "pyproject.toml": b"[project]\ndependencies = ['PyYAML~=6.0']\noptional-dependencies = {a = ['rich']}\n",
    "package.json": json.dumps({"dependencies": {"left-pad": "^1.0"}, "devDependencies": {"vite": "5"}}).encode(),
    "package-lock.json": json.dumps(LOCK).encode(),
    "broken/package.json": b"{",
    "odd/package.json": b'{"dependencies": ["a"]}',
}


def test_dependencies__are_read_from_every_manifest_and_the_lock_file_knows_best() -> None:
    found = {(each.kind, each.name): each for each in dependencies(FILES)}
    assert {key: each.version for key, each in found.items()} == {
        ("npm", "@scope/b"): "2.0.0",
        ("npm", "left-pad"): "1.3.0",
        ("npm", "vite"): "5",
        ("pypi", "flask"): ">= 3",
        ("pypi", "pytest"): "",
        ("pypi", "pyyaml"): "~=6.0",
        ("pypi", "requests"): "2.32.0",
        ("pypi", "rich"): "",
    }
    assert found["npm", "left-pad"].licence == "WTFPL"


def test_licences__that_are_known_elsewhere_are_taken_and_the_rest_are_named() -> None:
    found = dependencies(FILES, {"pypi/requests": "Apache-2.0", "pypi/flask": "BSD-3-Clause"})
    by_name = {each.name: each for each in found}
    assert by_name["requests"].licence == "Apache-2.0"
    assert (by_name["pytest"].licence, by_name["pytest"].needs_care) == (UNKNOWN, True)
    text = dependencies_document(found)
    assert "| requests (pypi) | 2.32.0 | Apache-2.0 | `requirements.txt` |" in text
    care = text.splitlines()[-1]
    assert "@scope/b" in care
    assert "flask" not in care


def test_dependencies__of_a_project_without_manifests_are_none() -> None:
    assert "None" in dependencies_document(dependencies({"README.md": b"x"}))
