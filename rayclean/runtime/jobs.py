"""Runs submitted to a cluster through Ray's job server; each runs once at a time and resumes after a failure.

    jobs = Jobs("http://127.0.0.1:8265")
    job, new = jobs.submit(parcel)         # new: False if the same work is running or done
    for text in jobs.follow(job.id): ...

A run folder has one job at a time: its submission ids are `rayclean-<name>-<hash of the folder>-<attempt>`.
Ray refuses a known id, so two simultaneous submissions start one job. The job runs the config as resolved on
the submitting machine; data, artifacts and models are read on the nodes. Environment variables (keys of
endpoints, tokens of hubs) are those of the nodes: none is sent with a job, as the dashboard would show it.
"""

import asyncio
import os
import queue
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

from requests.exceptions import RequestException

from rayclean.errors import ArtifactError, ResourceError
from rayclean.faults import faults_explained
from rayclean.fingerprints import fingerprint
from rayclean.folder import Folder
from rayclean.runtime import cluster
from rayclean.scoped import environment_set

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

UNDER_WAY = (JobStatus.PENDING, JobStatus.RUNNING)


@dataclass(frozen=True)
class JobPackage:
    """A run in the form in which it is submitted (`rayclean.job_package.pack`)."""

    name: str
    run: str
    """URL of the folder of the run or sweep."""
    command: str
    """Shell command, run in the folder of `files`."""
    files: Mapping[str, str]
    notes: Mapping[str, str] = field(default_factory=dict)
    """Further files by name, which are not part of the fingerprint."""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the command and the files."""
        return fingerprint(self.command, dict(self.files))


@dataclass(frozen=True)
class RunJob:
    """A job on the cluster: one attempt at a run."""

    id: str
    attempt: int
    state: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
    work_fingerprint: str
    """`JobPackage.fingerprint` of the submitted work."""
    message: str

    @property
    def under_way(self) -> bool:
        """Whether the job has not ended."""
        return self.state in UNDER_WAY


class Jobs:
    """A client of the job server of a cluster.

    Args:
        address: address of the dashboard, such as `http://127.0.0.1:8265`; None: RAY_API_SERVER_ADDRESS, else
            RAY_ADDRESS, else a Ray that runs on this machine.

    Raises:
        ResourceError: the server does not answer, or the token is wrong or missing.
    """

    def __init__(self, address: str | None = None):
        named = (address, os.environ.get("RAY_API_SERVER_ADDRESS"), os.environ.get("RAY_ADDRESS"))
        with _explained(next(filter(None, named), "this machine")), _address(address):
            self.client = JobSubmissionClient(address)
        self.address = self.client.get_address()

    def latest(self, run: str, name: str) -> RunJob | None:
        """The last attempt at a run; None if the run was never submitted to this cluster.

        Args:
            run: URL of the run folder.
            name: name of the run.
        """
        prefix = submission_id(run, name)
        with _explained(self.address):
            found = [_job(details, prefix) for details in self.client.list_jobs()]
        return max((job for job in found if job is not None), key=lambda job: job.attempt, default=None)

    def submit(self, parcel: JobPackage, *, again: bool = False) -> tuple[RunJob, bool]:
        """Start a job, unless the same work is running or done.

        Args:
            parcel: the run to submit.
            again: whether to run it even if it has succeeded before.

        Returns:
            The job, and whether it is new.

        Raises:
            ArtifactError: a job with another config is running in the same run folder.
            ResourceError: the job server refuses the job.
            FaultError: there is no room for what is sent.
        """
        last = self.latest(parcel.run, parcel.name)
        if last is not None and last.under_way:
            self._require_same(last, parcel)
        done = (
            last is not None
            and last.state == JobStatus.SUCCEEDED
            and last.work_fingerprint == parcel.fingerprint
        )
        if last is not None and (last.under_way or (done and not again)):
            return last, False
        attempt = 1 if last is None else last.attempt + 1
        name = f"{submission_id(parcel.run, parcel.name)}-{attempt}"
        with (
            faults_explained(tempfile.gettempdir()),
            tempfile.TemporaryDirectory(prefix="rayclean-job-") as folder,
            _explained(self.address),
        ):
            for file, content in {**parcel.files, **parcel.notes}.items():
                Folder(folder).write_text(content, file)
            try:
                self.client.submit_job(
                    entrypoint=parcel.command,
                    submission_id=name,
                    runtime_env={"working_dir": folder},
                    metadata={"rayclean": parcel.fingerprint, "run": parcel.run},
                )
            except RuntimeError:
                other = self.latest(parcel.run, parcel.name)
                if other is None or other.id != name:
                    raise
                self._require_same(other, parcel)  # submitted by someone else at the same moment
                return other, False
        return RunJob(name, attempt, JobStatus.PENDING, parcel.fingerprint, ""), True

    def _require_same(self, job: RunJob, parcel: JobPackage) -> None:
        if job.work_fingerprint != parcel.fingerprint:
            raise ArtifactError(
                f"{job.id} works in {parcel.run} with another config: wait for it, stop it (`{self.stop(job.id)}`), "
                "or choose another name (name=...)"
            )

    def stop(self, job: str) -> str:
        """The shell command that stops a job; it makes Ray's command line send a token where one is
        required.
        """
        token = "RAY_AUTH_MODE=token " if os.environ.get("RAY_AUTH_MODE") == "token" else ""
        return f"{token}ray job stop {job} --address {self.address}"

    def state(self, job: str) -> RunJob:
        """The current state of a job.

        Raises:
            ResourceError: the cluster does not know the job.
        """
        with _explained(self.address):
            found = _job(self.client.get_job_info(job), job.rpartition("-")[0])
        assert found is not None
        return found

    def logs(self, job: str) -> str:
        """The output of a job so far."""
        with _explained(self.address):
            return str(self.client.get_job_logs(job))

    def follow(self, job: str) -> Iterator[str]:
        """The output of a job, piece by piece, from its start until it ends."""
        pieces: queue.Queue[str | Exception | None] = queue.Queue()

        async def read() -> None:
            async for piece in self.client.tail_job_logs(job):
                pieces.put(piece)

        def work() -> None:
            try:
                asyncio.run(read())
                pieces.put(None)
            except Exception as error:  # raised again where the pieces are read
                pieces.put(error)

        threading.Thread(target=work, daemon=True).start()
        while (piece := pieces.get()) is not None:
            if isinstance(piece, Exception):
                raise ResourceError(f"{self.address}: the log of {job} broke off: {piece}") from piece
            yield piece


def submission_id(run: str, name: str) -> str:
    """The prefix of all submission ids of a run.

    >>> submission_id("s3://bucket/runs/quickstart", "quickstart")
    'rayclean-quickstart-c7923dad'
    """
    return f"rayclean-{re.sub('[^A-Za-z0-9-]', '-', name)}-{fingerprint(run)[:8]}"


def _job(details: JobDetails, prefix: str) -> RunJob | None:
    head, _, attempt = (details.submission_id or "").rpartition("-")
    if head != prefix or not attempt.isdigit():
        return None
    work_fingerprint = (details.metadata or {}).get("rayclean", "")
    return RunJob(
        f"{prefix}-{attempt}", int(attempt), str(details.status), work_fingerprint, details.message or ""
    )


def _address(address: str | None) -> AbstractContextManager[None]:
    """Let an explicit address take precedence over the environment, which Ray itself prefers."""
    return nullcontext() if address is None else environment_set("RAY_API_SERVER_ADDRESS", address)


@contextmanager
def _explained(where: str) -> Iterator[None]:
    try:
        yield
    except AuthenticationError as error:
        missing = "Authentication required" in str(error)
        raise ResourceError(
            f"{where} {'asks for a token, and none was sent' if missing else 'refuses this token'}: {cluster.TOKEN}"
        ) from error
    except ConnectionError as error:
        raise ResourceError(
            f"no Ray job server answers at {where}: open the tunnel (cluster/README.md), or correct --address"
        ) from error
    except RequestException as error:  # Ray explains only the first request of a client
        raise ResourceError(
            f"{where} no longer answers like a Ray job server ({error}). A job that was submitted does not need this "
            "connection and goes on: open the tunnel again (cluster/README.md), and the same command finds it"
        ) from error
    except RuntimeError as error:
        raise ResourceError(f"{where}: {error}") from error
