"""The list of commands that Telegram shows, by scope and language."""

import json
import re
from typing import Any

from cluster.simulator.telegram.parameters import Parameters
from cluster.simulator.telegram.refusal import bad_request

COMMANDS_MAX = 100
DESCRIPTION_LENGTH_MAX = 256
_SCOPES = {
    "default": (), "all_private_chats": (), "all_group_chats": (), "all_chat_administrators": (),
    "chat": ("chat_id",), "chat_administrators": ("chat_id",), "chat_member": ("chat_id", "user_id"),
}  # fmt: skip


class Commands:
    def __init__(self) -> None:
        self._lists: dict[tuple[str, str], list[dict[str, str]]] = {}

    def set(self, asked: Parameters) -> bool:
        commands = asked.mappings("commands")
        if len(commands) > COMMANDS_MAX:
            raise bad_request("BOT_COMMANDS_TOO_MUCH")
        for command in commands:
            if not re.fullmatch(r"[a-z0-9_]{1,32}", str(command.get("command", "")).removeprefix("/")):
                raise bad_request("BOT_COMMAND_INVALID")
            if not 1 <= len(str(command.get("description", ""))) <= DESCRIPTION_LENGTH_MAX:
                raise bad_request("BOT_COMMAND_DESCRIPTION_INVALID")
        self._lists[_key(asked)] = [
            {"command": str(one["command"]).removeprefix("/"), "description": str(one["description"])}
            for one in commands
        ]
        return True

    def delete(self, asked: Parameters) -> bool:
        self._lists.pop(_key(asked), None)
        return True

    def get(self, asked: Parameters) -> list[dict[str, str]]:
        return self._lists.get(_key(asked), [])

    def told(self) -> list[dict[str, Any]]:
        """All lists, for the control side."""
        return [
            {"scope": json.loads(scope), "language_code": language, "commands": commands}
            for (scope, language), commands in self._lists.items()
        ]


def _key(asked: Parameters) -> tuple[str, str]:
    scope = asked.mapping("scope") or {"type": "default"}
    if scope.get("type") not in _SCOPES:
        raise bad_request("unsupported bot command scope specified")
    if any(name not in scope for name in _SCOPES[scope["type"]]):
        raise bad_request("can't parse BotCommandScope: field is missing")
    language = asked.text("language_code")
    if language and not re.fullmatch(r"[a-z]{2}", language):
        raise bad_request("invalid language_code specified")
    return json.dumps(scope, sort_keys=True), language
