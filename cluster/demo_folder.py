"""Where a demo keeps what it makes."""

import shutil
from pathlib import Path

from runtime.errors import BadInputError

_MARKER = ".masterbuilder-demo"


class DemoFolder:
    """Wiped at the start of a demo; its results stay until the next one. Paths are as short as the caller gave them."""

    def __init__(self, root: Path, scenario: str = "expense_tracker") -> None:
        self.root = root
        self.zip_file = root / f"{scenario.replace('_', '-')}.zip"
        self.receipt_file = root / "receipt.txt"
        self.usage_file = root / "simulator-usage.jsonl"
        self.data_dir = root.absolute() / "data"
        self.simulator_dir = root.absolute() / "simulator"
        self.scratch_dir = root.absolute() / "scratch"

    def wipe(self) -> None:
        """Raises BadInputError, and removes nothing, when the folder holds something else than a demo."""
        if self.root.exists() and not (self.root / _MARKER).exists() and any(self.root.iterdir()):
            raise BadInputError(
                f"{self.root} is not a demo's folder, so it is not wiped.", "Give --data-dir a new or empty folder."
            )
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(mode=0o700, parents=True)
        (self.root / _MARKER).touch()
