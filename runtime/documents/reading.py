"""A document's text. What strangers made is parsed by a process of its own, which can harm nothing but its answer."""

import asyncio
import importlib.metadata
import logging
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from runtime.documents import markdown
from runtime.documents.encodings import decoded
from runtime.documents.formats import ACCEPTED, Document, Format
from runtime.documents.parsers.refusal import TOO_MUCH_MEMORY
from runtime.documents.section import Section, cleaned, has_words
from runtime.errors import BadInputError, MasterbuilderError, SandboxUnavailableError, TooLargeError
from runtime.implementer.bubblewrap import View
from runtime.implementer.confined import ConfinedProcess, setup_failure
from runtime.implementer.output import BoundedOutput
from runtime.implementer.sandbox import Sandbox
from runtime.implementer.work import Limits

SECONDS_MAX = 60.0
MEMORY_BYTES_MAX = 1 << 30
"""Of the reading process. Of the formats it is JSON that needs the most: some 25 bytes for each of a file's."""
CHARACTERS_MAX = 40_000_000
"""Of a document's text: twice its bytes at the most, for JSON's lines repeat where they stand."""
PAGES_MAX = 5_000
READERS_MAX = 2
"""Processes of one DocumentReader at the same time; further documents wait."""
REASON_CHARACTERS_MAX = 300

_ROOT = "/opt/masterbuilder"
_FILE = "/opt/document"
_PARSERS = {Format.PDF: "pdf", Format.DOCX: "docx", Format.HTML: "html", Format.JSON: "json_lines"}
"""What is not read here, and the module of `parsers` that reads it."""
_DISTRIBUTIONS = ("pypdfium2", "lxml")
_CODE = f"import sys; sys.path.insert(0, '{_ROOT}'); from runtime.documents.parsers.main import main; main()"
_SOURCES = ("section.py", "outline.py", "parsers")
_CHUNK_BYTES = 1 << 18
_LAST_WORDS_BYTES = 4_000
_OUT_OF_MEMORY = 128 + signal.SIGKILL
_OUT_OF_TIME = 128 + signal.SIGXCPU

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The most that reading one document may take, and bring."""

    seconds: float = SECONDS_MAX
    memory_bytes: int = MEMORY_BYTES_MAX
    characters: int = CHARACTERS_MAX
    pages: int = PAGES_MAX


class DocumentReader:
    """Reads what `formats.recognise` let through. Has no state but its queue."""

    def __init__(self, sandbox: Sandbox, *, bounds: Bounds | None = None) -> None:
        self._sandbox = sandbox
        self._bounds = bounds or Bounds()
        self._readers = asyncio.Semaphore(READERS_MAX)

    async def read(self, document: Document) -> Sequence[Section]:
        """At least one section with words in it.

        Raises BadInputError or TooLargeError, which say why in words for the document's owner;
        SandboxUnavailableError for the formats that are parsed in a process of their own. Cancelling ends that process.
        """
        sections = await self._sections(document)
        if not await asyncio.to_thread(_any_words, sections):
            hint = ": scanned pages are not read" if document.format is Format.PDF else ""
            raise _refused(document, f"has no text{hint}")
        return sections

    async def _sections(self, document: Document) -> Sequence[Section]:
        match document.format:
            case Format.TEXT:
                return await asyncio.to_thread(_text_sections, document.content)
            case Format.MARKDOWN:
                return await asyncio.to_thread(_markdown_sections, document.content)
            case Format.HTML | Format.JSON:
                # The parser is given one encoding: what a page declares is weighed here, with its letters.
                content = await asyncio.to_thread(_as_utf8, document)
            case Format.PDF | Format.DOCX:
                content = document.content
        async with self._readers:
            return await self._parsed(document, content)

    async def _parsed(self, document: Document, content: bytes) -> Sequence[Section]:
        bounds = self._bounds
        arguments = [_PARSERS[document.format], _FILE, str(bounds.characters), str(bounds.pages)]
        process = await self._sandbox.start(
            ["python3", "-I", "-c", _CODE, *arguments],
            view=await asyncio.to_thread(_view, content),
            limits=_limits(bounds),
            stderr=subprocess.PIPE,
        )
        run = _Run(process=process, reply_bytes_max=_reply_bytes_max(bounds))
        try:
            async with asyncio.timeout(bounds.seconds):
                await run.listen()
        except TimeoutError as error:
            raise _late(document, bounds) from error
        finally:
            await process.kill()
        return await asyncio.to_thread(_answer, document, run, await process.wait(), bounds)


@dataclass(slots=True, kw_only=True)
class _Run:
    process: ConfinedProcess
    reply_bytes_max: int
    reply: bytearray = field(default_factory=bytearray)
    is_over: bool = False
    """The reply was cut off at its bound."""
    last_words: BoundedOutput = field(default_factory=lambda: BoundedOutput(_LAST_WORDS_BYTES))

    async def listen(self) -> None:
        """Until it has ended, or has said more than it may."""
        async with asyncio.TaskGroup() as group:
            errors = group.create_task(self._hear_errors())
            while chunk := await self.process.stdout.read(_CHUNK_BYTES):
                self.reply += chunk
                if len(self.reply) > self.reply_bytes_max:
                    self.is_over = True
                    errors.cancel()
                    return
        await self.process.wait()

    async def _hear_errors(self) -> None:
        while chunk := await self.process.stderr.read(_CHUNK_BYTES):
            self.last_words.add(chunk)


class _Reply(msgspec.Struct):
    """Not to be trusted: what parses a hostile file may be in its hands."""

    sections: list[Section] = []
    refused: str = ""
    is_too_large: bool = False


_DECODER = msgspec.json.Decoder(_Reply)


def _answer(document: Document, run: _Run, status: int, bounds: Bounds) -> Sequence[Section]:
    said = run.last_words.text()
    if not run.process.was_reported and said.startswith("bwrap: "):
        raise SandboxUnavailableError(*setup_failure(said))
    if status == _OUT_OF_TIME:
        raise _late(document, bounds)
    if status == _OUT_OF_MEMORY and not run.is_over:
        raise _refused(document, TOO_MUCH_MEMORY, is_too_large=True)
    reply = _Reply(refused="cannot be read: its content is broken, or of a kind that is not known here")
    with suppress(msgspec.DecodeError, UnicodeDecodeError):
        reply = _DECODER.decode(run.reply) if status == 0 else reply
    if reply.refused:
        if status != 0:
            log.warning("The reader of a %s document ended with status %d: %s", document.ending, status, said)
        raise _refused(document, reply.refused, is_too_large=reply.is_too_large)
    return reply.sections


def _text_sections(content: bytes) -> Sequence[Section]:
    return [Section(text=cleaned(decoded(content)), start_line=1)]


def _markdown_sections(content: bytes) -> Sequence[Section]:
    return markdown.sections_of(cleaned(decoded(content)))


def _as_utf8(document: Document) -> bytes:
    return decoded(document.content, is_html=document.format is Format.HTML).encode("utf-8", "replace")


def _any_words(sections: Sequence[Section]) -> bool:
    return any(has_words(section.text) for section in sections)


def _view(content: bytes) -> View:
    return View(offered=_packages(), files={**_sources(), _FILE: content})


def _packages() -> Mapping[str, Path]:
    """The parsers' folders, found without importing them: no native code of theirs is ever loaded here."""
    folders = {}
    for name in _DISTRIBUTIONS:
        distribution = importlib.metadata.distribution(name)
        tops = {file.parts[0] for file in distribution.files or () if file.name == "__init__.py"}
        folders.update({f"{_ROOT}/{top}": Path(str(distribution.locate_file(top))) for top in sorted(tops)})
    return folders


def _sources() -> Mapping[str, bytes]:
    here = Path(__file__).parent
    files = [file for name in _SOURCES for file in ((here / name).glob("*.py") if "." not in name else [here / name])]
    return {f"{_ROOT}/runtime/documents/{file.relative_to(here)}": file.read_bytes() for file in files}


def _limits(bounds: Bounds) -> Limits:
    return Limits(
        wall_s=bounds.seconds,
        cpu_s=max(1, round(bounds.seconds)),
        memory_bytes=bounds.memory_bytes,
        process_count=16,
        file_size_bytes=1 << 20,
        scratch_bytes=1 << 20,
    )


def _reply_bytes_max(bounds: Bounds) -> int:
    """A character has up to four bytes; one that JSON must escape, and a section's frame, are far rarer than that."""
    return 4 * bounds.characters + (1 << 24)


def _late(document: Document, bounds: Bounds) -> MasterbuilderError:
    return _refused(document, f"could not be read within {bounds.seconds:g} s")


def _refused(document: Document, why: str, *, is_too_large: bool = False) -> MasterbuilderError:
    told = f"{document.name} {' '.join(cleaned(why)[:REASON_CHARACTERS_MAX].split())}."
    return TooLargeError(told, "Send it in parts.") if is_too_large else BadInputError(told, ACCEPTED)
