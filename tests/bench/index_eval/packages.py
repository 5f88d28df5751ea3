"""Which packages are judged on: the table in packages.toml."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_TABLE = Path(__file__).with_name("packages.toml")

Part = Literal["choosing", "held_out"]
Client = Literal["pip", "npm", "apt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    name: str
    """Ours, and the first folder of its paths in the index."""
    client: Client
    package: str
    """What its registry calls it."""
    version: str
    sha256: str
    """Of the archive, in hex."""
    source: str
    """The folder of the archive that is read."""


def packages_of(part: Part) -> list[Package]:
    return [Package(**row) for row in tomllib.loads(_TABLE.read_text(encoding="utf-8"))[part]]
