"""What may be asked for in a manifest, and what is refused with its file and line."""

import json
from typing import Any

import pytest

from runtime.implementer.packages.install import reads_manifests_only
from runtime.implementer.packages.manifests import MANIFESTS_MAX, Manifests, is_read
from runtime.implementer.packages.refusal import ManifestRefusedError

SHA = "sha512-" + "A" * 86 + "=="
FROM_REGISTRY = {"version": "5.9.3", "resolved": "https://registry.npmjs.org/typescript/-/a.tgz", "integrity": SHA}


def read(**files: str) -> Manifests:
    return Manifests.read({path: text.encode() for path, text in files.items()})


def requirements(text: str) -> Manifests:
    return read(**{"requirements.txt": text})


def npm(**package: Any) -> dict[str, str]:
    return {"package.json": json.dumps(package, indent=1)}


def lock(entry: object, place: str = "node_modules/typescript", **top: Any) -> dict[str, str]:
    text = json.dumps({"lockfileVersion": 3, "packages": {"": {}, place: entry}, **top}, indent=1)
    return {**npm(devDependencies={"typescript": "^5"}), "package-lock.json": text}


@pytest.mark.parametrize(
    "line",
    [
        "git+https://github.com/x/y.git",
        "flask @ https://evil.example/flask.whl",
        "flask@file:///etc/passwd",
        "https://evil.example/flask-1.0-py3-none-any.whl",
        "file:///etc/passwd",
        "./local",
        "../up",
        "/etc",
        "local/flask",
        "flask-1.0-py3-none-any.whl",
        "flask.zip",
        "-e .",
        "-e git+https://github.com/x/y#egg=y",
        "--editable=.",
        "--index-url https://evil.example/simple",
        "-i https://evil.example/simple",
        "--extra-index-url=https://evil.example/simple",
        "--find-links /etc",
        "-f https://evil.example",
        "--trusted-host evil.example",
        "--no-binary :all:",
        "--pre",
        "-c constraints.txt",
        "-r https://evil.example/requirements.txt",
        "-r ../../etc/passwd.txt",
        "-r /etc/passwd",
        "-r missing.txt",
        'flask --global-option="--x"',
        "flask --config-settings x=y",
        "flask; evil",
        "flask>=1 && curl evil.example",
        "flask`id`",
        "${SECRET}",
        "flask; python_version > '${SECRET}'",
        "flask>=not,a,version",
        "flask\x00",
        "--hash=sha256:" + "a" * 64,
    ],
)
def test_requirements__of_anything_but_names_are_refused_with_their_line(line: str) -> None:
    with pytest.raises(ManifestRefusedError) as refused:
        requirements(f"# comment\n\nclick>=8\n{line}\n")
    assert refused.value.message.startswith("requirements.txt, line 4: ")


def test_requirements__are_written_anew() -> None:
    text = (
        "\ufeffFlask[async] >=3 , <4   # web\n"
        "tabulate==0.9.0 \\\n    --hash=sha256:" + "a" * 64 + " \\\n    --hash=sha256:" + "b" * 64 + "\n"
        "colorama; sys_platform == 'win32'\r\n"
        "-r more/base_requirements.txt\n"
    )
    manifests = read(**{"requirements.txt": text, "more/base_requirements.txt": "click\n-r ../requirements.txt\n"})
    (manifest,) = manifests.python
    assert list(manifest.requirements) == [
        "Flask[async]<4,>=3",
        "tabulate==0.9.0",
        'colorama; sys_platform == "win32"',
        "click",
    ]
    assert set(manifests.files) == {"requirements.txt", "more/base_requirements.txt"}


def test_manifests__are_found_at_the_root_and_one_folder_below() -> None:
    files = ("requirements-dev.txt", "requirements/test.txt", "backend/requirements.txt", "api/pyproject.toml")
    ignored = ("a/b/requirements.txt", "node_modules/requirements.txt", ".venv/requirements.txt", "notes.txt")
    contents = dict.fromkeys((*files, *ignored), "x") | {"api/pyproject.toml": '[project]\ndependencies=["x"]'}
    manifests = read(**contents)
    assert set(manifests.files) == set(files)
    assert {each.path: each.purpose for each in manifests.python if each.purpose != "build"} == {
        "requirements-dev.txt": "development",
        "requirements/test.txt": "development",
        "backend/requirements.txt": "run",
        "api/pyproject.toml": "run",
    }
    assert all(is_read(path) for path in files)


def test_pyproject__gives_what_it_runs_is_tested_and_built_with() -> None:
    text = """
[project]
name = "My_App"
dependencies = ["flask>=3"]
[project.optional-dependencies]
all = ["my-app[extra]"]
extra = ["rich"]
[dependency-groups]
test = ["pytest", {include-group = "lint"}]
lint = ["ruff"]
[build-system]
requires = ["hatchling"]
"""
    manifests = read(**{"pyproject.toml": text})
    assert {each.purpose: list(each.requirements) for each in manifests.python} == {
        "run": ["flask>=3"],
        "development": ["rich", "pytest", "ruff"],
        "build": ["hatchling"],
    }
    assert not manifests.need_nothing
    assert read(**{"pyproject.toml": '[project]\nname = "x"'}).need_nothing
    assert read(**{"pyproject.toml": "[tool.ruff]\nline-length = 100"}).ask_for_nothing


@pytest.mark.parametrize(
    "text",
    [
        '[project]\ndependencies = ["x @ git+https://evil.example/x"]',
        '[project]\ndependencies = ["x", "./y"]',
        '[project]\ndependencies = "x"',
        "[project]\ndependencies = [1]",
        '[project.optional-dependencies]\na = ["-e ."]',
        '[dependency-groups]\na = ["https://evil.example/x.whl"]',
        '[build-system]\nrequires = ["x @ file:///x"]',
        "[tool.uv.sources]\nx = { path = '../x' }",
        '[[tool.uv.index]]\nurl = "https://evil.example"',
        '[[tool.poetry.source]]\nname = "evil"',
        '[tool.poetry.dependencies]\npython = "^3.11"\nx = { git = "https://evil.example" }',
        "[project",
        f"[project]\ndependencies = [{', '.join(f'{chr(34)}p{n}{chr(34)}' for n in range(201))}]",
        "#" * (300 << 10),
    ],
)
def test_pyproject__that_leads_elsewhere_is_refused(text: str) -> None:
    with pytest.raises(ManifestRefusedError, match=r"^pyproject\.toml"):
        read(**{"pyproject.toml": text})


@pytest.mark.parametrize(
    "version",
    [
        "https://evil.example/x.tgz",
        "http://evil.example/x",
        "git+ssh://git@evil.example/x.git",
        "git://evil.example/x",
        "github:evil/x",
        "evil/x",
        "evil/x#main",
        "file:../x",
        "link:../x",
        "./x",
        "../x",
        "~/x",
        "/etc",
        "x.tgz",
        "package.tar.gz",
        "npm:evil@1",
        "workspace:*",
        "C:\\x",
        7,
        None,
        {"version": "1"},
    ],
)
@pytest.mark.parametrize("kind", ["dependencies", "devDependencies", "optionalDependencies", "peerDependencies"])
def test_package_json__with_anything_but_versions_is_refused(kind: str, version: object) -> None:
    with pytest.raises(ManifestRefusedError, match=r"^package\.json, line 3: `left-pad"):
        read(**npm(**{kind: {"left-pad": version}}))


@pytest.mark.parametrize(
    "files",
    [
        npm(workspaces=["packages/*"]),
        npm(dependencies={"../x": "1"}),
        npm(dependencies={"@evil/../x": "1"}),
        npm(dependencies={"-g": "1", " ": "1"}),
        npm(dependencies=["x"]),
        npm(dependencies={f"p{n}": "1" for n in range(201)}),
        npm(dependencies={"a": "1"}, overrides={"b": "https://evil.example/x.tgz"}),
        npm(dependencies={"a": "1"}, overrides={"a": {"b": "file:x"}}),
        npm(dependencies={"a": "1"}, overrides={"b@git://evil.example": "1"}),
        {"package.json": "{"},
        {"package.json": "[]"},
        {"package.json": "[" * 100_000},
        {"package.json": " " * (300 << 10)},
        {**npm(dependencies={"a": "1"}), ".npmrc": "registry=https://evil.example\n"},
        {**npm(dependencies={"a": "1"}), ".npmrc": "@evil:registry=https://evil.example\n"},
        {**npm(dependencies={"a": "1"}), ".npmrc": "//registry.npmjs.org/:_authToken=${NPM_TOKEN}\n"},
        {**npm(dependencies={"a": "1"}), ".npmrc": "script-shell=/bin/evil\n"},
        {**npm(dependencies={"a": "1"}), ".npmrc": "ignore-scripts=false\n"},
        {**npm(dependencies={"a": "1"}), ".npmrc": "save-prefix=${SECRET}\n"},
        lock({**FROM_REGISTRY, "resolved": "https://evil.example/typescript.tgz"}),
        lock({**FROM_REGISTRY, "resolved": "https://registry.npmjs.org.evil.example/x.tgz"}),
        lock({**FROM_REGISTRY, "resolved": "https://registry.npmjs.org/../evil"}),
        lock({**FROM_REGISTRY, "resolved": "git+ssh://git@github.com/x/y.git#0"}),
        lock({**FROM_REGISTRY, "resolved": "file:../x"}),
        lock({**FROM_REGISTRY, "resolved": 7}),
        lock({**FROM_REGISTRY, "integrity": ""}),
        lock({**FROM_REGISTRY, "version": "https://evil.example/x.tgz"}),
        lock({"resolved": "packages/x", "link": True}),
        lock(FROM_REGISTRY, place="packages/x"),
        lock(FROM_REGISTRY, place="node_modules/../../x"),
        lock("x"),
        lock(FROM_REGISTRY, lockfileVersion=1),
        lock(FROM_REGISTRY, packages=[]),
        lock(FROM_REGISTRY, packages={f"node_modules/p{n}": FROM_REGISTRY for n in range(3_001)}),
    ],
)
def test_npm_manifest__that_leads_elsewhere_is_refused(files: dict[str, str]) -> None:
    with pytest.raises(ManifestRefusedError, match=r"^(package\.json|package-lock\.json|\.npmrc)(, line \d+)?: "):
        read(**files)


def test_npm_manifest__is_written_anew_without_scripts_and_settings() -> None:
    package = npm(
        name="lib",
        scripts={"postinstall": "curl evil.example"},
        dependencies={"@scope/a": "^1.0.0 || >=2 <3", "b": "latest", "c": "*", "d": ""},
        overrides={"b": "$b", "c@^1": {".": "1.2.3"}},
    )
    (manifest,) = read(**package, **{".npmrc": "# calm\nlegacy-peer-deps=true\nfund=false\n"}).npm
    assert json.loads(manifest.package) == {
        "name": "project",
        "version": "0.0.0",
        "dependencies": {"@scope/a": "^1.0.0 || >=2 <3", "b": "latest", "c": "*", "d": ""},
        "overrides": {"b": "$b", "c@^1": {".": "1.2.3"}},
    }
    assert manifest.npmrc == b"legacy-peer-deps=true"
    assert manifest.has_install_scripts


def test_npm_lock__may_lie_in_the_configured_registry_too() -> None:
    mirrored = lock({**FROM_REGISTRY, "resolved": "https://mirror.example/npm/typescript.tgz"})
    tree = {path: text.encode() for path, text in mirrored.items()}
    manifests = Manifests.read(tree, registries=("https://mirror.example/npm/",))
    assert json.loads(manifests.npm[0].lock)["lockfileVersion"] == 3
    (plain,) = read(**lock(FROM_REGISTRY)).npm
    assert plain.lock


def test_manifests__are_bounded_in_number() -> None:
    with pytest.raises(ManifestRefusedError, match=str(MANIFESTS_MAX)):
        read(**{f"d{n}/requirements.txt": "x" for n in range(MANIFESTS_MAX + 1)})


def test_manifests__ask_for_the_same_whatever_else_they_say() -> None:
    one = read(**npm(name="a", description="one", dependencies={"x": "1"}))
    two = read(**npm(name="b", description="two", dependencies={"x": "1"}))
    other = read(**npm(name="a", description="one", dependencies={"x": "2"}))
    assert list(one.parts()) == list(two.parts()) != list(other.parts())


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("python3 -m venv .venv && .venv/bin/pip install -q -r requirements.txt", True),
        ("python3 -m venv .venv && . .venv/bin/activate && pip install --upgrade pip -r requirements.txt", True),
        ("pip install -r requirements.txt -r requirements-dev.txt", True),
        ("pip install 'x' tabulate>=0.9", False),
        ("pip install tabulate==0.9.0 pytest", True),
        ("npm ci", True),
        ("npm ci --omit=dev && cd frontend && npm install", True),
        ("npm --prefix frontend ci", False),
        ("pip install .", False),
        ("pip install -e .", False),
        ("pip install -q .[dev]", False),
        ("pip install --editable .", False),
        ("pip install ./lib", False),
        ("pip install -r requirements.txt .", False),
        ("npm ci && npm run build", False),
        ("npm install ../x", False),
        ("pip install -r requirements.txt; cp -r src /tmp", False),
        ("make install", False),
        ("pip install -r requirements.txt && python setup.py develop", False),
        ("pip install -r $(cat x)", False),
        ("pip install" + " -q" * 160 + " !", False),
        ("pip install" + " -r x" * 90 + " !", False),
        ("npm ci" + " --a=b" * 80 + " !", False),
    ],
)
def test_install__is_used_again_only_if_it_reads_the_manifests_alone(command: str, expected: bool) -> None:
    assert reads_manifests_only(command, read(**npm(dependencies={"x": "1"}))) is expected


def test_install__by_npm_reads_the_tree_when_the_project_has_scripts_for_it() -> None:
    manifests = read(**npm(dependencies={"x": "1"}, scripts={"prepare": "tsc"}))
    assert not reads_manifests_only("npm ci", manifests)
    assert reads_manifests_only("pip install -r requirements.txt", manifests)
