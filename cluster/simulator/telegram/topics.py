"""Forum topics: threads of a chat that has them switched on."""

from typing import Any

from cluster.simulator.telegram.chats import TOPIC_COLOR, Chat, Topic, World
from cluster.simulator.telegram.entities import utf16_length
from cluster.simulator.telegram.parameters import Parameters
from cluster.simulator.telegram.refusal import bad_request

NAME_UNITS_MAX = 128
_COLORS = (0x6FB9F0, 0xFFD67E, 0xCB86DB, 0x8EEE98, 0xFF93B2, 0xFB6F5F)


class Topics:
    def __init__(self, world: World) -> None:
        self._world = world

    def create(self, asked: Parameters) -> dict[str, Any]:
        chat, name, color = self._forum(asked), _name(asked), asked.integer("icon_color", TOPIC_COLOR)
        if color not in _COLORS:
            raise bad_request("TOPIC_ICON_COLOR_INVALID")
        told = {"name": name, "icon_color": color}
        message = self._world.post(chat, self._world.bot, {"forum_topic_created": told})
        topic = Topic(id=message.id, name=name, color=color)
        message.thread_id = topic.id
        chat.topics[topic.id] = topic
        return topic.wire()

    def edit(self, asked: Parameters) -> bool:
        chat = self._forum(asked)
        topic = chat.topic(asked.integer("message_thread_id"))
        name = _name(asked)
        if name == topic.name:
            raise bad_request("TOPIC_NOT_MODIFIED")
        topic.name = name
        self._tell(chat, topic, {"forum_topic_edited": {"name": name}})
        return True

    def close(self, asked: Parameters) -> bool:
        chat = self._forum(asked)
        topic = chat.topic(asked.integer("message_thread_id"))
        if topic.closed:
            raise bad_request("TOPIC_NOT_MODIFIED")
        topic.closed = True
        self._tell(chat, topic, {"forum_topic_closed": {}})
        return True

    def _forum(self, asked: Parameters) -> Chat:
        chat = self._world.writable(asked.values.get("chat_id"))
        if not chat.is_forum:
            raise bad_request("the chat is not a forum")
        return chat

    def _tell(self, chat: Chat, topic: Topic, content: dict[str, Any]) -> None:
        self._world.post(chat, self._world.bot, content, thread_id=topic.id)


def _name(asked: Parameters) -> str:
    name = asked.text("name").strip()
    if not 1 <= utf16_length(name) <= NAME_UNITS_MAX:
        raise bad_request("TOPIC_TITLE_EMPTY" if not name else "TOPIC_TITLE_TOO_LONG")
    return name
