"""What is looked for in every tracked file before anything is delivered, without running any of it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from runtime.implementer.work import CommandResult

REQUIRED_FILES = (
    "docs/requirements.md", "docs/architecture.md", "docs/api_documentation.md", "docs/deployment_guide.md",
    "README.md", "TODO.md", ".gitignore",
)  # fmt: skip
"""Always there, beside `tests/`. Source: spec/builder.md §6.1."""
WRITTEN_LAST = frozenset({"docs/deployment_guide.md", "README.md"})
"""Those of them that are written once the code is finished."""

_SECRETS = {
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a model provider's key": rb"\bsk-[A-Za-z0-9_-]{20,}|\bAIza[0-9A-Za-z_-]{35}\b",
    "an AWS key": rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a GitHub token": rb"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})",
    "a Slack token": rb"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    "a payment key": rb"\b[sr]k_live_[A-Za-z0-9]{16,}",
    "a Telegram bot token": rb"\b[0-9]{8,10}:AA[A-Za-z0-9_-]{32,}",
}
_SECRET = re.compile(b"|".join(b"(%s)" % pattern for pattern in _SECRETS.values()))
_KINDS = tuple(_SECRETS)
_DIGITS = b"0123456789"
_EXAMPLE = re.compile(rb"example|your|placeholder|xxxx|changeme", re.IGNORECASE)
_COMPOSE = re.compile(r"(^|/)(docker-)?compose(\.[\w.-]+)?\.ya?ml$")
_COMPOSE_BYTES_MAX = 256 << 10
_FINDINGS_MAX = 50


def holds_secret(data: bytes) -> bool:
    return next(_found_in(data), None) is not None


def secrets_in(files: Mapping[str, bytes]) -> list[str]:
    """`src/x.py:12 looks like a private key`, sorted; the secret itself is not told."""
    return [finding for path in sorted(files) for finding in _secrets_of(path, files[path])]


def missing_files(paths: Sequence[str], *, before_last: bool = False) -> list[str]:
    """What of the required is not among `paths`; `before_last` does not ask for what is written last."""
    wanted = [path for path in REQUIRED_FILES if not (before_last and path in WRITTEN_LAST)]
    missing = [path for path in wanted if path not in paths]
    return missing if any(path.startswith("tests/") for path in paths) else [*missing, "tests/"]


def compose_files(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if _COMPOSE.search(path)]


def compose_faults(files: Mapping[str, bytes]) -> list[str]:
    """What is wrong with the compose files, as YAML and in their outline. No container is started."""
    return [f"{path}: {fault}" for path in compose_files(list(files)) if (fault := _compose_fault(files[path]))]


def scan(files: Mapping[str, bytes]) -> list[CommandResult]:
    """The scans of a finished tree, as results beside those of the commands."""
    named = [path for path, data in files.items() if data]
    missing = [f"{path} is missing or empty" for path in missing_files(named, before_last=True)]
    return [
        _result("scan for secrets", secrets_in(files), f"{len(files)} files, none found"),
        _result("look for the files that every project has", missing, "all there"),
        *([_result("read the compose files", compose_faults(files), "they are YAML, and name services")]
          if compose_files(list(files)) else []),
    ]  # fmt: skip


def _result(scan: str, findings: Sequence[str], else_said: str) -> CommandResult:
    output = "\n".join(findings[:_FINDINGS_MAX]) or else_said
    return CommandResult(command=scan, exit_status=1 if findings else 0, duration_s=0.0, output=output)


def _secrets_of(path: str, data: bytes) -> Iterator[str]:
    for found in _found_in(data):
        line = data.count(b"\n", 0, found.start()) + 1
        yield f"{path}:{line} looks like {_KINDS[(found.lastindex or 1) - 1]}"


def _found_in(data: bytes) -> Iterator["re.Match[bytes]"]:
    """What looks like a secret and not like a placeholder for one: `sk-your-key-goes-here`, AWS's own EXAMPLE."""
    for found in _SECRET.finditer(data):
        text = found[0]
        is_key = text.startswith(b"-----")
        if is_key or (any(map(_DIGITS.__contains__, text)) and len(set(text)) > 9 and not _EXAMPLE.search(text)):
            yield found


def _compose_fault(data: bytes) -> str:
    if len(data) > _COMPOSE_BYTES_MAX:
        return "it is too large"
    try:
        document: Any = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        return f"it is not YAML{f' at line {mark.line + 1}' if mark else ''}"
    services = document.get("services") if isinstance(document, dict) else None
    if not isinstance(services, dict) or not services:
        return "it names no services"
    for name, service in services.items():
        if not isinstance(service, dict) or not ({"image", "build", "extends"} & set(service)):
            return f"the service {name} has neither an image nor a build"
    return ""
