"""The methods of the Bot API that there are here, by their name."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from cluster.simulator.telegram.callbacks import Callbacks
from cluster.simulator.telegram.chats import Chat, World
from cluster.simulator.telegram.commands import Commands
from cluster.simulator.telegram.parameters import Parameters
from cluster.simulator.telegram.payments import Payments
from cluster.simulator.telegram.polling import Polling
from cluster.simulator.telegram.refusal import bad_request
from cluster.simulator.telegram.sending import Sending
from cluster.simulator.telegram.topics import Topics
from cluster.simulator.telegram.webhook import Webhook

Method = Callable[[Parameters], Any | Awaitable[Any]]
_RIGHTS = (
    "can_be_edited", "is_anonymous", "can_manage_chat", "can_delete_messages", "can_manage_video_chats",
    "can_restrict_members", "can_promote_members", "can_change_info", "can_invite_users", "can_post_stories",
    "can_edit_stories", "can_delete_stories", "can_pin_messages", "can_manage_topics",
)  # fmt: skip
_GIFTS = ("unlimited_gifts", "limited_gifts", "unique_gifts", "premium_subscription", "gifts_from_channels")


class Methods:
    def __init__(
        self,
        world: World,
        sending: Sending,
        payments: Payments,
        callbacks: Callbacks,
        topics: Topics,
        commands: Commands,
        webhook: Webhook,
        polling: Polling,
        *,
        privacy: bool,
    ) -> None:
        self._world = world
        self._privacy = privacy
        known: Mapping[str, Method] = {
            "getMe": self._get_me,
            "getChat": self._get_chat,
            "getChatMember": self._get_chat_member,
            "getUpdates": polling.get_updates,
            "setWebhook": webhook.switch_on,
            "deleteWebhook": webhook.switch_off,
            "getWebhookInfo": webhook.info,
            "sendMessage": sending.send_message,
            "sendMessageDraft": sending.send_message_draft,
            "sendDocument": sending.send_document,
            "sendPhoto": sending.send_photo,
            "sendChatAction": sending.send_chat_action,
            "editMessageText": sending.edit_message_text,
            "editMessageReplyMarkup": sending.edit_message_reply_markup,
            "deleteMessage": sending.delete_message,
            "pinChatMessage": sending.pin_chat_message,
            "setMessageReaction": sending.set_message_reaction,
            "getFile": sending.get_file,
            "answerCallbackQuery": callbacks.answer,
            "sendInvoice": payments.send_invoice,
            "createInvoiceLink": payments.create_invoice_link,
            "answerPreCheckoutQuery": payments.answer,
            "refundStarPayment": payments.refund,
            "createForumTopic": topics.create,
            "editForumTopic": topics.edit,
            "closeForumTopic": topics.close,
            "setMyCommands": commands.set,
            "deleteMyCommands": commands.delete,
            "getMyCommands": commands.get,
        }
        self._known = {name.lower(): (name, method) for name, method in known.items()}

    def find(self, name: str) -> tuple[str, Method] | None:
        """With Telegram's spelling of the name, which calls may write as they like."""
        return self._known.get(name.lower())

    def _get_me(self, _: Parameters) -> dict[str, Any]:
        return {
            **self._world.bot.wire(),
            "can_join_groups": True,
            "can_read_all_group_messages": not self._privacy,
            "supports_inline_queries": False,
            "can_connect_to_business": False,
            "has_main_web_app": False,
            "has_topics_enabled": any(
                chat.type == "private" and chat.is_forum for chat in self._world.chats.values()
            ),
        }  # fmt: skip

    def _get_chat(self, asked: Parameters) -> dict[str, Any]:
        chat = self._world.chat(asked.values.get("chat_id"))
        pinned = chat.messages.get(chat.pinned or 0)
        return {
            **chat.wire(),
            "accent_color_id": 0,
            "max_reaction_count": 11,
            "accepted_gift_types": dict.fromkeys(_GIFTS, False),
            **({"pinned_message": pinned.wire(with_reply=False)} if pinned else {}),
        }

    def _get_chat_member(self, asked: Parameters) -> dict[str, Any]:
        chat = self._world.chat(asked.values.get("chat_id"))
        user_id = asked.integer("user_id")
        if user_id not in self._world.accounts:
            raise bad_request("PARTICIPANT_ID_INVALID")
        user = self._world.account(user_id).wire()
        if user_id == self._world.bot.id:
            return _bot_member(chat, user)
        return {"status": "member" if user_id in (chat.id, *chat.members) else "left", "user": user}


def _bot_member(chat: Chat, user: dict[str, Any]) -> dict[str, Any]:
    if chat.shut_out:
        return {"status": "kicked", "user": user, "until_date": 0}
    if chat.type == "private":
        return {"status": "member", "user": user}
    rights = dict.fromkeys(_RIGHTS, False) | {"can_manage_topics": chat.is_forum}
    return {"status": "administrator", "user": user, **rights}
