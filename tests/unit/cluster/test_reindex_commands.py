"""The command that has indexes made anew, before jobs that are not Ray's."""

import json
import shlex
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
from fake_door import Run

from cluster import reindex_commands
from cluster.ray_jobs import Job
from cluster.terminal import BAD_INPUT, FAILED, OK, REFUSED, UNAVAILABLE
from runtime.errors import NotFoundError, UnavailableError

JOB = "reindex-20260131-120000-0a1b"
PROJECT = "11111111-1111-4111-8111-111111111111"
BEGUN = {"reindex": "begun", "shards": 2, "embedder": "lexical", "workers": 1, "gpu": False}
CODE = {"reindex": "shard", "kind": "project", "name": PROJECT, "owner": "ann", "outcome": "done", "chunks": 1200,
        "why": "", "seconds": 2.0, "pid": 7}  # fmt: skip
PAPERS = {**CODE, "kind": "documents", "name": "a[red]nn", "outcome": "failed", "chunks": 0, "why": "It is broken."}
ENDED = {"reindex": "ended", "done": 1, "skipped": 0, "failed": 1, "seconds": 3.5}


class FakeJobs:
    """Ray's jobs, of which each ends as `ends_as` once it was followed."""

    def __init__(self) -> None:
        self.known: dict[str, Job] = {}
        self.entrypoints: dict[str, list[str]] = {}
        self.printed: Sequence[Sequence[Mapping[str, Any] | str]] = [[BEGUN, CODE, ENDED]]
        """For each time that it is followed."""
        self.ends_as = "SUCCEEDED"
        self.times = 0

    def add(self, job: str, state: str, **metadata: str) -> None:
        told = {
            "kind": reindex_commands.KIND,
            "embedder": "lexical",
            "workers": "3",
            "project": "",
            "everything": "yes",
        }
        self.known[job] = Job(id=job, state=state, message="", metadata={**told, **metadata})

    def submit(self, job: str, entrypoint: str, metadata: Mapping[str, str]) -> None:
        self.add(job, "RUNNING", **metadata)
        self.entrypoints[job] = shlex.split(entrypoint)

    def all(self) -> Sequence[Job]:
        return list(self.known.values())

    def job(self, job: str) -> Job:
        if job not in self.known:
            raise NotFoundError("no such job")
        return self.known[job]

    def stop(self, job: str) -> None:
        self.add(job, "STOPPED")

    async def lines(self, job: str) -> AsyncIterator[str]:
        lines = self.printed[self.times]
        self.times += 1
        for line in lines:
            if line == "lost":
                raise UnavailableError("the connection is lost")
            yield line if isinstance(line, str) else json.dumps(line)
        if self.times == len(self.printed):
            self.add(job, self.ends_as, **self.known[job].metadata)


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> FakeJobs:
    jobs = FakeJobs()
    monkeypatch.setattr(reindex_commands, "_jobs", lambda terminal: jobs)
    monkeypatch.setattr(reindex_commands, "RETRY_S", 0.0)
    return jobs


def test_all__submits_one_job_and_tells_a_line_a_shard(run: Run, jobs: FakeJobs) -> None:
    jobs.printed = [["noise", BEGUN, CODE, PAPERS, ENDED]]
    jobs.ends_as = "FAILED"
    told = run("reindex", "--all", "--embedder", "lexical", "--workers", "2")
    ((job, words),) = jobs.entrypoints.items()
    assert words[1:] == ["-m", "cluster.jobs.reindex", "--generation", job, "--embedder", "lexical", "--workers", "2"]
    assert told.exit_code == FAILED
    lines = told.stdout.splitlines()
    assert lines[0] == f"{job}:"
    assert lines[2].split() == ["1/2", "done", PROJECT, "1,200", "chunks", "in", "2.0", "s"]
    assert "documents of a" in lines[3]
    assert lines[3].endswith("It is broken.")
    assert lines[4] == f"{job}: failed; 1 done, 0 skipped, 1 failed in 3.5 s."
    assert lines[5].endswith(f"--resume {job}")


def test_project__is_named_to_the_job(run: Run, jobs: FakeJobs) -> None:
    assert run("reindex", "--project", PROJECT, "--embedder", "minilm").exit_code == OK
    (words,) = jobs.entrypoints.values()
    assert words[-2:] == ["--project", PROJECT]
    assert words[words.index("--embedder") + 1] == "all-MiniLM-L6-v2-int8"


def test_json__is_printed_once_at_the_end(run: Run, jobs: FakeJobs) -> None:
    told = json.loads(run("reindex", "--all", "--json").stdout)
    assert (told["state"], told["done"], told["failed"]) == ("SUCCEEDED", 1, 0)
    assert [shard["name"] for shard in told["shards"]] == [PROJECT]


def test_connection__that_is_lost_is_made_again_and_no_line_is_told_twice(run: Run, jobs: FakeJobs) -> None:
    jobs.printed = [[BEGUN, "lost"], [BEGUN, CODE], [BEGUN, CODE, CODE, ENDED]]
    told = run("reindex", "--all")
    assert told.exit_code == OK
    assert [line.split()[0] for line in told.stdout.splitlines() if PROJECT in line] == ["1/2", "2/2"]


def test_connection__that_is_lost_for_ever_is_told(run: Run, jobs: FakeJobs) -> None:
    jobs.printed = [["lost"]] * 100
    assert run("reindex", "--all").exit_code == UNAVAILABLE
    assert jobs.times == reindex_commands.LOST_MAX + 1


def test_error__of_a_job_that_could_not_begin_is_told_with_what_to_do(run: Run, jobs: FakeJobs) -> None:
    jobs.printed = [[{"reindex": "ended", "error": "No such model.", "next_step": "Install it."}]]
    jobs.ends_as = "FAILED"
    told = run("reindex", "--all")
    assert told.exit_code == FAILED
    assert told.stderr.splitlines() == ["error: No such model.", "next: Install it."]


def test_second_job__is_refused_while_one_runs(run: Run, jobs: FakeJobs) -> None:
    jobs.add(JOB, "RUNNING")
    jobs.known["somebody-elses"] = Job(id="somebody-elses", state="RUNNING", message="", metadata={})
    refused = run("reindex", "--all")
    assert (refused.exit_code, jobs.entrypoints) == (REFUSED, {})
    assert f"--follow {JOB}" in refused.stderr


def test_resume__does_what_the_job_was_begun_with_under_its_generation(run: Run, jobs: FakeJobs) -> None:
    jobs.add(JOB, "STOPPED", project=PROJECT)
    jobs.ends_as = "STOPPED"
    for number in (1, 2):
        jobs.times, jobs.printed = 0, [[ENDED]]
        run("reindex", "--resume", JOB)
        words = jobs.entrypoints[f"{JOB}.{number}"]
        assert words[3:] == ["--generation", JOB, "--embedder", "lexical", "--workers", "3", "--project", PROJECT]
    assert run("reindex", "--resume", JOB, "--embedder", "minilm").exit_code == BAD_INPUT


def test_resume__of_a_job_that_ray_forgot_has_to_be_told_what_it_was(run: Run, jobs: FakeJobs) -> None:
    forgotten = run("reindex", "--resume", JOB)
    assert (forgotten.exit_code, "--embedder" in forgotten.stderr) == (REFUSED, True)
    assert run("reindex", "--resume", JOB, "--all", "--embedder", "lexical").exit_code == OK
    assert jobs.entrypoints[f"{JOB}.1"][3:5] == ["--generation", JOB]


def test_stop_and_follow__speak_of_the_last_try(run: Run, jobs: FakeJobs) -> None:
    for number, state in ((f"{JOB}", "STOPPED"), (f"{JOB}.9", "STOPPED"), (f"{JOB}.10", "RUNNING")):
        jobs.add(number, state)
    assert f"{JOB}.10:" in run("reindex", "--follow", JOB).stdout
    jobs.add(f"{JOB}.10", "RUNNING")
    stopped = run("reindex", "--stop", JOB)
    assert (stopped.exit_code, jobs.job(f"{JOB}.10").state) == (OK, "STOPPED")
    assert f"--resume {JOB}" in stopped.stdout


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ((), BAD_INPUT),
        (("--all", "--project", PROJECT), BAD_INPUT),
        (("--stop", JOB, "--resume", JOB), BAD_INPUT),
        (("--stop", JOB, "--all"), BAD_INPUT),
        (("--follow", JOB, "--workers", "2"), BAD_INPUT),
        (("--all", "--embedder", "word2vec"), BAD_INPUT),
        (("--stop", "nonsense"), BAD_INPUT),
        (("--stop", JOB), REFUSED),
        (("--all", "--workers", "0"), BAD_INPUT),
    ],
)
def test_what_makes_no_sense__is_refused_before_anything_runs(
    run: Run, jobs: FakeJobs, arguments: tuple[str, ...], status: int
) -> None:
    refused = run("reindex", *arguments)
    assert refused.exit_code == status, refused.output
    assert jobs.entrypoints == {}


def test_service__that_does_not_run_is_told(run: Run) -> None:
    refused = run("reindex", "--all")
    assert (refused.exit_code, "masterbuilder up" in refused.stderr) == (UNAVAILABLE, True)
