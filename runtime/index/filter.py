"""Which chunks a search may find."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from types import MappingProxyType

LANGUAGES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys((".py", ".pyi"), "python"),
        **dict.fromkeys((".js", ".jsx", ".mjs", ".cjs"), "javascript"),
        **dict.fromkeys((".ts", ".tsx", ".mts", ".cts"), "typescript"),
        **dict.fromkeys((".c", ".h"), "c"),
        **dict.fromkeys((".cpp", ".cc", ".cxx", ".hpp", ".hh"), "c++"),
        **dict.fromkeys((".kt", ".kts"), "kotlin"),
        **dict.fromkeys((".sh", ".bash"), "shell"),
        **dict.fromkeys((".html", ".htm"), "html"),
        **dict.fromkeys((".css", ".scss"), "css"),
        **dict.fromkeys((".yaml", ".yml"), "yaml"),
        **dict.fromkeys((".md", ".markdown", ".mdx"), "markdown"),
        ".java": "java",
        ".go": "go",
        ".rs": "rust",
        ".rb": "ruby",
        ".php": "php",
        ".swift": "swift",
        ".scala": "scala",
        ".sql": "sql",
        ".vue": "vue",
        ".json": "json",
        ".xml": "xml",
        ".toml": "toml",
    }
)
"""By file suffix; the rest is `text`."""


KINDS = ("function", "class", "module", "text")


def language_name(path: str) -> str:
    return LANGUAGES.get(PurePosixPath(path).suffix.lower(), "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What is empty allows everything."""

    path: str = ""
    """A file, a folder with all below it, or a pattern in which `*` also stands for `/`, as in git's pathspecs."""
    language: str = ""
    """One of `LANGUAGES`, or `text`."""
    kind: str = ""
    """Of chunks: one of `KINDS`."""

    def allows(self, path: str) -> bool:
        return (not self.language or language_name(path) == self.language) and self._is_below(path)

    def _is_below(self, path: str) -> bool:
        wanted = self.path.removeprefix("./").rstrip("/")
        return not wanted or path == wanted or path.startswith(f"{wanted}/") or fnmatchcase(path, wanted)


EVERYTHING = Filter()
