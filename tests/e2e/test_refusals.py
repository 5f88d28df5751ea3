"""What a build refuses through the real doors: each with its words and exit status, and nothing charged."""

import json

import httpx
import pytest
from openai import BadRequestError, OpenAI

from cluster.client import Client
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


@pytest.fixture(scope="module")
def able(up: Live) -> Live:
    """Started again, with all that a build needs."""
    up.run("down")
    assert up.run("up", **up.start_simulator()).returncode == 0
    return up


def test_brief_no_scenario_knows__fails_with_a_clear_text_and_costs_nothing(able: Live) -> None:
    failed = able.run("build", "A shop for second-hand bicycles with a map.", "--yes")
    assert failed.returncode == 1
    assert "scenario" in failed.stdout + failed.stderr
    assert "OPENAI_BASE_URL" in failed.stdout + failed.stderr
    me = able.client.me()
    assert (me.balance_ucredits, me.held_ucredits) == (100_000_000, 0)


def test_no_credits__is_refused_before_a_project_exists(able: Live) -> None:
    made = able.run("tokens", "create", "--user", "poor", "--role", "FULL_ACCESS", "--json")
    issued = json.loads(made.stdout)
    taken = {"user": "poor", "amount_credits": "-97", "reason": "for a test"}
    headers = {"Authorization": f"Bearer {able.client_token}"}
    httpx.post(f"{able.url}/api/v1/admin/credits", json=taken, headers=headers).raise_for_status()
    refused = able.run("build", *KNOWN, MASTERBUILDER_TOKEN=issued["token"])
    assert refused.returncode == 3, refused.stderr
    assert "at least 10 free credits" in refused.stderr
    assert Client(able.url, issued["token"]).projects() == []


def test_ollama_address__is_asked_by_the_same_command(able: Live) -> None:
    up = able
    up.run("down")
    address = up.start_simulator()["OPENAI_BASE_URL"].removesuffix("/v1")
    models = {"ARCHITECT_MODEL": "ollama/qwen2.5-coder:14b", "IMPLEMENTER_MODEL": "ollama/qwen2.5-coder:7b"}
    assert up.run("up", OLLAMA_BASE_URL=address, **models).returncode == 0
    refused = up.run("build", *KNOWN)
    assert "ollama" in refused.stdout + refused.stderr
    assert refused.returncode in (1, 3)
