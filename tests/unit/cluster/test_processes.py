"""Which processes are ours: by their mark and their descent, never by their name."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster.instance import MARK, Instance, SupervisorLock
from cluster.processes import end_all, owned

SLEEP = "import time; print('up', flush=True); time.sleep(600)"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEP!r}], env={{}})"


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    instance = Instance(data_dir=tmp_path)
    yield instance
    end_all(instance)


def start(
    code: str, cwd: Path | None = None, has_environment: bool = True, **variables: str
) -> "subprocess.Popen[str]":
    environment = {"PATH": os.environ["PATH"], **variables} if has_environment else {}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        cwd=cwd,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def test_marked_process_and_its_unmarked_child__are_ours(instance: Instance) -> None:
    parent = start(PARENT, **{MARK: instance.id})
    child = psutil.Process(parent.pid).children()[0]
    assert {process.pid for process in owned(instance)} == {parent.pid, child.pid}
    assert end_all(instance) == 2
    assert not psutil.pid_exists(parent.pid)
    assert owned(instance) == []


def test_process_of_another_data_folder__is_left_alone(instance: Instance, tmp_path: Path) -> None:
    other = Instance(data_dir=tmp_path / "other")
    process = start(SLEEP, **{MARK: other.id})
    assert end_all(instance) == 0
    assert process.poll() is None
    assert end_all(other) == 1
    process.wait()


@pytest.fixture
def ray_folder(instance: Instance) -> Iterator[Path]:
    folder = Path(f"{instance.temp_prefix}test")
    folder.mkdir()
    yield folder
    folder.rmdir()


def test_process_that_lost_its_environment__is_known_by_the_ray_folder(instance: Instance, ray_folder: Path) -> None:
    process = start(SLEEP, cwd=ray_folder, has_environment=False)
    assert [found.pid for found in owned(instance)] == [process.pid]
    assert end_all(instance) == 1


def test_shell_in_the_ray_folder__is_left_alone(instance: Instance, ray_folder: Path) -> None:
    process = start(SLEEP, cwd=ray_folder)
    assert owned(instance) == []
    process.kill()
    process.wait()


def test_caller__never_ends_itself(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from pathlib import Path; from cluster.instance import Instance; from cluster.processes import end_all;"
        f"print(end_all(Instance(data_dir=Path({str(instance.data_dir)!r}))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, MARK: instance.id}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "0\n"


def test_instances__differ_by_data_folder_and_have_room_for_rays_sockets(tmp_path: Path) -> None:
    one, two = Instance(data_dir=tmp_path / "one"), Instance(data_dir=tmp_path / "two")
    assert one.id != two.id
    assert one.temp_prefix != two.temp_prefix
    socket = f"{one.temp_prefix}abcdefgh/session_2026-11-21_21-21-38_721269_1234567/sockets/plasma_store.longest"
    assert len(socket) < 107


def test_lock__falls_with_its_holder_and_names_it(instance: Instance) -> None:
    code = (
        "from pathlib import Path; from cluster.instance import Instance, SupervisorLock;"
        f"lock = SupervisorLock(Instance(data_dir=Path({str(instance.data_dir)!r}))); assert lock.take(); {SLEEP}"
    )
    holder = start(code)
    assert SupervisorLock(instance).holder() == holder.pid
    assert not SupervisorLock(instance).take(patience_s=0.0)
    holder.kill()
    holder.wait()
    assert SupervisorLock(instance).holder() is None
    assert SupervisorLock(instance).take()
