"""Asking a model for JSON in a shape, and telling it once what was wrong with its first try."""

import json
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from runtime.errors import ReplyRejectedError
from runtime.providers.endpoints import JsonMode

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
    json_mode: JsonMode

    def body(self) -> dict[str, Any]:
        """The request. Where the service knows no schemas, the schema stands at the end of the system message."""
        shape = self.schema.model_json_schema()
        system = self.system
        response_format: dict[str, Any] = {"type": self.json_mode}
        if self.json_mode == "json_schema":
            response_format["json_schema"] = {"name": self.schema.__name__, "schema": shape}
        else:
            system += f"\n\nAnswer with JSON that fits this schema:\n{json.dumps(shape)}"
        return {
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": self.user}],
            "response_format": response_format,
            "max_tokens": self.max_output_tokens,
        }

    def body_again(self, rejected: RejectedReplyError) -> dict[str, Any]:
        body = self.body()
        body["messages"] += [
            {"role": "assistant", "content": rejected.text or "(nothing)"},
            {
                "role": "user",
                "content": f"That reply was not accepted:\n{rejected.problems}\nAnswer again, with the JSON alone.",
            },
        ]
        return body

    def parse(self, reply: dict[str, Any]) -> Parsed:
        """Raises RejectedReplyError."""
        text, cut_off = _text_of(reply)
        try:
            return self.schema.model_validate_json(text)
        except ValidationError as error:
            problems = _in_words(error)
            if cut_off:
                problems = f"it was cut off at {self.max_output_tokens} tokens; be shorter.\n{problems}"
            raise RejectedReplyError(text, problems) from None


def _text_of(reply: dict[str, Any]) -> tuple[str, bool]:
    """The first choice's text, and whether it ended at the output limit."""
    choices = reply.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    message = choice.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    return (content if isinstance(content, str) else ""), choice.get("finish_reason") == "length"


def _in_words(error: ValidationError) -> str:
    problems = [
        f"- {'.'.join(map(str, problem['loc'])) or 'the reply'}: {problem['msg']}"[:PROBLEM_CHARACTERS_MAX]
        for problem in error.errors(include_url=False, include_context=False, include_input=False)[:PROBLEMS_MAX]
    ]
    return "\n".join(problems)
