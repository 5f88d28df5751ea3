"""What the product writes and reads without a model."""

import io
import zipfile

from runtime.implementer.work import CheckReport, CommandResult
from runtime.project import prompts
from runtime.project.documents import exempt_commands, missing_sections, readme_commands
from runtime.project.package import pack
from runtime.project.schemas import Commands

README = """# Thing
```sh
git clone https://example.invalid/thing.git
cd thing
$ python3 thing.py add \\
    --amount 3
# a comment
docker compose up
python3 -m unittest
```
```python
print("not a command")
```
"""


def test_readme_commands__are_literal_joined_and_without_clone_and_containers() -> None:
    assert readme_commands(README) == ["python3 thing.py add --amount 3", "python3 -m unittest"]


def test_exempt_commands__are_clones_containers_and_deployments_and_what_only_follows_a_clone() -> None:
    assert exempt_commands(README) == ["git clone https://example.invalid/thing.git", "cd thing", "docker compose up"]
    mixed = "```sh\ngit clone URL x && cd x && make\ncd src && make\nfly deploy; echo done\ndockerize\n```"
    assert readme_commands(mixed) == ["make", "cd src && make", "echo done", "dockerize"]
    assert exempt_commands(mixed) == ["git clone URL x && cd x", "fly deploy"]
    odd = "```sh\ndocker logs x 2>&1 | tail -3\ndocker run x || make\naz-tool go\nssh host &\n```"
    assert readme_commands(odd) == ["docker run x || make", "az-tool go"]


def test_missing_sections__are_those_without_a_heading_or_without_text() -> None:
    whole = (
        "# Thing\nIt does things.\n## Prerequisites\nNone.\n## Installation\n### With pip\npip.\n"
        "## Configuration\nNone.\n## Running\nRun it.\n## Features\nMany.\n"
    )
    assert missing_sections(whole) == []
    assert missing_sections(whole.replace("It does things.\n", "")) == ["overview"]
    assert missing_sections(whole.replace("## Running\nRun it.\n", "## Running\n")) == ["running"]
    assert missing_sections("```sh\n# Overview\n## Usage\ntext\n```") == [
        "overview", "prerequisites", "installation", "configuration", "running", "features and usage",
    ]  # fmt: skip


def test_pack__leaves_out_secrets_and_caches_and_is_the_same_each_time() -> None:
    files = {
        "README.md": b"hello",
        ".env": b"TOKEN=1",
        ".env.example": b"TOKEN=",
        "src/__pycache__/a.pyc": b"x",
        "src/key.txt": b"-----BEGIN RSA PRIVATE KEY-----",
        ".code_index/x": b"x",
    }
    packed = pack(files)
    assert packed.sha256 == pack(dict(reversed(files.items()))).sha256
    with zipfile.ZipFile(io.BytesIO(packed.data)) as archive:
        assert archive.namelist() == ["generated_project/.env.example", "generated_project/README.md"]
    assert packed.left_out == (".code_index/x", ".env", "src/__pycache__/a.pyc", "src/key.txt")


def test_steady__the_same_checks_read_the_same_whatever_the_clock_says() -> None:
    def report(seconds: str, place: str) -> CheckReport:
        output = f"Ran 3 tests in {seconds}s at {place} <object at 0x7f00{seconds.replace('.', '')}aa>"
        return CheckReport(results=[CommandResult(command="t", exit_status=0, duration_s=1.0, output=output)])

    assert prompts.steady(report("0.123", "/tmp/abc1")) == prompts.steady(report("0.456", "/tmp/zzz9"))


def test_test_command__names_the_files_or_is_nothing() -> None:
    commands = Commands(install="", build="", test="python3 -m unittest {tests}", run="true")
    assert prompts.test_command(commands, ["tests/a.py", "tests/b.py"]) == "python3 -m unittest tests/a.py tests/b.py"
    assert prompts.test_command(commands, []) == ""
    assert prompts.test_command(commands.model_copy(update={"test": "make test"}), []) == "make test"
