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
    """Values are text, or what JSON made of them; a list or an object may also come as text that is JSON.

    Raises TelegramRefusal for text that UTF-8 cannot hold.
    """

    def __init__(self, values: Mapping[str, Any], uploads: Mapping[str, Upload] | None = None) -> None:
        _check_utf8(values)
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
            return int(str(value))
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
            read = json.loads(value)
        except JSONDecodeError:
            raise bad_request(f"can't parse {name.replace('_', ' ')} JSON object") from None
        _check_utf8(read)
        return read

    def mapping(self, name: str) -> dict[str, Any]:
        """Empty where there is none. Raises TelegramRefusal where it is no object."""
        value = self.json(name)
        if value in (None, "", [], {}):
            return {}
        if not isinstance(value, dict):
            raise bad_request(f"can't parse {name.replace('_', ' ')}: expected an Object")
        return value

    def mappings(self, name: str) -> list[dict[str, Any]]:
        """Empty where there is none. Raises TelegramRefusal where it is no list of objects."""
        value = self.json(name)
        if value in (None, "", {}):
            return []
        if not isinstance(value, list) or any(not isinstance(one, dict) for one in value):
            raise bad_request(f"can't parse {name.replace('_', ' ')}: expected an Array of Objects")
        return value

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


def _check_utf8(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise bad_request("strings must be encoded in UTF-8") from None


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
