import base64
import json
import os
from datetime import UTC, datetime

import pytest

from runtime.catalogue.endpoints import Endpoint
from runtime.config import Secrets, Settings
from runtime.errors import BadInputError
from runtime.keys import office
from runtime.keys.environment import found_keys, import_variables
from runtime.keys.keys import key_id_of, open_key, seal_key
from runtime.keys.masters import MasterKeys, announce, fingerprint, parse_master
from runtime.keys.office import add_key, facts, rotate
from runtime.keys.pool import KeyState
from runtime.keys.quotas import Quota, parse_quotas
from runtime.testing.memory_ledger import MemoryLedger

ONE = Endpoint(provider="openai", base_url="http://x/v1", key="sk-one")
TWO = Endpoint(provider="deepseek", base_url="http://y", key="sk-two")


def master() -> str:
    return base64.b64encode(os.urandom(32)).decode()


@pytest.fixture
def ledger():
    return MemoryLedger(tariff=Settings().tariff, initial_free_ucredits=0)


async def open_all(ledger, folder, environment):
    masters = MasterKeys.load(folder, environment)
    return {open_key(key, *masters.all).key for key in await ledger.all_keys()}


async def test_rotation__of_a_master_key_of_ours_seals_all_anew(ledger, tmp_path):
    before = Secrets.load(tmp_path, {}).api_key_encryption_key
    await add_key(ledger, tmp_path, {}, ONE, "mine", "")
    await add_key(ledger, tmp_path, {}, TWO, "mine", '{"concurrency": 2}')
    rotated = await rotate(ledger, tmp_path, {}, None)
    after = Secrets.load(tmp_path, {}).api_key_encryption_key
    assert (rotated.keys, rotated.old_master, rotated.new_master) == (2, fingerprint(before), fingerprint(after))
    assert before != after
    assert {open_key(key, after).key for key in await ledger.all_keys()} == {"sk-one", "sk-two"}
    with pytest.raises(BadInputError):
        open_key((await ledger.all_keys())[0], before)
    assert [row.new_master for row in await ledger.key_rotations()] == [fingerprint(after)]
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "master_keys.json").exists()
    await rotate(ledger, tmp_path, {}, None)
    assert await open_all(ledger, tmp_path, {}) == {"sk-one", "sk-two"}


async def test_rotation__of_a_master_key_from_outside_is_open_to_old_and_new(ledger, tmp_path):
    old, new, newer = ({"API_KEY_ENCRYPTION_KEY": master()} for _ in range(3))
    await add_key(ledger, tmp_path, old, ONE, "mine", "")
    with pytest.raises(BadInputError, match="must be given"):
        await rotate(ledger, tmp_path, old, None)
    rotated = await rotate(ledger, tmp_path, old, parse_master(new["API_KEY_ENCRYPTION_KEY"]))
    assert rotated.is_from_environment
    await rotate(ledger, tmp_path, old, parse_master(newer["API_KEY_ENCRYPTION_KEY"]))
    await add_key(ledger, tmp_path, old, TWO, "mine", "")
    for environment in (old, new):
        assert await open_all(ledger, tmp_path, environment) == {"sk-one", "sk-two"}
    assert new["API_KEY_ENCRYPTION_KEY"] not in (tmp_path / "master_keys.json").read_text()
    assert await open_all(ledger, tmp_path, newer) == {"sk-one", "sk-two"}
    assert not (tmp_path / "master_keys.json").exists(), "nobody needs the old one's link any more"
    with pytest.raises(BadInputError):
        await rotate(ledger, tmp_path, newer, parse_master(newer["API_KEY_ENCRYPTION_KEY"]))


@pytest.mark.parametrize("is_sealed", [False, True])
async def test_rotation__that_was_cut_off_loses_nothing_and_can_be_done_again(ledger, tmp_path, is_sealed, monkeypatch):
    await add_key(ledger, tmp_path, {}, ONE, "mine", "")

    def cut_off(*args):
        raise KeyboardInterrupt

    if is_sealed:
        monkeypatch.setattr(office, "settle", cut_off)
    else:
        monkeypatch.setattr(ledger, "reseal_keys", cut_off)
    with pytest.raises(KeyboardInterrupt):
        await rotate(ledger, tmp_path, {}, None)
    monkeypatch.undo()
    assert await open_all(ledger, tmp_path, {}) == {"sk-one"}
    await rotate(ledger, tmp_path, {}, None)
    assert await open_all(ledger, tmp_path, {}) == {"sk-one"}
    assert len(MasterKeys.load(tmp_path, {}).all) == 2


async def test_rotation__also_seals_what_was_added_meanwhile(ledger, tmp_path, monkeypatch):
    await add_key(ledger, tmp_path, {}, ONE, "mine", "")
    old = MasterKeys.load(tmp_path, {}).newest
    reseal = ledger.reseal_keys

    async def late(*args):
        monkeypatch.setattr(ledger, "reseal_keys", reseal)
        await reseal(*args)
        await ledger.add_key(seal_key(TWO, old, "late"))

    monkeypatch.setattr(ledger, "reseal_keys", late)
    rotated = await rotate(ledger, tmp_path, {}, None)
    assert rotated.keys == 2
    newest = MasterKeys.load(tmp_path, {}).newest
    assert {open_key(key, newest).key for key in await ledger.all_keys()} == {"sk-one", "sk-two"}


async def test_rotation__names_keys_that_nobody_can_open(ledger, tmp_path):
    await ledger.add_key(seal_key(ONE, os.urandom(32), "lost"))
    assert (await rotate(ledger, tmp_path, {}, None)).unreadable == [key_id_of("openai", "sk-one")]


def test_link__that_was_altered_is_refused(tmp_path):
    announce(tmp_path, MasterKeys.load(tmp_path, {}), os.urandom(32))
    path = tmp_path / "master_keys.json"
    link = json.loads(path.read_text())
    link["links"][0]["sealed"] = base64.b64encode(os.urandom(60)).decode()
    path.write_text(json.dumps(link))
    with pytest.raises(BadInputError):
        MasterKeys.load(tmp_path, {})


def test_master_key__that_is_none_is_refused():
    for text in ("", "x", base64.b64encode(b"short").decode(), base64.b64encode(bytes(32)).decode()):
        with pytest.raises(BadInputError):
            parse_master(text)


async def test_facts__say_what_each_key_does_and_never_what_it_is(ledger, tmp_path):
    await add_key(ledger, tmp_path, {}, ONE, "mine", '{"concurrency": 2}')
    await add_key(ledger, tmp_path, {}, TWO, "other", "")
    states = [
        KeyState(
            key_id=key_id_of("openai", "sk-one"), refused=False, cooling_s=3.21, in_flight=1, calls_last_minute=2,
            tokens_last_minute=3, used=4,
        )
    ]  # fmt: skip
    told = facts(await ledger.all_keys(), [], states, ["openai"])
    assert {fact.provider: (fact.state, fact.cooling_s) for fact in told} == {
        "openai": ("cooling", 3.2),
        "deepseek": ("idle", 0.0),
    }
    assert "sk-" not in repr(told)
    await ledger.set_key_disabled(key_id_of("openai", "sk-one"), True)
    assert {fact.state for fact in facts(await ledger.all_keys(), [], states, ["openai"])} == {"disabled", "idle"}


def test_import__finds_single_keys_lists_and_files_each_once(tmp_path):
    file = tmp_path / "keys.json"
    file.write_text(json.dumps([{"key": "sk-r1"}, {"key": "sk-r2", "active": False}]))
    environment = {
        "OPENAI_API_KEY": "sk-o1",
        "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
        "OPENAI_API_KEYS_JSON": '[{"key": "sk-o1"}, {"key": "sk-o2", "limits": {"concurrency": 3}}]',
        "OPENAI_KEY_LIMITS_JSON": '{"requests_per_minute": 50}',
        "GROQ_API_KEYS_JSON": '[{"key": "sk-q", "expires_at": "2027-01-31T00:00:00Z"}]',
        "GEMINI_API_KEY": "g1",
        "GOOGLE_API_KEYS_JSON": '[{"key": "g2", "active": true}, {"key": "g1", "active": true}]',
        "OPENROUTER_API_KEYS_JSON": str(file),
        "ANTHROPIC_API_KEYS_JSON": "[]",
    }
    found = [(each.endpoint.provider, each.endpoint.key, each.limits) for each in found_keys(environment)]
    usual = '{"requests_per_minute": 50}'
    assert sorted(found) == sorted(
        [
            ("openai", "sk-o1", usual),
            ("openai", "sk-o2", '{"concurrency": 3}'),
            ("gemini", "g1", ""),
            ("gemini", "g2", ""),
            ("openrouter", "sk-r1", ""),
            ("groq", "sk-q", ""),
        ]
    )
    ends = {each.endpoint.key: each.expires_at for each in found_keys(environment) if each.expires_at}
    assert ends == {"sk-q": datetime(2027, 1, 31, tzinfo=UTC)}
    assert {e.endpoint.base_url for e in found_keys(environment) if e.endpoint.provider == "openai"} == {
        "http://127.0.0.1:9/v1"
    }
    assert set(environment) <= import_variables({})


@pytest.mark.parametrize(
    "value",
    ["{}", "[{}]", '[{"key": 1}]', '[{"key": ""}]', '[{"key": "sk-secret", "colour": 1}]', "relative.json",
     "/does/not/exist", '[{"key": "sk-secret", "active": "yes"}]', '[{"key": "sk-secret", "limits": {"rpm": 1}}]',
     '[{"key": "sk-secret", "expires_at": "2027-01-31T00:00:00"}]',
     '[{"key": "sk secret"}]', "["],
)  # fmt: skip
def test_import__of_a_list_that_cannot_be_read_names_the_variable_and_shows_no_key(value):
    with pytest.raises(BadInputError) as refused:
        found_keys({"GROQ_API_KEYS_JSON": value})
    assert "secret" not in str(refused.value)


def test_limits__are_per_model_with_one_for_all_others():
    quotas = parse_quotas('{"requests_per_minute": 6, "models": {"big": {"tokens_per_minute": 9}}}')
    assert quotas.of("any") == Quota(requests_per_minute=6)
    assert quotas.of("big") == Quota(tokens_per_minute=9)
    assert parse_quotas(" ").of("x") == Quota()


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"requests_per_minute": 0}', '{"concurrency": 1.5}', '{"rpm": 1}', "x" * 20_000]
)
def test_limits__that_cannot_be_read_are_refused(text):
    with pytest.raises(BadInputError):
        parse_quotas(text)
