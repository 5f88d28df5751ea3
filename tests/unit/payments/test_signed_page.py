"""A signed webhook is believed as it was signed, for five minutes, and in no other form."""

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import BadInputError, NotAuthenticatedError
from runtime.ids import UserId
from runtime.ledger.port import Order, OrderId
from runtime.payments.port import Confirmation
from runtime.payments.signed import HEADER, SignedPage, checkout_signature, parse_secret, webhook_header

SECRET = b"2f6c1a90b7d84e53a1c09f7e64d2b8355c0e9a71"
NOW_S = 1_795_000_000
TOLD: dict[str, Any] = {
    "event": "paid",
    "order": "ord-1",
    "external_id": "pay-77",
    "product": "credits_500",
    "amount_minor": 400,
    "currency": "USD",
}
BODY = json.dumps(TOLD).encode()
ORDER = Order(
    id=OrderId("ord-1"),
    user=UserId("ann"),
    provider="shop",
    product="credits_500",
    ucredits=500 * 10**6,
    amount_minor=400,
    currency="USD",
    paid_pusd=4 * 10**12,
    state="pending",
    external_id=None,
    created_at=datetime(2026, 11, 21, tzinfo=UTC),
    completed_at=None,
)


def page(secret: bytes = SECRET, now_s: float = NOW_S, page_url: str = "https://pay.example.com/") -> SignedPage:
    return SignedPage(id="shop", page_url=page_url, secret=secret, clock=lambda: now_s)


def confirmed(body: bytes = BODY, header: str | None = None, now_s: float = NOW_S) -> Confirmation | None:
    signed = webhook_header(SECRET, NOW_S, body) if header is None else header
    return page(now_s=now_s).confirmation({HEADER: signed}, body)


def test_webhook_as_it_was_signed__says_what_became_of_the_order() -> None:
    assert confirmed() == Confirmation(
        event="paid",
        order=OrderId("ord-1"),
        external_id="pay-77",
        product="credits_500",
        amount_minor=400,
        currency="USD",
        user=None,
        reason="paid",
    )


def test_signature__is_the_hmac_that_others_compute() -> None:
    """`printf "1795000000.{}" | openssl dgst -sha256 -hmac kkkk...` says the same."""
    assert webhook_header(b"k" * 32, NOW_S, b"{}") == (
        "t=1795000000,v1=b234779259219dc5fb026fab9e4540b032a0890d48b3c9071c42ab4f5f820b38"
    )


@given(place=st.integers(0, len(BODY) - 1), flip=st.integers(1, 255))
def test_body_with_any_other_byte__is_refused(place: int, flip: int) -> None:
    changed = BODY[:place] + bytes([BODY[place] ^ flip]) + BODY[place + 1 :]
    with pytest.raises(NotAuthenticatedError):
        confirmed(changed, webhook_header(SECRET, NOW_S, BODY))


@given(more=st.binary(min_size=1, max_size=20), before=st.booleans())
def test_body_with_more_bytes__is_refused(more: bytes, before: bool) -> None:
    with pytest.raises(NotAuthenticatedError):
        confirmed(more + BODY if before else BODY + more, webhook_header(SECRET, NOW_S, BODY))


@given(kept=st.integers(0, len(BODY) - 1))
def test_body_that_was_cut__is_refused(kept: int) -> None:
    with pytest.raises(NotAuthenticatedError):
        confirmed(BODY[:kept], webhook_header(SECRET, NOW_S, BODY))


@given(time_s=st.text("0123456789", min_size=1, max_size=12).filter(lambda text: text != str(NOW_S)))
def test_other_time__is_refused_though_it_be_now(time_s: str) -> None:
    mac = webhook_header(SECRET, NOW_S, BODY).partition(",")[2]
    with pytest.raises(NotAuthenticatedError):
        confirmed(header=f"t={time_s},{mac}", now_s=int(time_s))


@given(place=st.integers(0, len(SECRET) - 1), flip=st.integers(1, 255))
def test_secret_with_any_other_byte__is_refused(place: int, flip: int) -> None:
    other = SECRET[:place] + bytes([SECRET[place] ^ flip]) + SECRET[place + 1 :]
    with pytest.raises(NotAuthenticatedError):
        confirmed(header=webhook_header(other, NOW_S, BODY))


@given(place=st.integers(0, 63), digit=st.sampled_from("0123456789abcdef"))
def test_signature_with_any_other_digit__is_refused(place: int, digit: str) -> None:
    start, mac = webhook_header(SECRET, NOW_S, BODY).split("v1=")
    changed = mac[:place] + digit + mac[place + 1 :]
    if changed != mac:
        with pytest.raises(NotAuthenticatedError):
            confirmed(header=f"{start}v1={changed}")


@given(header=st.text(max_size=200))
def test_anything_else_in_the_header__is_refused(header: str) -> None:
    with pytest.raises(NotAuthenticatedError):
        confirmed(header=header)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "t=1795000000",
        "v1=" + "0" * 64,
        f"t={NOW_S},t={NOW_S},v1=" + "0" * 64,
        webhook_header(SECRET, NOW_S, BODY).upper(),
        webhook_header(SECRET, NOW_S, BODY) + "," + "x" * 1_000,
        webhook_header(SECRET, NOW_S, BODY).replace("v1=", "v0="),
    ],
)
def test_malformed_header__is_refused(header: str) -> None:
    with pytest.raises(NotAuthenticatedError) as refused:
        confirmed(header=header)
    assert refused.value.charged == "No credits were booked."
    assert "X-Signature" in refused.value.next_step


def test_missing_header__is_refused() -> None:
    with pytest.raises(NotAuthenticatedError):
        page().confirmation({}, BODY)


@pytest.mark.parametrize("late_s", [-300, -299.5, 0, 299.5, 300])
def test_webhook_of_the_last_five_minutes__is_believed(late_s: float) -> None:
    assert confirmed(now_s=NOW_S + late_s)


@pytest.mark.parametrize("late_s", [-86_400, -300.5, 300.5, 86_400, 10**9])
def test_stale_webhook__is_refused(late_s: float) -> None:
    with pytest.raises(NotAuthenticatedError, match="300 seconds"):
        confirmed(now_s=NOW_S + late_s)


def test_one_of_several_signatures__is_enough_while_a_secret_changes() -> None:
    other = webhook_header(b"another secret of the other side!!", NOW_S, BODY).split(",")[1]
    assert confirmed(header=webhook_header(SECRET, NOW_S, BODY) + "," + other)
    assert confirmed(header=f"t={NOW_S},{other},{webhook_header(SECRET, NOW_S, BODY).split(',')[1]}")


def test_event_that_concerns_no_order__is_nothing() -> None:
    assert confirmed(json.dumps({"event": "payout.sent", "id": 7}).encode()) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"order": ""},
        {"order": None},
        {"order": "o" * 201},
        {"external_id": "with space"},
        {"external_id": 7},
        {"amount_minor": "400"},
        {"amount_minor": 400.5},
        {"amount_minor": True},
        {"amount_minor": -1},
        {"amount_minor": 10**30},
        {"currency": "usd"},
        {"currency": "DOLLARS"},
        {"product": ""},
        {"user": ""},
        {"event": 7},
    ],
)
def test_nonsense_that_is_signed__is_bad_input(changes: dict[str, Any]) -> None:
    with pytest.raises(BadInputError):
        confirmed(json.dumps({**TOLD, **changes}).encode())


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 10_000, b'{"event": "paid"}'])
def test_body_that_is_no_event__is_bad_input(body: bytes) -> None:
    with pytest.raises(BadInputError) as refused:
        confirmed(body)
    assert refused.value.charged == "No credits were booked."


@pytest.mark.parametrize("url", ["https://pay.example.com/", "https://pay.example.com/p?shop=7"])
async def test_checkout__is_the_page_with_the_signed_order(url: str) -> None:
    checkout = await page(page_url=url).create(ORDER)
    assert checkout.url.startswith(url)
    query = dict(parse_qsl(urlsplit(checkout.url).query))
    signature = query.pop("signature")
    query.pop("shop", None)
    assert query == {"order": "ord-1", "product": "credits_500", "amount_minor": "400", "currency": "USD"}
    assert signature == checkout_signature(SECRET, query)
    assert signature != checkout_signature(SECRET, {**query, "amount_minor": "1"})
    assert "ann" not in checkout.url


def test_secret__is_never_shown() -> None:
    assert SECRET.decode() not in repr(page())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "short",
        "x" * 40,
        "abcd" * 10,
        "changeme-changeme-changeme-changeme-1",
        "change_me_to_something_long_and_random",
        "your-secret-goes-here-and-it-is-long-enough",
        "this-is-only-a-placeholder-0123456789",
        "an-example-0123456789-0123456789-abcdef",
        "<the secret of the payment provider, 32+>",
        "a1b2c3d4" * 5,
        SECRET.decode()[:31],
    ],
)
def test_secret_that_is_none__is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(BadInputError) as refused:
        parse_secret(text, "SHOP_PAYMENT_SECRET")
    assert "SHOP_PAYMENT_SECRET" in str(refused.value)
    assert not text or text not in str(refused.value)


def test_secret_that_is_one__is_taken() -> None:
    assert parse_secret(f" {SECRET.decode()}\n", "S") == SECRET
