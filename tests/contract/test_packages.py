"""Projects with dependencies in the real sandbox, with the real pip, npm and registries.

Needs bubblewrap, and an index of Python packages; the tests of npm need Node.js and its registry too.
"""

import json
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest

from runtime.errors import UnavailableError
from runtime.implementer.implementer import Implementer
from runtime.implementer.packages.cache import PackageCache
from runtime.implementer.packages.fetching import Fetcher
from runtime.implementer.packages.manifests import Manifests
from runtime.implementer.packages.refusal import ManifestRefusedError
from runtime.implementer.sandbox import Sandbox
from runtime.implementer.scratch import remove_tree
from runtime.implementer.work import CheckReport, CheckWork
from runtime.project.repository import Author
from tests.no_engine import NoEngine

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")

ANN = Author(name="Ann", email="ann@example.com")
BYTES_MAX = 256 << 20
PLAIN_PIP = "pip install -q -r requirements.txt"
LIBRARY = {
    "package.json": json.dumps(
        {"type": "module", "scripts": {"test": "node --test test/"}, "devDependencies": {"typescript": "5.9.3"}}
    ),
    "tsconfig.json": json.dumps(
        {"compilerOptions": {"outDir": "dist", "rootDir": "src", "module": "NodeNext", "strict": True}}
    ),
    "src/index.ts": "export const next = (x: number): number => x + 1;\n",
    "test/next.test.mjs": (
        "import assert from 'node:assert';\nimport test from 'node:test';\nimport { next } from '../dist/index.js';\n"
        "test('next', () => assert.equal(next(1), 2));\n"
    ),
}


class Place:
    """A node: its cache, and an implementer that checks projects."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fetcher = CountingFetcher(bytes_max=BYTES_MAX)
        self.cache = PackageCache(folder / "packages", fetcher=self.fetcher, bytes_max=BYTES_MAX)
        self.implementer = self.worker(self.cache)
        self._number = 0

    def worker(self, cache: PackageCache | None) -> Implementer:
        return Implementer(sandbox=Sandbox(), engine=NoEngine(), scratch_dir=self.folder / "scratch", packages=cache)

    async def check(
        self, files: Mapping[str, str], *commands: str, install: str = "", worker: Implementer | None = None
    ) -> CheckReport:
        tree = {path: text.encode() for path, text in files.items()}
        work = CheckWork(tree=tree, commands=commands, install=install, keep_going=True)
        try:
            return await (worker or self.implementer).check(work)
        except UnavailableError as error:
            pytest.skip(error.message)


class CountingFetcher(Fetcher):
    fetches = 0

    async def fetch(self, manifests: Manifests, folder: Path):  # type: ignore[no-untyped-def]
        self.fetches += 1
        return await super().fetch(manifests, folder)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    (tmp_path / "scratch").mkdir()
    yield Place(tmp_path)
    await remove_tree(tmp_path / "packages")


def fetcher(**environment: str) -> Fetcher:
    return Fetcher(bytes_max=BYTES_MAX, environment={"PATH": os.environ["PATH"], **environment})


def requirements(text: str) -> Manifests:
    return Manifests.read({"requirements.txt": text.encode()})


async def test_python__installs_offline_as_its_readme_says(place: Place) -> None:
    files = {"requirements.txt": "tabulate==0.9.0\n", "app.py": "import tabulate; print(tabulate.tabulate([[1]]))\n"}
    report = await place.check(
        files,
        "python3 app.py",
        "pip --version | cut -d' ' -f1",
        "pip install -q requests || echo refused",
        "touch /packages/wheels/x || rm app.py",
        "python3 app.py",
        install=PLAIN_PIP,
    )
    passed = [result.passed for result in report.results]
    assert passed == [True, True, True, True, False], report.text()
    assert "refused" in report.results[2].output
    assert [(each.registry, each.name, each.version, each.licence) for each in report.packages] == [
        ("pypi", "tabulate", "0.9.0", "MIT")
    ]
    # what one work did to its tree and its environment, the next one does not see; nothing is fetched or made again
    tampered = await place.check(files, "rm -r /opt/python/lib/python3*/site-packages/tabulate", install=PLAIN_PIP)
    assert tampered.passed
    again = await place.check({**files, "new.txt": "x"}, "python3 app.py", install=PLAIN_PIP)
    assert again.passed, again.text()
    assert place.fetcher.fetches == 1
    assert len(list((place.folder / "packages" / "installed").glob("[0-9a-f]*"))) == 1


async def test_python__starts_from_an_empty_environment(place: Place) -> None:
    report = await place.check({"a.py": ""}, "python3 -c 'import pytest'", "python3 -c 'import ray'", "python3 -V")
    assert [result.passed for result in report.results] == [False, False, True]
    assert report.results[2].output == f"Python {sys.version.split()[0]}\n"
    assert place.fetcher.fetches == 0


async def test_refused_manifest__is_a_red_check_that_names_the_line(place: Place) -> None:
    report = await place.check({"requirements.txt": "tabulate\n-e git+https://x.example/y\n"}, "true")
    assert not report.passed
    assert "requirements.txt, line 2: `-e git+https://x.example/y` is refused" in report.text()


async def test_package_that_does_not_exist__is_a_red_check(place: Place) -> None:
    files = {"requirements.txt": "masterbuilder-no-such-package-7a1==1.0\n"}
    report = await place.check(files, "true")
    assert not report.passed
    assert "masterbuilder-no-such-package-7a1" in report.text()


async def test_packages_not_allowed__is_a_red_check_only_where_some_are_needed(place: Place) -> None:
    without = place.worker(None)
    needing = await place.check({"requirements.txt": "tabulate\n"}, "true", worker=without)
    assert "PACKAGES_ALLOWED=false" in needing.text()
    project = {"pyproject.toml": "[project]\nname = 'x'\nversion = '1'\n"}
    assert (await place.check(project, "true", install="true", worker=without)).passed


async def test_failed_install__is_red_once_there_is_a_manifest(place: Place) -> None:
    assert (await place.check({"a.txt": ""}, "true", install="npm ci")).passed
    report = await place.check({"requirements.txt": "# nothing\n", "a.txt": ""}, "true", install="cat missing")
    assert [(result.command, result.passed) for result in report.results] == [("cat missing", False)]


async def test_install_that_reads_the_tree__sees_each_tree(place: Place) -> None:
    for word in ("one", "two"):
        files = {"requirements.txt": "# nothing\n", "source.txt": word}
        report = await place.check(files, "cat made.txt", install="cp source.txt made.txt")
        assert report.results[0].output == word


@pytest.fixture
def dead_port() -> Iterator[int]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


async def test_index_that_is_down__is_an_outage_and_no_verdict(dead_port: int, tmp_path: Path) -> None:
    down = fetcher(PIP_INDEX_URL=f"http://127.0.0.1:{dead_port}/simple", PIP_CONFIG_FILE="/dev/null")
    with pytest.raises(UnavailableError, match=r"requirements\.txt"):
        await down.fetch(requirements("tabulate"), tmp_path)


@needs_npm
async def test_npm_registry_that_is_down__is_an_outage_and_no_verdict(dead_port: int, tmp_path: Path) -> None:
    down = fetcher(npm_config_registry=f"http://127.0.0.1:{dead_port}/", npm_config_fetch_retries="0", HOME="/")
    manifests = Manifests.read({"package.json": b'{"dependencies": {"left-pad": "1.3.0"}}'})
    with pytest.raises(UnavailableError, match=r"package\.json"):
        await down.fetch(manifests, tmp_path)


@pytest.mark.parametrize("bytes_max", [10_000, 40_000])
async def test_fetch__of_too_much_is_the_manifests_fault(bytes_max: int, tmp_path: Path) -> None:
    """One file is over the bound, or all together are."""
    small = Fetcher(bytes_max=bytes_max)
    with pytest.raises(ManifestRefusedError, match="more than"):
        await small.fetch(requirements("tabulate==0.9.0\nwcwidth\ncolorama\n"), tmp_path)


async def test_fetch__that_takes_too_long_is_an_outage(tmp_path: Path) -> None:
    quick = Fetcher(bytes_max=BYTES_MAX, fetch_s_max=0.01)
    with pytest.raises(UnavailableError, match="took too long"):
        await quick.fetch(requirements("tabulate==0.9.0"), tmp_path)


@needs_npm
async def test_typescript__installs_builds_and_tests_offline(place: Place) -> None:
    report = await place.check(LIBRARY, "npx tsc", "npm test", "npm ci && npx tsc --version", install="npm install")
    assert report.passed, report.text()
    assert report.results[2].output.endswith("Version 5.9.3\n")
    assert [(each.name, each.version, each.licence, each.development) for each in report.packages] == [
        ("typescript", "5.9.3", "Apache-2.0", True)
    ]
    wrong = {**LIBRARY, "src/index.ts": "export const next = (x: number): string => x + 1;\n"}
    red = await place.check(wrong, "npx tsc --noEmit", "npm install left-pad", install="npm install")
    assert "TS2322" in red.results[0].output
    assert "left-pad" in red.results[1].output
    assert not any(result.passed for result in red.results)
    assert place.fetcher.fetches == 1
