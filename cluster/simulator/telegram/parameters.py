"""A call's parameters, however they come: in the address, as a form, as JSON or with files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from json import JSONDecodeError
from typing import Any

from aiohttp import web

from cluster.simulator.telegram.refusal import TelegramRefusal, bad_request

UPLOAD_BYTES_MAX = 50 << 20
"""Source: https://core.telegram.org/bots/api#sending-files"""
BODY_BYTES_MAX = UPLOAD_BYTES_MAX + (1 << 20)
_YES = ("true", "yes", "1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    name: str
    mime_type: str
    content: bytes = field(repr=False)


class Parameters:
    """Values are text, or what JSON made of them; a list or an object may also come as text that is JSON."""

    def __init__(self, values: Mapping[str, Any], uploads: Mapping[str, Upload] | None = None) -> None:
        self.values = {name: value for name, value in values.items() if value is not None}
        self.uploads = dict(uploads or {})

    def text(self, name: str) -> str:
        """Empty where there is none."""
        value = self.values.get(name, "")
        return value if isinstance(value, str) else json.dumps(value)

    def integer(self, name: str, default: int | None = None) -> int:
        """Raises TelegramRefusal where it is none, or is missing and has no default."""
        value = self.values.get(name)
        if value is None or value == "":
            if default is None:
                raise bad_request(f"{name} is empty")
            return default
        try:
            return int(value)
        except (TypeError, ValueError):
            raise bad_request(f"invalid {name} specified") from None

    def boolean(self, name: str) -> bool:
        return str(self.values.get(name, "")).lower() in _YES

    def json(self, name: str) -> Any:
        """None where there is none. Raises TelegramRefusal where it is not JSON."""
        value = self.values.get(name)
        if not isinstance(value, str):
            return value
        if not value:
            return None
        try:
            return json.loads(value)
        except JSONDecodeError:
            raise bad_request(f"can't parse {name.replace('_', ' ')} JSON object") from None

    def upload(self, name: str) -> Upload | None:
        """The file that this parameter is, or that it names with `attach://`."""
        reference = self.text(name)
        if reference.startswith("attach://"):
            return self.uploads.get(reference.removeprefix("attach://"))
        return self.uploads.get(name)

    def logged(self) -> dict[str, Any]:
        """As the log of calls has them: a file is its name and size."""
        files = {name: {"name": file.name, "size_bytes": len(file.content)} for name, file in self.uploads.items()}
        return {**self.values, **files}


async def read_parameters(request: web.Request) -> Parameters:
    """Raises TelegramRefusal for a body that is not what it says, or too large."""
    values: dict[str, Any] = dict(request.query)
    uploads: dict[str, Upload] = {}
    if not request.can_read_body:
        return Parameters(values)
    try:
        if request.content_type == "application/json":
            body = json.loads(await request.read() or b"{}")
            if not isinstance(body, dict):
                raise bad_request("can't parse JSON object")
            values |= body
        else:
            for name, value in (await request.post()).items():
                if isinstance(value, web.FileField):
                    uploads[name] = Upload(
                        name=value.filename, mime_type=value.content_type, content=value.file.read()
                    )  # fmt: skip
                else:
                    values[name] = value.decode() if isinstance(value, bytes | bytearray) else value
    except web.HTTPRequestEntityTooLarge:
        raise TelegramRefusal(413) from None
    except ValueError:
        raise bad_request("can't parse the request's body") from None
    if any(len(file.content) > UPLOAD_BYTES_MAX for file in uploads.values()):
        raise TelegramRefusal(413)
    return Parameters(values, uploads)
