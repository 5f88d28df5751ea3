import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from cluster.simulator.chat import Message, Picture, Tool, ToolCall, ToolResult, prompt_tokens
from cluster.simulator.usage import ServedCall, UsageFile, cut_to_tokens, fingerprint, text_tokens, usage_report
from runtime.errors import BadInputError


def served(call_id: str | None, completion_tokens: int) -> ServedCall:
    return ServedCall(
        time="2026-03-14T12:00:00+00:00",
        call_id=call_id,
        model="gpt-4o",
        task="plan.todo",
        id="project",
        attempt=1,
        prompt_tokens=10,
        completion_tokens=completion_tokens,
        complete=True,
    )


def test_tokens__are_a_quarter_of_the_bytes_rounded_up_for_each_message() -> None:
    assert text_tokens("") == 0
    assert text_tokens("abcde") == 2
    assert text_tokens("ééé") == 2
    assert prompt_tokens([Message(role="user", text="abcde"), Message(role="user")]) == 3 + 1


def test_tokens__count_tools_their_calls_and_results_and_pictures() -> None:
    call = ToolCall(id="1", name="add", arguments='{"a": 1}')
    messages = [
        Message(role="user", pictures=(Picture(media_type="image/png", size_bytes=9, digest=""),)),
        Message(role="assistant", tool_calls=(call,)),
        Message(role="user", tool_results=(ToolResult(call_id="1", text="four"),)),
    ]

    assert prompt_tokens(messages) == (85 + 1) + 5 + 2
    assert prompt_tokens([], [Tool(name="add", description="adds", parameters={})]) == 3


def test_text__is_cut_without_breaking_a_character() -> None:
    assert cut_to_tokens("ab€€", 1) == "ab"
    assert text_tokens(cut_to_tokens("ab€€" * 9, 5)) <= 5


def test_usage_file__holds_what_earlier_servers_wrote(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    for call_id in ("a", "b"):
        file = UsageFile(path)
        file.record(served(call_id, 5))
        file.close()

    assert [call.call_id for call in UsageFile(path).calls()] == ["a", "b"]


def test_usage_file__of_an_earlier_version_is_read(tmp_path: Path) -> None:
    line = {**asdict(served("a", 5))}
    for name in ("wire", "key", "status", "user"):
        del line[name]
    (tmp_path / "usage.jsonl").write_text(json.dumps(line) + "\n")

    assert UsageFile(tmp_path / "usage.jsonl").calls() == [served("a", 5)]


def test_fingerprint__is_the_beginning_of_the_sha256() -> None:
    assert fingerprint("sim-1") == hashlib.sha256(b"sim-1").hexdigest()[:8]


def test_usage_report__sums_by_call_and_in_all() -> None:
    report = usage_report([served("a", 5), served("a", 7), served(None, 1)])

    assert report["totals"] == {"calls": 3, "prompt_tokens": 30, "completion_tokens": 13}
    assert report["by_call"] == {"a": {"calls": 2, "prompt_tokens": 20, "completion_tokens": 12}}


def test_usage_file__that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"usage\.jsonl"):
        UsageFile(tmp_path / "nowhere" / "usage.jsonl")
