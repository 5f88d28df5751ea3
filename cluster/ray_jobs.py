"""Ray's Job API, at the dashboard of a running service."""

import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.errors import NotFoundError, UnavailableError

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    id: str
    state: str
    """PENDING, RUNNING, or one of ENDED."""
    message: str
    metadata: Mapping[str, str]

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED


class RayJobs:
    """Every method raises UnavailableError when the dashboard does not answer as it should. All block but `lines`."""

    def __init__(self, url: str, token: str) -> None:
        # Its client would send a request to 127.0.0.1 through the caller's proxy.
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
        from ray.job_submission import JobSubmissionClient  # a second that no other command needs

        # It tells of connections that end as they should.
        logging.getLogger(JobSubmissionClient.__module__).setLevel(logging.WARNING)
        try:
            self._client: Any = JobSubmissionClient(url, headers={"Authorization": f"Bearer {token}"})
        except (RuntimeError, OSError) as error:
            raise _unavailable(error) from error

    def submit(self, job: str, entrypoint: str, metadata: Mapping[str, str]) -> None:
        try:
            self._client.submit_job(entrypoint=entrypoint, submission_id=job, metadata=dict(metadata))
        except (RuntimeError, OSError) as error:
            raise _unavailable(error) from error

    def all(self) -> Sequence[Job]:
        try:
            found = self._client.list_jobs()
        except (RuntimeError, OSError) as error:
            raise _unavailable(error) from error
        return [
            Job(
                id=each.submission_id,
                state=str(each.status.value),
                message=each.message or "",
                metadata=each.metadata or {},
            )
            for each in found
            if each.submission_id
        ]

    def job(self, job: str) -> Job:
        """Raises NotFoundError; Ray forgets its jobs when the service is started again."""
        for each in self.all():
            if each.id == job:
                return each
        raise NotFoundError(f"Ray knows no job {job}.", "It forgets jobs when the service is started again.")

    def stop(self, job: str) -> None:
        """Asks it to end. Returns before it has."""
        try:
            self._client.stop_job(job)
        except (RuntimeError, OSError) as error:
            raise _unavailable(error) from error

    async def lines(self, job: str) -> AsyncIterator[str]:
        """What it prints, from its beginning until its end or until the connection is lost."""
        rest = ""
        try:
            async for text in self._client.tail_job_logs(job):
                *lines, rest = (rest + text).split("\n")
                for line in lines:
                    yield line
        except (RuntimeError, OSError) as error:
            raise _unavailable(error) from error
        if rest:
            yield rest


def _unavailable(error: Exception) -> UnavailableError:
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return UnavailableError(f"Ray's dashboard did not do it: {said}", "See `masterbuilder status`.")
