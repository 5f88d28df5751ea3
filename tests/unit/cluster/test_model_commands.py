"""The catalogue by the command: what it sends, what it shows, and what it refuses before it asks anybody."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_door import FakeDoor, Run

from cluster.model_commands import models
from cluster.terminal import CommandGroup

LINE = {
    "id": "openai/gpt-4o", "built_in": False, "input_cost_per_million_tokens": "3",
    "output_cost_per_million_tokens": "10", "context_tokens": 128000, "abilities": ["chat", "tools"],
    "profiles": ["smart"], "tier": "", "is_active": True, "effective_from": "2026-12-01T00:00:00Z",
}  # fmt: skip
ROUTE = "POST /api/v1/admin/models"


@pytest.fixture
def run(door: FakeDoor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    group = CommandGroup(commands={"models": models})
    variables = {"DATA_DIR": str(tmp_path / "data"), "MASTERBUILDER_URL": door.url, "MASTERBUILDER_TOKEN": "mb-test"}
    return lambda *arguments: CliRunner(env={**os.environ, **variables}).invoke(group, ["models", *arguments])


def test_list__shows_price_and_abilities_and_as_json_everything(run: Run, door: FakeDoor) -> None:
    off = {**LINE, "id": "groq/x", "is_active": False}
    door.says("GET /api/v1/admin/models", {"models": [LINE, off], "upcoming": []})
    shown = run("list").stdout
    assert "openai/gpt-4o" in shown
    assert "128,000" in shown
    assert "off" in shown
    assert json.loads(run("list", "--json").stdout)["models"] == [
        {"image_input_cost_per_image": None, **LINE},
        {"image_input_cost_per_image": None, **off},
    ]
    assert "groq" not in run("list", "--provider", "openai").stdout


def test_set__sends_only_what_was_said(run: Run, door: FakeDoor) -> None:
    door.says(ROUTE, {"models": [LINE]})
    result = run("set", "OpenAI/gpt-4o", "--input", "3", "--ability", "chat", "--ability", "tools")
    assert result.exit_code == 0, result.output
    sent = {
        "provider": "openai", "model": "gpt-4o", "input_cost_per_million_tokens": "3",
        "currency": "USD", "is_active": True, "abilities": ["chat", "tools"],
    }  # fmt: skip
    assert door.asked[0][2] == {"models": [sent]}
    assert "openai/gpt-4o: 3 / 10 USD per million tokens, from 2026-12-01" in result.stdout


def test_set_off__takes_a_model_out(run: Run, door: FakeDoor) -> None:
    door.says(ROUTE, {"models": [{**LINE, "is_active": False}]})
    assert "switched off" in run("set", "openai/gpt-4o", "--off").stdout
    assert door.asked[0][2]["models"][0]["is_active"] is False


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("gpt-4o",), "not provider/model"),
        (("openai/gpt-4o", "--input", "lots"), "input_cost_per_million_tokens must be an amount in USD"),
        (("openai/gpt-4o", "--from", "tomorrow"), "effective_from"),
        (("openai/a b",), "model must be a model's name"),
    ],
)
def test_set__of_what_cannot_be_meant_is_refused_at_once(run: Run, door: FakeDoor, arguments, says) -> None:
    result = run("set", *arguments)
    assert result.exit_code == 2
    assert says in result.stderr
    assert door.asked == []


def test_import__sends_the_whole_file(run: Run, door: FakeDoor, tmp_path: Path) -> None:
    door.says(ROUTE, {"models": [LINE, LINE]})
    (tmp_path / "prices.csv").write_text(
        "provider,model,input_cost_per_million_tokens\nopenai,gpt-4o,3\ngoogle,gemini-2.0-flash,0.2\n"
    )
    result = run("import", "prices.csv")
    assert result.exit_code == 0, result.output
    assert [(row["provider"], row["input_cost_per_million_tokens"]) for row in door.asked[0][2]["models"]] == [
        ("openai", "3"),
        ("gemini", "0.2"),
    ]


def test_import_check__changes_nothing(run: Run, door: FakeDoor, tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text("- {provider: openai, model: x}\n")
    assert "can be imported: 1." in run("import", "prices.yaml", "--check").stdout
    assert door.asked == []


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.yaml", b"- provider: openai\n  model: x\n  currency: EUR\n", "line 3, currency"),
        ("p.json", b"[", "line 1"),
        ("p.txt", b"", "p.txt is no YAML"),
        ("p.csv", b"\xff\xfe", "UTF-8"),
    ],
)
def test_import__of_a_file_that_is_wrong_says_where(run: Run, door: FakeDoor, tmp_path, name, content, says) -> None:
    (tmp_path / name).write_bytes(content)
    result = run("import", name)
    assert result.exit_code == 2
    assert says in result.stderr
    assert door.asked == []
