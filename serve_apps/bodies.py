"""What people may send: YAML or JSON, read up to a bound and checked field by field before anything happens."""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal, TypeVar

import yaml
from fastapi import Request
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    ValidationError,
)
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

from runtime.documents.messages import THRESHOLD, TOP_K
from runtime.errors import BadInputError, TooLargeError
from runtime.index.filter import LANGUAGES
from runtime.ledger.money import UCREDITS_PER_CREDIT
from runtime.project.messages import Gate
from runtime.project.schemas import PlanTaskId, Text, Topic
from runtime.repositories.address import BRANCH
from runtime.repositories.messages import TOP_K as REPOSITORY_TOP_K
from runtime.validation import problems

KEY = re.compile(r"[\x21-\x7e]{1,200}")
CREDITS_MAX = 10**9
DEPTH_MAX = 50
SEARCH_HITS_MAX = 50
FORM_BYTES_MAX = 64 << 10
"""Of a form, beside its file."""
PROBLEMS_MAX = 5
PROBLEM_CHARACTERS_MAX = 300
CORRECT = "Correct it and send it again."

Parsed = TypeVar("Parsed", bound="Body")


def _ucredits(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)) or len(str(value)) > 40:
        raise ValueError("must be a number of credits")
    try:
        amount = Decimal(str(value).strip())
    except InvalidOperation:
        raise ValueError("must be a number of credits") from None
    if not amount.is_finite() or not 0 < amount <= CREDITS_MAX:
        raise ValueError(f"must be more than 0 and at most {CREDITS_MAX} credits")
    ucredits = int(amount * UCREDITS_PER_CREDIT)
    if ucredits == 0:
        raise ValueError("must be at least 0.000001 credits")
    return ucredits


def signed_ucredits(value: object) -> int:
    """Credits of either sign, but for none."""
    text = str(value).strip()
    return -_ucredits(text[1:]) if text.startswith("-") else _ucredits(value)


def unsigned_ucredits(value: object) -> int:
    """Credits, or none."""
    return 0 if re.fullmatch(r"0+(\.0*)?", str(value).strip()) else _ucredits(value)


def no_nul(value: object) -> object:
    if isinstance(value, str) and "\0" in value:
        raise ValueError("must not hold a NUL character")
    return value


def _language(name: str) -> str:
    known = sorted({*LANGUAGES.values(), "text"})
    if name and name not in known:
        raise ValueError(f"must be one of {', '.join(known)}")
    return name


def _not_empty(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


UCredits = Annotated[int, BeforeValidator(_ucredits)]
"""Given in credits, as a number or a string; kept in microcredits."""
Words = Annotated[str, StringConstraints(strip_whitespace=True), BeforeValidator(no_nul), AfterValidator(_not_empty)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class OpenBody(Body):
    brief: Words
    answers: dict[Topic, Annotated[Text, BeforeValidator(no_nul)]] | None = None
    max_ucredits: UCredits | None = Field(default=None, alias="max_credits")
    confirm: StrictBool = False
    gates: list[Gate] = []
    """Where the project stops until it is approved: `plan`, `phase`, `delivery`."""


class SearchBody(Body):
    query: Words
    limit: Annotated[StrictInt, Field(ge=1, le=SEARCH_HITS_MAX)] = 10
    path: Annotated[str, Field(max_length=500), BeforeValidator(no_nul)] = ""
    """A file, a folder, or a pattern."""
    language: Annotated[str, AfterValidator(_language)] = ""
    kind: Literal["", "function", "class", "module", "text"] = ""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.0


class RagSearchBody(Body):
    query: Words
    top_k: Annotated[StrictInt, Field(ge=1, le=SEARCH_HITS_MAX)] = TOP_K
    threshold: Annotated[float, Field(ge=0, le=1)] = THRESHOLD


class CloneBody(Body):
    repo_url: Annotated[Words, Field(max_length=500)]
    branch: Annotated[Words, Field(max_length=200)] = BRANCH


class RepositoryBody(Body):
    repo_name: Annotated[Words, Field(max_length=400)]


class RepositorySearchBody(RepositoryBody):
    query: Words
    top_k: Annotated[StrictInt, Field(ge=1, le=SEARCH_HITS_MAX)] = REPOSITORY_TOP_K


class AnswerBody(Body):
    text: Words


class ConfirmBody(Body):
    accept: StrictBool
    change: Annotated[str, BeforeValidator(no_nul)] = ""


class ResumeBody(Body):
    max_ucredits: UCredits | None = Field(default=None, alias="max_credits")


class NoBody(Body):
    """Nothing needs to be said."""


class ChangeBody(Body):
    text: Words


class RetryBody(Body):
    task: PlanTaskId


class SkipBody(Body):
    task: PlanTaskId
    reason: Annotated[str, StringConstraints(strip_whitespace=True, max_length=1_000), BeforeValidator(no_nul)] = ""
    with_dependents: StrictBool = False


class ApproveBody(Body):
    """`about` is the project's `asks`, so that a yes is never taken for one to something else."""

    about: Annotated[str, StringConstraints(max_length=100), BeforeValidator(no_nul)] = ""


class RejectBody(ApproveBody):
    text: Annotated[str, BeforeValidator(no_nul)] = ""


class RewindBody(Body):
    phase: Annotated[StrictInt, Field(ge=1)]


class FeedbackBody(Body):
    score: Annotated[StrictInt, Field(ge=1, le=5)]
    text: Annotated[str, StringConstraints(strip_whitespace=True, max_length=4_000), BeforeValidator(no_nul)] = ""


class BackupBody(Body):
    folder: Words
    with_secrets: StrictBool = False


async def read_bytes(request: Request, bytes_max: int) -> bytes:
    """Raises TooLargeError as soon as the bound is passed, whatever Content-Length says."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            raise TooLargeError(f"The request's body is larger than {bytes_max} bytes.", "Send a smaller one.")
    return bytes(body)


async def read_body(request: Request, model: type[Parsed], bytes_max: int) -> Parsed:
    """The body as `model`; an empty one counts as `{}`. Raises BadInputError, naming line or field; TooLargeError."""
    data = await read_bytes(request, bytes_max)
    is_json = "json" in request.headers.get("content-type", "").lower()
    return checked(await asyncio.to_thread(_document, data, is_json), model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    filename: str
    content: bytes
    fields: Mapping[str, str]


async def read_upload(request: Request, bytes_max: int) -> Upload:
    """A form with one `file`. Raises TooLargeError as soon as the bound is passed, and BadInputError."""
    body = await read_bytes(request, bytes_max + FORM_BYTES_MAX)

    async def once() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(request.headers, once(), max_files=1, max_fields=8, max_part_size=FORM_BYTES_MAX)
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError, FormParserError):
        raise BadInputError("The body is no multipart form with one file.", "Send it as multipart/form-data.") from None
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise BadInputError("The form has no file.", "Send the document in the field `file`.")
    content = await file.read()
    await form.close()
    fields = {name: value for name, value in form.items() if isinstance(value, str)}
    return Upload(filename=file.filename or "", content=content, fields=fields)


def idempotency_key(request: Request, action: str) -> str:
    """Names the request, so that sending it again is the same request. Raises BadInputError for an unusable one.

    What the client chose is prefixed: what is named otherwise lives in the same space.
    """
    key = request.headers.get("idempotency-key")
    if key is None:
        key = str(uuid.uuid4())
    if not KEY.fullmatch(key):
        raise BadInputError("Idempotency-Key must be 1 to 200 visible ASCII characters.", "Send another key.")
    return f"http/{action}/{key}"


def checked(document: dict[str, Any], model: type[Parsed]) -> Parsed:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        told = [f"{where}: {what.removeprefix('Value error, ')}" for where, what in problems(error)]
        named = "; ".join(problem[:PROBLEM_CHARACTERS_MAX] for problem in told[:PROBLEMS_MAX])
        raise BadInputError(f"The request does not fit: {named}.", CORRECT) from None


def bounded(name: str, text: str, bytes_max: int) -> str:
    """Raises TooLargeError where the text is longer than `bytes_max` in UTF-8."""
    size_bytes = len(text.encode())
    if size_bytes > bytes_max:
        raise TooLargeError(
            f"{name} has {size_bytes} bytes; at most {bytes_max} are allowed.", "Shorten it and send it again."
        )
    return text


def _document(data: bytes, is_json: bool) -> dict[str, Any]:
    try:
        text = data.decode()
        document = (json.loads if is_json else _yaml)(text) if text.strip() else {}
    except UnicodeDecodeError:
        raise BadInputError("The body is not UTF-8 text.", CORRECT) from None
    except json.JSONDecodeError as error:
        raise BadInputError(f"The body is not JSON: line {error.lineno}, {error.msg}.", CORRECT) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadInputError(f"The body is not YAML: line {line}, {error.problem or 'malformed'}.", CORRECT) from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise BadInputError("The body cannot be read: a value is malformed or nested too deep.", CORRECT) from None
    if not isinstance(document, dict) or not all(isinstance(name, str) for name in document):
        raise BadInputError("The body must be an object: names and values.", CORRECT)
    return document


def _yaml(text: str) -> Any:
    """Plain data only. Aliases are refused, because a few lines of them can stand for gigabytes, and so is deep
    nesting, which would overflow the parser's stack."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    for found in yaml.parse(text, Loader=loader):
        if isinstance(found, AliasEvent):
            raise BadInputError("The body holds a YAML alias, which is not allowed.", "Write the value out.")
        depth += isinstance(found, CollectionStartEvent) - isinstance(found, CollectionEndEvent)
        if depth > DEPTH_MAX:
            raise BadInputError(f"The body is nested deeper than {DEPTH_MAX} levels.", CORRECT)
    return yaml.load(text, Loader=loader)
