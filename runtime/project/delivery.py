"""How a finished project is announced, and which way its package goes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

UPLOAD_BYTES_MAX = 50 * 10**6
"""What a bot may upload. Source: Telegram Bot API, "Sending files"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What its owner is told of a package. Amounts are texts in credits."""

    title: str
    file_count: int
    size_bytes: int
    sha256: str
    cost_credits: str
    """The final one: what was charged, less what was given back."""
    balance_credits: str
    how_to_fetch: str
    how_to_rate: str
    gaps: Sequence[str] = ()
    """What was asked for and is not in it."""


def goes_by_link(size_bytes: int) -> bool:
    """Whether a door that uploads files must send a download link instead."""
    return size_bytes > UPLOAD_BYTES_MAX


def file_stem(title: str) -> str:
    """What a project's files are called, without an ending."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60] or "project"


def delivery_text(delivery: Delivery) -> str:
    """The message of a delivery, the same at every door. Source: spec/builder.md §13."""
    files = "1 file" if delivery.file_count == 1 else f"{delivery.file_count} files"
    lines = [
        f"{delivery.title} is finished: {files}, {_size(delivery.size_bytes)}.",
        f"SHA-256 {delivery.sha256}",
        f"It cost {delivery.cost_credits} credits; {delivery.balance_credits} credits are left.",
        *(f"Not in it: {gap}" for gap in delivery.gaps),
        f"Fetch it: {delivery.how_to_fetch}",
        f"Say how content you are, from 1 to 5: {delivery.how_to_rate}",
    ]
    return "\n".join(lines)


def _size(size_bytes: int) -> str:
    if size_bytes < 1_000:
        return f"{size_bytes} bytes"
    return f"{size_bytes / 1_000:.1f} kB" if size_bytes < 10**6 else f"{size_bytes / 10**6:.1f} MB"
