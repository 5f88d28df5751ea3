"""The command that makes indexes anew while they are searched."""

import asyncio
import json
import os
import re
import secrets
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import click

from cluster.launch import running
from cluster.project_commands import json_option, resolved_project
from cluster.ray_jobs import Job, RayJobs
from cluster.terminal import FAILED, OK, Terminal, pass_terminal, plain, print_json
from runtime.config import Secrets
from runtime.errors import BadInputError, ConflictError, NotFoundError, UnavailableError

KIND = "masterbuilder-reindex"
"""In the metadata of our jobs, among others that may run on the same Ray."""
LOST_MAX = 30
"""Times in a row that the connection to a job is lost without news."""
RETRY_S = 1.0
INTERRUPTED = 130

_JOB = re.compile(r"(reindex-\d{8}-\d{6}-[0-9a-f]{4})(?:\.(\d+))?")


@click.command()
@click.option("--all", "everything", is_flag=True, help="Every project, and everybody's documents.")
@click.option("--project", metavar="ID", help="One project (an id, or `last`).")
@click.option(
    "--embedder",
    metavar="NAME",
    help="lexical, minilm, sentence-transformers:MODEL, or PROVIDER/MODEL, which you pay. Default: the service's.",
)
@click.option("--workers", type=click.IntRange(1, 256), help="Shards at a time. Default: half of the cores here.")
@click.option("--follow", metavar="JOB", help="Tell how JOB goes on.")
@click.option("--stop", metavar="JOB", help="Stop JOB. What it has made stays.")
@click.option("--resume", metavar="JOB", help="Go on with JOB: only what it has not made yet.")
@json_option
@pass_terminal
def reindex(
    terminal: Terminal,
    everything: bool,
    project: str | None,
    embedder: str | None,
    workers: int | None,
    follow: str | None,
    stop: str | None,
    resume: str | None,
    as_json: bool,
) -> None:
    """Makes indexes from nothing, as a job of the running service, which searches the old ones meanwhile.

    Each is put in its place whole, when it is ready. Say --all or --project; or --follow, --stop or --resume a JOB.
    After Ctrl-C the job goes on. Exit status 1 when an index failed: it is then what it was before.
    """
    chosen = [name for name in (follow, stop, resume) if name is not None]
    scopes = [scope for scope in (everything, project) if scope]
    if len(chosen) > 1 or len(scopes) > 1 or not (chosen or scopes):
        raise BadInputError("Say what to do, and one thing.", "Use --all, --project, --follow, --stop or --resume.")
    if (follow or stop) and (scopes or embedder or workers):
        raise BadInputError("A job does what it was begun with.", "Give --follow or --stop nothing but the JOB.")
    jobs = _jobs(terminal)
    if stop is not None:
        _stop(jobs, stop, as_json)
        return
    if follow is not None:
        job = _ours(jobs, follow).id
    else:
        asked = {
            "embedder": embedder or "",
            "workers": str(workers or ""),
            "project": resolved_project(terminal, project) if project else "",
            "everything": "yes" if everything else "",
        }
        job = _begin(jobs, asked, resume, terminal.settings.embedder)
    _follow(jobs, job, as_json)


def _jobs(terminal: Terminal) -> RayJobs:
    record = running(terminal.instance)
    if record is None or record.state != "ready":
        raise UnavailableError("The service does not run here.", "Start it with `masterbuilder up`.")
    return RayJobs(record.dashboard_url, Secrets.load(terminal.settings.data_dir, terminal.environment).ray_auth_token)


def _begin(jobs: RayJobs, asked: Mapping[str, str], resumed: str | None, default: str) -> str:
    """The job's id. Two at a time would make the same indexes in turn, so there is one."""

    ours = [job for job in jobs.all() if job.metadata.get("kind") == KIND]
    for job in ours:
        if not job.has_ended:
            raise ConflictError(f"{job.id} runs already.", f"Follow it: `masterbuilder reindex --follow {job.id}`.")
    generation = _generation(resumed) if resumed else _new_generation()
    tries = [job for job in ours if _generation(job.id) == generation]
    if resumed:
        asked = _as_before(generation, tries, asked)
    options = {
        "embedder": _chosen(asked["embedder"], default),
        "workers": asked["workers"] or str(max(1, (os.cpu_count() or 2) // 2)),
        "project": asked["project"],
        "everything": asked["everything"],
    }
    number = max((int(_number(job.id)) for job in tries), default=0) + 1
    job_id = f"{generation}.{number}" if resumed else generation
    words = [sys.executable, "-m", "cluster.jobs.reindex", "--generation", generation]
    words += ["--embedder", options["embedder"], "--workers", options["workers"]]
    words += ["--project", options["project"]] if options["project"] else []
    jobs.submit(job_id, shlex.join(words), {"kind": KIND, **options})
    return job_id


def _chosen(asked: str, default: str) -> str:
    """The embedder's full name. Raises BadInputError where one would cost that was not asked for."""
    from runtime.index.embedder import default_name, full_name, is_paid

    name = full_name(asked or default or default_name())
    if is_paid(name) and not asked:
        raise BadInputError(
            f"The service's embedder is {name}, and the operator pays for what a job embeds with it.",
            f"If that is what you want: --embedder {name}.",
        )
    return name


def _as_before(generation: str, tries: list[Job], asked: Mapping[str, str]) -> Mapping[str, str]:
    if tries:
        if asked["embedder"] or asked["project"] or asked["everything"]:
            raise BadInputError(f"{generation} does what it was begun with.", "Resume it without --all or others.")
        return {**tries[-1].metadata, "workers": asked["workers"] or tries[-1].metadata["workers"]}
    if not asked["embedder"] or not (asked["project"] or asked["everything"]):
        raise NotFoundError(
            f"Ray knows no job {generation}: it forgets them when the service is started again.",
            "Say again what it was to do, with --embedder and --all or --project.",
        )
    return asked


def _new_generation() -> str:
    return f"reindex-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"


def _generation(job: str) -> str:
    """What a job and those that resumed it have in common."""
    found = _JOB.fullmatch(job)
    if found is None:
        raise BadInputError(f"{job} is not the name of a job.", "It looks like reindex-20260131-120000-0a1b.")
    return found[1]


def _number(job: str) -> str:
    found = _JOB.fullmatch(job)
    return (found and found[2]) or "0"


def _ours(jobs: RayJobs, name: str) -> Job:
    """The job, or the last one that resumed it."""
    generation = _generation(name)
    tries = [job for job in jobs.all() if job.metadata.get("kind") == KIND and _generation(job.id) == generation]
    exact = [job for job in tries if job.id == name and name != generation]
    if not tries:
        raise NotFoundError(f"Ray knows no job {name}.", "It forgets jobs when the service is started again.")
    return exact[0] if exact else max(tries, key=lambda job: int(_number(job.id)))


def _stop(jobs: RayJobs, name: str, as_json: bool) -> None:
    job = _ours(jobs, name)
    if not job.has_ended:
        jobs.stop(job.id)
        while not (job := jobs.job(job.id)).has_ended:
            time.sleep(0.2)
    if as_json:
        print_json({"job": job.id, "state": job.state})
        return
    click.echo(f"{job.id}: {job.state.lower()}. What it has made stays.")
    if job.state == "STOPPED":
        click.echo(f"Go on with it: masterbuilder reindex --resume {_generation(job.id)}")


def _follow(jobs: RayJobs, job: str, as_json: bool) -> None:
    told = _Told(job, (lambda text: None) if as_json else click.echo)
    told.say(f"{job}:")
    try:
        state = asyncio.run(_until_ended(jobs, job, told))
    except KeyboardInterrupt:
        click.echo(f"\n{job} goes on. Follow it: masterbuilder reindex --follow {job}", err=True)
        click.echo(f"Stop it:   masterbuilder reindex --stop {job}", err=True)
        click.get_current_context().exit(INTERRUPTED)
    told.end(state, as_json)
    click.get_current_context().exit(OK if state.state == "SUCCEEDED" else FAILED)


async def _until_ended(jobs: RayJobs, job: str, told: "_Told") -> Job:
    """Tells every line once, however often the connection is lost."""
    lost = 0
    while True:
        number, seen = 0, told.seen
        try:
            async for line in jobs.lines(job):
                if line.startswith('{"reindex"'):
                    number += 1
                    if number > told.seen:
                        told.take(json.loads(line))
            state = await asyncio.to_thread(jobs.job, job)
            if state.has_ended:
                return state
        except UnavailableError:
            if lost >= LOST_MAX:
                raise
        lost = 0 if told.seen > seen else lost + 1
        await asyncio.sleep(RETRY_S)


class _Told:
    """What was heard of a job, and said."""

    def __init__(self, job: str, say: Callable[[str], None]) -> None:
        self.seen = 0
        self.say = say
        self._job = job
        self._shards: list[Mapping[str, Any]] = []
        self._begun: Mapping[str, Any] = {}
        self._ended: Mapping[str, Any] = {}

    def take(self, event: Mapping[str, Any]) -> None:
        self.seen += 1
        match event["reindex"]:
            case "begun":
                self._begun = event
                place = " on a GPU each" if event["gpu"] else ""
                pays = " You pay for it." if event.get("paid") else ""
                self.say(
                    f"{event['shards']} to make with {event['embedder']}, {event['workers']} at a time{place}.{pays}"
                )
            case "shard":
                self._shards.append({name: value for name, value in event.items() if name != "reindex"})
                self.say(self._line(event))
            case "ended":
                self._ended = event

    def _line(self, event: Mapping[str, Any]) -> str:
        done = f"{event['chunks']:,} chunks in {event['seconds']:.1f} s" if event["outcome"] == "done" else event["why"]
        number = f"{len(self._shards)}/{self._begun.get('shards', '?')}"
        what = event["name"] if event["kind"] == "project" else f"documents of {plain(event['name'])}"
        return f"{number:>9}  {event['outcome']:<7}  {what}  {done}"

    def end(self, state: Job, as_json: bool) -> None:
        counts = Counter(shard["outcome"] for shard in self._shards)
        facts = {name: counts[name] for name in ("done", "skipped", "failed")}
        error = self._ended.get("error", "") or ("" if state.state != "FAILED" or self._ended else state.message)
        if as_json:
            seconds = self._ended.get("seconds")
            told = {"job": self._job, "state": state.state, **facts, "seconds": seconds, "error": error}
            print_json({**told, "shards": self._shards})
            return
        if error:
            click.echo(f"error: {error}", err=True)
            if self._ended.get("next_step"):
                click.echo(f"next: {self._ended['next_step']}", err=True)
        took = f" in {self._ended['seconds']:.1f} s" if "seconds" in self._ended else ""
        counted = ", ".join(f"{count} {name}" for name, count in facts.items())
        click.echo(f"{self._job}: {state.state.lower()}; {counted}{took}.")
        if state.state != "SUCCEEDED":
            click.echo(f"Go on with the rest: masterbuilder reindex --resume {_generation(self._job)}")
