"""Server-sent events in OpenAI's wire format."""

import json
from typing import Any

DONE = b"data: [DONE]\n\n"


def event(chunk: dict[str, Any]) -> bytes:
    """One `data:` event on one line."""
    return b"data: " + json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode(errors="replace") + b"\n\n"
