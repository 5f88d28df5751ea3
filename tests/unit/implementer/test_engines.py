from pathlib import Path

import pytest

from runtime.config import Settings
from runtime.errors import BadInputError, EngineUnavailableError
from runtime.implementer.aider_engine import AiderEngine
from runtime.implementer.blocks_engine import BlocksEngine
from runtime.implementer.engines import check_edit_engine, edit_engine
from runtime.implementer.sandbox import Sandbox


def settings(folder: Path, **environment: str) -> Settings:
    return Settings.from_environment(environment, data_dir=folder)


def test_edit_engine__is_aider_unless_another_is_chosen(tmp_path: Path) -> None:
    sandbox = Sandbox()
    assert isinstance(edit_engine(settings(tmp_path), sandbox, tmp_path), AiderEngine)
    assert isinstance(edit_engine(settings(tmp_path, EDIT_ENGINE="blocks"), sandbox, tmp_path), BlocksEngine)


def test_check__wants_aiders_environment_for_aider_alone(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailableError, match="aider-venv"):
        check_edit_engine(settings(tmp_path))
    check_edit_engine(settings(tmp_path, EDIT_ENGINE="blocks"))


def test_setting__of_another_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"EDIT_ENGINE is not usable.*'aider' or 'blocks'"):
        settings(tmp_path, EDIT_ENGINE="sed")
