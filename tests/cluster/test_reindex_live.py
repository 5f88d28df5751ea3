"""Indexes are made anew by a job on a real Ray, while they are searched, stopped, and killed."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from cluster.instance import read_record
from cluster.ray_jobs import RayJobs
from runtime.config import Secrets, Settings
from runtime.ids import ProjectId
from runtime.index.minilm import find_weights
from tests.cluster.seeded import seed
from tests.e2e.live import Live

pytestmark = pytest.mark.skipif(find_weights() is None, reason="the weights package is not installed")

PROJECTS = 6
LINE = re.compile(r"\s*\d+/\d+  (done|skipped|failed) +(\S+)")
NAME = re.compile(r"(reindex-\S+):")
WORKER = "ray::MapWorker"
QUESTION = "which function adds up the prices"
PATIENCE_S = 240.0

Answer = Mapping[str, Any]


def tree(number: int) -> Mapping[str, str]:
    """Enough that a real model has to work for a second, in words of its own."""
    return {
        f"shop_{number}_{part}.py": "\n\n".join(
            f"def price_{number}_{part}_{each}(items, rate):\n"
            f'    """Adds up the prices of shelf {each} in shop {number}."""\n'
            f"    return sum(item.price * rate for item in items if item.shelf == {each})"
            for each in range(25)
        )
        + "\n"
        for part in range(5)
    }


class Shops:
    """The service with finished projects, as its operator and their owner see it."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.projects = seed(Settings.from_environment(live.environment), [tree(number) for number in range(PROJECTS)])

    def up(self) -> None:
        started = self.live.run("up")
        assert started.returncode == 0, started.stderr
        record = read_record(self.live.instance)
        assert record is not None
        token = Secrets.load(self.live.folder / "data", {}).ray_auth_token
        self.jobs = RayJobs(record.dashboard_url, token)
        self._http = httpx.Client(
            base_url=self.live.url,
            headers={"Authorization": f"Bearer {self.live.client_token}"},
            timeout=60.0,
            trust_env=False,
        )

    def search(self, project: ProjectId) -> Answer:
        answer = self._http.post(f"/api/v1/projects/{project}/search", json={"query": QUESTION, "limit": 8})
        assert answer.status_code == 200, answer.text
        found: Answer = answer.json()
        return found

    def answers(self) -> Mapping[ProjectId, Answer]:
        return {project: self.search(project) for project in self.projects}

    def lexical(self) -> Mapping[ProjectId, Answer]:
        """Every index is made with words alone; what they answer then."""
        made = self.live.run("reindex", "--all", "--embedder", "lexical", "--workers", "2")
        assert made.returncode == 0, made.stdout + made.stderr
        return self.answers()

    def workers(self) -> Sequence[psutil.Process]:
        return [process for process in self.live.left_of_service() if _title(process).startswith(WORKER)]


class Reindexing:
    """The command while it runs."""

    def __init__(self, live: Live, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [str(Path(sys.executable).with_name("masterbuilder")), "reindex", *arguments],
            env={**live.environment, "PYTHONUNBUFFERED": "1"},
            cwd=live.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.text: list[str] = []
        self.told: list[tuple[str, str]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def job(self) -> str:
        return next(found[1] for line in self.text if (found := NAME.match(line)))

    def wait_for(self, shards: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while len(self.told) < shards:
            assert self._process.poll() is None, "".join(self.text)
            assert time.monotonic() < deadline, "".join(self.text)
            time.sleep(0.02)

    def interrupt(self) -> int:
        self._process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> int:
        status = self._process.wait(PATIENCE_S)
        self._reader.join(10.0)
        return status

    def names(self, outcome: str) -> set[str]:
        return {name for what, name in self.told if what == outcome}

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.text.append(line)
            if found := LINE.match(line):
                self.told.append((found[1], found[2]))


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shops]:
    live = Live.in_folder(tmp_path_factory.mktemp("reindex"))
    try:
        shops = Shops(live)
        shops.up()
        yield shops
    finally:
        live.close()


@contextmanager
def searched(shops: Shops) -> Iterator[list[tuple[ProjectId, Answer]]]:
    """Every project is searched again and again meanwhile; whatever is not an answer is raised at the end."""
    seen: list[tuple[ProjectId, Answer]] = []
    failed: list[BaseException] = []
    stop = threading.Event()

    def searching() -> None:
        try:
            while not stop.is_set():
                for project in shops.projects:
                    seen.append((project, shops.search(project)))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=searching)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join(120.0)
    assert not failed, failed


def test_stopped_in_the_middle_and_resumed__every_answer_is_of_the_old_index_or_the_new(shops: Shops) -> None:
    # given indexes of words alone, and what they answer
    before = shops.lexical()
    assert {hit["why"]["meaning"] for answer in before.values() for hit in answer["hits"]} == {0}

    with searched(shops) as seen:
        # when a job with a real model is stopped while it has made some
        begun = Reindexing(shops.live, "--all", "--embedder", "minilm", "--workers", "1")
        begun.wait_for(2)
        shops.jobs.stop(begun.job)
        assert begun.end() == 1, begun.text
        made = {project for project, answer in shops.answers().items() if answer != before[project]}
        assert shops.workers() == []

        # and resumed
        resumed = Reindexing(shops.live, "--resume", begun.job, "--workers", "2")
        assert resumed.end() == 0, resumed.text
    after = shops.answers()

    # then it made the rest and nothing else
    assert begun.names("done") <= made < set(shops.projects)
    assert resumed.names("skipped") == made
    assert resumed.names("done") == set(shops.projects) - made
    assert all(hit["why"]["meaning"] > 0 for answer in after.values() for hit in answer["hits"][:1])
    # and who searched never saw anything but one whole index
    assert len(seen) > 2 * PROJECTS
    assert [project for project, answer in seen if answer not in (before[project], after[project])] == []
    assert {answer["commit"] for _, answer in seen} == set(shops.projects.values())


def test_worker_killed__its_shard_is_made_all_the_same(shops: Shops) -> None:
    before = shops.lexical()
    job = Reindexing(shops.live, "--all", "--embedder", "minilm", "--workers", "2")
    job.wait_for(1)
    killed = shops.workers()[0]
    os.kill(killed.pid, signal.SIGKILL)
    assert job.end() == 0, job.text
    assert job.names("failed") == set()
    assert job.names("done") | job.names("skipped") == set(shops.projects)
    assert len(job.told) == PROJECTS
    assert all(answer != before[project] for project, answer in shops.answers().items())


def test_interrupted_command__leaves_the_job_running_and_says_how_to_go_on(shops: Shops) -> None:
    # given a job that cannot end before its command is interrupted
    job = Reindexing(shops.live, "--all", "--embedder", "minilm")
    deadline = time.monotonic() + PATIENCE_S
    while not (workers := shops.workers()):
        assert time.monotonic() < deadline, "".join(job.text)
        time.sleep(0.02)
    for worker in workers:
        worker.suspend()
    try:
        refused = shops.live.run("reindex", "--all")
        assert (refused.returncode, job.job in refused.stderr) == (3, True), refused.stderr

        assert job.interrupt() == 130, job.text
        assert f"--stop {job.job}" in "".join(job.text)
    finally:
        for worker in workers:
            worker.resume()

    followed = shops.live.run("reindex", "--follow", job.job)
    assert followed.returncode == 0, followed.stdout + followed.stderr
    assert f"{PROJECTS} done, 0 skipped, 0 failed" in followed.stdout


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
