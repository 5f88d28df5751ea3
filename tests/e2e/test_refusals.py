"""What a build refuses through the real doors: each with its words and exit status, and nothing charged."""

from pathlib import Path

import httpx
import pytest
from openai import BadRequestError, OpenAI

from cluster.simulator.scenario import SCENARIOS
from tests.e2e.live import Live

SCENARIO = SCENARIOS / "expense_tracker"
KNOWN = (str(SCENARIO / "brief.md"), "--answers", str(SCENARIO / "answers.yaml"), "--yes")


@pytest.fixture(scope="module")
def up(live: Live) -> Live:
    provider = live.start_simulator()
    started = live.run("up", **provider, AIDER_VENV=str(live.folder / "no-such-venv"))
    assert started.returncode == 0, started.stderr
    assert "Aider" in started.stdout + started.stderr
    return live


def test_missing_aider__refuses_the_build_before_anything_is_paid(up: Live) -> None:
    refused = up.run("build", *KNOWN)
    assert refused.returncode == 4
    assert "no-such-venv" in refused.stderr
    assert "masterbuilder doctor" in refused.stderr
    assert up.client.me().balance_ucredits == 100_000_000
    assert up.client.projects() == []


def test_unpriced_model__is_refused_by_the_gateway_in_the_callers_wire_format(up: Live) -> None:
    client = OpenAI(base_url=f"{up.url}/v1", api_key=up.client_token, max_retries=0)
    with pytest.raises(BadRequestError, match="provider/model") as refused:
        client.chat.completions.create(model="made-up", messages=[{"role": "user", "content": "hello"}])
    assert refused.value.request_id
    assert up.client.me().balance_ucredits == 100_000_000


@pytest.mark.parametrize("path", ["/api/v1/projects", "/api/v1/me", "/v1/models"])
@pytest.mark.parametrize("token", ["", "mb-wrong", "x" * 10_000])
def test_wrong_token__is_401_at_every_door(up: Live, path: str, token: str) -> None:
    answer = httpx.get(f"{up.url}{path}", headers={"Authorization": f"Bearer {token}"} if token else {})
    assert answer.status_code == 401
    error = answer.json()["error"]
    assert error["code"] == "not_authenticated"
    assert error["request_id"]
    assert "charged" in error


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"brief": "   "}, 400, "empty"),
        ({"brief": "x" * (1 << 20)}, 413, "bytes"),
        ({"brief": "an app", "answers": {"colour": "red"}}, 400, "audience"),
        ({"brief": "an app", "max_credits": "many"}, 400, "max_credits"),
        ({"brief": "an app", "unknown": 1}, 400, "unknown"),
    ],
)
def test_bad_order__is_refused_with_what_to_do(up: Live, body: dict[str, object], status: int, words: str) -> None:
    answer = httpx.post(f"{up.url}/api/v1/projects", json=body, headers={"Authorization": f"Bearer {up.client_token}"})
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]["message"]
    assert up.client.me().balance_ucredits == 100_000_000


def test_brief_no_scenario_knows__fails_with_a_clear_text_and_costs_nothing(up: Live) -> None:
    up.run("down")
    provider = up.start_simulator()
    assert up.run("up", **provider).returncode == 0
    failed = up.run("build", "A shop for second-hand bicycles with a map.", "--yes")
    assert failed.returncode == 1
    assert "scenario" in failed.stdout + failed.stderr
    assert "OPENAI_BASE_URL" in failed.stdout + failed.stderr
    me = up.client.me()
    assert (me.balance_ucredits, me.held_ucredits) == (100_000_000, 0)


def test_ollama_address__is_asked_by_the_same_command(up: Live) -> None:
    up.run("down")
    address = up.start_simulator()["OPENAI_BASE_URL"].removesuffix("/v1")
    models = {"ARCHITECT_MODEL": "ollama/qwen2.5-coder:14b", "IMPLEMENTER_MODEL": "ollama/qwen2.5-coder:7b"}
    assert up.run("up", OLLAMA_BASE_URL=address, **models).returncode == 0
    refused = up.run("build", *KNOWN)
    assert "ollama" in refused.stdout + refused.stderr
    assert refused.returncode in (1, 3)


def test_no_credits__is_refused_before_a_project_exists(tmp_path: Path) -> None:
    poor = Live.in_folder(tmp_path)
    try:
        provider = poor.start_simulator()
        assert poor.run("up", **provider, INITIAL_FREE_CREDITS="3").returncode == 0
        refused = poor.run("build", *KNOWN)
        assert refused.returncode == 3
        assert "at least 10 free credits" in refused.stderr
        assert poor.client.projects() == []
    finally:
        poor.close()
