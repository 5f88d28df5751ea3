"""How much a request can use at most, and what it will about use."""

import json
from bisect import bisect_right
from dataclasses import dataclass, replace

from runtime.catalogue.model import Model
from runtime.ledger.money import Price, Tariff
from runtime.providers.chat import ChatRequest, EmbedRequest, Image, Text, ToolCall, ToolResult

BYTES_PER_TOKEN = 4
"""Of an estimate. English text has a little more, code and other scripts a little less."""
FRAME_TOKENS_MAX = 32
"""What a provider's template adds to a message, a part or a tool."""
TOOLS_TOKENS_MAX = 1_024
"""What a provider's own instructions for the use of tools add, once."""
IMAGE_TOKENS_MAX = 50_000
"""Of one picture, for a model whose own figure is not known: above the largest that providers publish."""
OUTPUT_TOKENS_MIN = 256
"""Nobody is helped by a shorter answer than this where a longer one was asked for. Source: DESIGN §4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """In tokens. `input_tokens` is an estimate that is rather low than high."""

    input_tokens_max: int
    output_tokens_max: int
    input_tokens: int
    images: int = 0
    choices: int = 1
    """Answers that share `output_tokens_max`."""
    answer_tokens_min: int = OUTPUT_TOKENS_MIN
    """No answer that is cut may be shorter."""

    @property
    def answer_tokens_max(self) -> int:
        return self.output_tokens_max // self.choices

    def cut_to(self, left_ucredits: int, price: Price, tariff: Tariff) -> "Bounds | None":
        """With answers as long as so much pays for; None where they would be too short."""

        def worst_ucredits(answer_tokens: int) -> int:
            output_tokens = answer_tokens * self.choices
            return tariff.credits_for(price.cost_pusd(self.input_tokens_max, output_tokens, self.images))

        fitting = bisect_right(range(self.answer_tokens_max + 1), left_ucredits, key=worst_ucredits) - 1
        return replace(self, output_tokens_max=fitting * self.choices) if fitting >= self.answer_tokens_min else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What a request weighs, whichever model will read it."""

    text_bytes: int
    """UTF-8 bytes of all that is text, which are at least as many as its tokens."""
    frames: int
    images: int
    tools: int
    output_tokens_max: int | None
    """The caller's own limit, for each choice."""
    choices: int = 1
    said_bytes: int | None = None
    """UTF-8 bytes of what is said alone, where `text_bytes` also counts what it is wrapped in."""
    thinking_tokens: int = 0
    """Of the output limit, as the caller set them aside: a provider refuses a limit that is not above them."""

    @property
    def context_tokens(self) -> int:
        """An estimate that is rather low than high, of the question alone."""
        return estimated_tokens(self.text_bytes)

    def bounds(self, model: Model) -> Bounds:
        limit = self.output_tokens_max if self.output_tokens_max is not None else model.output_tokens_max
        frames_tokens = FRAME_TOKENS_MAX * (self.frames + self.tools) + (TOOLS_TOKENS_MAX if self.tools else 0)
        image_tokens = IMAGE_TOKENS_MAX if model.image_tokens_max is None else model.image_tokens_max
        return Bounds(
            input_tokens_max=self.text_bytes + frames_tokens + image_tokens * self.images,
            output_tokens_max=limit * self.choices,
            input_tokens=estimated_tokens(self.text_bytes if self.said_bytes is None else self.said_bytes),
            images=self.images,
            choices=self.choices,
            answer_tokens_min=OUTPUT_TOKENS_MIN + self.thinking_tokens,
        )


def size_of(request: ChatRequest) -> Size:
    texts: list[str] = list(request.system)
    images = frames = 0
    for message in request.messages:
        frames += 1 + len(message.parts)
        for part in message.parts:
            match part:
                case Text(text=text) | ToolResult(text=text):
                    texts.append(text)
                case ToolCall(name=name, arguments=arguments):
                    texts += (name, arguments)
                case Image():
                    images += 1
    for tool in request.tools:
        texts += (tool.name, tool.description, json.dumps(tool.parameters, ensure_ascii=False))
    if request.json and request.json.schema is not None:
        texts.append(json.dumps(request.json.schema, ensure_ascii=False))
    return Size(
        text_bytes=sum(len(text.encode(errors="replace")) for text in texts),
        frames=frames + len(request.system),
        images=images,
        tools=len(request.tools),
        output_tokens_max=request.output_tokens_max,
    )


def size_of_texts(request: EmbedRequest) -> Size:
    return Size(
        text_bytes=sum(len(text.encode(errors="replace")) for text in request.texts),
        frames=len(request.texts),
        images=0,
        tools=0,
        output_tokens_max=0,
    )


def estimated_tokens(text_bytes: int) -> int:
    """Of a call that was cut off: never more than was sent."""
    return text_bytes // BYTES_PER_TOKEN
