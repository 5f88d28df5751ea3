"""Asking a model for JSON in a shape, and telling it once what was wrong with its first try."""

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from runtime.errors import ReplyRejectedError
from runtime.providers.chat import ChatReply, ChatRequest, JsonShape, Message, Text
from runtime.validation import problems

PROBLEMS_MAX = 20
PROBLEM_CHARACTERS_MAX = 300

Parsed = TypeVar("Parsed", bound=BaseModel)


class RejectedReplyError(Exception):
    """A reply that does not fit: its text, and what is wrong with it in words for the model."""

    def __init__(self, text: str, problems: str) -> None:
        super().__init__(text, problems)
        self.text = text
        self.problems = problems

    def final(self) -> ReplyRejectedError:
        return ReplyRejectedError(
            f"The model's reply did not fit what was asked, twice: {self.problems}",
            "Run the step again, or choose a stronger model.",
            "Two model calls were made; they are charged only where the step they belong to is.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonQuestion(Generic[Parsed]):
    system: str
    user: str
    schema: type[Parsed]
    max_output_tokens: int

    def request(self) -> ChatRequest:
        return self._request(_says("user", self.user))

    def request_again(self, rejected: RejectedReplyError) -> ChatRequest:
        return self._request(
            _says("user", self.user),
            _says("assistant", rejected.text or "(nothing)"),
            _says(
                "user",
                f"That reply was not accepted:\n{rejected.problems}\nAnswer again, with the JSON alone.",
            ),
        )

    def parse(self, reply: ChatReply) -> Parsed:
        """Raises RejectedReplyError."""
        try:
            return self.schema.model_validate_json(reply.text)
        except ValidationError as error:
            told = _in_words(error)
            if reply.finish == "length":
                told = f"it was cut off at {self.max_output_tokens} tokens; be shorter.\n{told}"
            raise RejectedReplyError(reply.text, told) from None

    def _request(self, *messages: Message) -> ChatRequest:
        return ChatRequest(
            system=(self.system,),
            messages=messages,
            json=JsonShape(name=self.schema.__name__, schema=self.schema.model_json_schema()),
            output_tokens_max=self.max_output_tokens,
        )


def _says(role: Literal["user", "assistant"], text: str) -> Message:
    return Message(role=role, parts=(Text(text=text),))


def _in_words(error: ValidationError) -> str:
    return "\n".join(
        f"- {where or 'the reply'}: {what}"[:PROBLEM_CHARACTERS_MAX] for where, what in problems(error)[:PROBLEMS_MAX]
    )
