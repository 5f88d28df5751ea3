"""What a provider's headers and answers mean."""

import pickle
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.keys.keys import KeyLimits, Lease
from runtime.providers.failures import OutageError, RateLimitedError, limits_of, refusal, retry_after
from runtime.providers.usage import Usage, anthropic_usage_of, usage_of

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LEASE = Lease(provider="openai", model="m", key_id="key-1", base_url="http://x", key="sk-secret")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("6m0s", 360), ("12ms", 0.012), ("1s", 1), ("1h2m3.5s", 3723.5), ("1d", 86_400), ("2.5", 2.5), ("59.7s", 59.7),
     ("0s", 0), ("999d", 7 * 86_400), ("soon", None), ("-5", 0), ("nan", None), ("inf", None), ("", None)],
)  # fmt: skip
def test_limits__openais_resets_are_durations(text, seconds):
    limits = limits_of({"x-ratelimit-reset-tokens": text, "x-ratelimit-limit-tokens": "30"})
    assert limits == KeyLimits(tokens_per_minute=30, tokens_reset_s=seconds)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2026-01-02T03:04:35Z", 30), ("2026-01-02T04:04:15+01:00", 10), ("2026-01-02T03:04:00Z", 0), ("junk", None)],
)
def test_limits__anthropics_resets_are_dates(text, seconds):
    headers = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": text,
    }
    expected = KeyLimits(requests_per_minute=50, requests_left=0, requests_reset_s=seconds)
    assert limits_of(headers, NOW) == expected


@pytest.mark.parametrize(
    "headers",
    [{}, {"content-type": "x"}, {"x-ratelimit-limit-requests": "-1"}, {"x-ratelimit-limit-requests": "9" * 40},
     {"x-ratelimit-remaining-tokens": "١٢"}],
)  # fmt: skip
def test_limits__are_none_where_nothing_can_be_believed(headers):
    assert limits_of(headers) is None


@given(st.text(max_size=50), st.text(max_size=50))
def test_limits__no_header_breaks_them(reset, count):
    headers = {"x-ratelimit-reset-requests": reset, "x-ratelimit-remaining-requests": count, "retry-after": reset}
    limits = limits_of(headers)
    assert limits is None or limits.requests_reset_s is None or limits.requests_reset_s >= 0
    wait_s = retry_after(headers, NOW)
    assert wait_s is None or wait_s >= 0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Fri, 02 Jan 2026 03:05:05 GMT"}, 60),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_retry_after__reads_seconds_and_dates(headers, seconds):
    assert retry_after(headers, NOW) == seconds


def test_refusal__keeps_what_it_carries_on_the_way_between_processes():
    headers = {"retry-after": "7", "x-ratelimit-remaining-requests": "0"}
    for status, kind in ((429, RateLimitedError), (503, OutageError)):
        error = refusal(LEASE, status=status, code=None, message="no sk-secret here", headers=headers)
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind
        assert (again.retry_after_s, again.limits) == (7, KeyLimits(requests_left=0))
        assert "sk-secret" not in str(again)


def test_usage__anthropics_stream_adds_up():
    start = anthropic_usage_of({"usage": {"input_tokens": 5, "cache_read_input_tokens": 3, "output_tokens": 1}})
    assert start == Usage(input_tokens=8, output_tokens=1)
    assert anthropic_usage_of({"usage": {"output_tokens": 9}}, start) == Usage(input_tokens=8, output_tokens=9)
    assert anthropic_usage_of({"usage": {"input_tokens": 6, "output_tokens": 9}}, start).input_tokens == 6
    for usage in (None, {}, {"output_tokens": 9}, {"input_tokens": -1, "output_tokens": 9}, {"output_tokens": True}):
        assert anthropic_usage_of({"usage": usage}) is None


def test_usage__openais_is_believed_only_where_it_can_be():
    assert usage_of({"usage": {"prompt_tokens": 1, "completion_tokens": 2}}) == Usage(input_tokens=1, output_tokens=2)
    assert usage_of({"usage": {"prompt_tokens": 1}}) is None
