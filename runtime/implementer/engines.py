"""Which edit engine carries out tasks: EDIT_ENGINE is turned into one here and nowhere else."""

from pathlib import Path
from typing import assert_never

from runtime.config import Settings
from runtime.implementer.aider_engine import AiderEngine, check_installed
from runtime.implementer.blocks_engine import BlocksEngine
from runtime.implementer.engine import EditEngine
from runtime.implementer.sandbox import Sandbox


def edit_engine(settings: Settings, sandbox: Sandbox, scratch_dir: Path) -> EditEngine:
    match settings.edit_engine:
        case "aider":
            return AiderEngine(python=settings.aider_python, sandbox=sandbox, scratch_dir=scratch_dir)
        case "blocks":
            return BlocksEngine()
        case _:
            assert_never(settings.edit_engine)


def check_edit_engine(settings: Settings) -> None:
    """Blocking. Raises EngineUnavailableError when what the chosen engine needs is not there."""
    if settings.edit_engine == "aider":
        check_installed(settings.aider_python)
