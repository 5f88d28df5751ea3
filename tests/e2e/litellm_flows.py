"""LiteLLM's client against the model door, run by Aider's Python: `litellm_flows.py URL MODEL...`, GATEWAY_TOKEN set.

Prints, as its last line, a JSON object of what came of each flow; whether that is right, its caller says.
"""

import json
import os
import sys
from typing import Any

import litellm

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}
QUESTION = {"role": "user", "content": 'synthetic tool=weather args={"city": "Łódź", "days": 3}'}
WORDS = {"role": "user", "content": "synthetic tokens=12 piece_tokens=1"}


def main(url: str, *models: str) -> None:
    token = os.environ["GATEWAY_TOKEN"]
    bases = {"openai": f"{url}/v1", "anthropic": url}
    told: dict[str, Any] = {}
    for wire, base in bases.items():
        for model in models:
            at = {"model": f"{wire}/{model}", "api_base": base, "max_tokens": 200, "num_retries": 0, "timeout": 30}
            told[f"{wire} {model}"] = flow({**at, "api_key": token})
    embedding = litellm.embedding(
        model="openai/openai/text-embedding-3-small",
        input=["a text", "another"],
        api_base=bases["openai"],
        api_key=token,
    )
    told["embedded"] = [len(item["embedding"]) > 100 for item in embedding.data]
    print(json.dumps(told))


def flow(at: dict[str, Any]) -> dict[str, Any]:
    reply = litellm.completion(messages=[WORDS], **at)
    chunks = list(litellm.completion(messages=[QUESTION], tools=[TOOL], stream=True, **at))
    turn = litellm.stream_chunk_builder(chunks).choices[0].message
    call = turn.tool_calls[0]
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny, 21 °C"}
    answer = litellm.completion(messages=[QUESTION, turn.model_dump(), result], tools=[TOOL], stream=True, **at)
    said = "".join(chunk.choices[0].delta.content or "" for chunk in answer)
    return {
        "words": len(reply.choices[0].message.content.split()),
        "completion_tokens": reply.usage.completion_tokens,
        "arguments": json.loads(call.function.arguments),
        "quoted": "sunny, 21 °C" in said,
        "refused": refusal(at),
    }


def refusal(at: dict[str, Any]) -> str:
    try:
        litellm.completion(messages=[WORDS], **{**at, "api_key": "mb-wrong"})
    except litellm.AuthenticationError as error:
        return str(error.status_code)
    return ""


main(*sys.argv[1:])
