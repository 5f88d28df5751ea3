"""A tool call's arguments: JSON text as the model wrote it, which some wires want as an object."""

import json
from typing import Any

INVALID = "INVALID_JSON"
"""Where text that is no JSON object is put, so that nothing the model wrote is lost. Source: Anthropic's advice on
invalid JSON, platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming."""


def arguments_of(text: str) -> dict[str, Any]:
    try:
        arguments = json.loads(text or "{}", parse_constant=_refuse)
    except (ValueError, RecursionError):
        return {INVALID: text}
    return arguments if isinstance(arguments, dict) else {INVALID: text}


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
