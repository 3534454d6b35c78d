"""What is submitted, against a job server of plain Python: who was first, and whether it is the same work."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from rayclean.errors import ArtifactError, FaultError, ResourceError
from rayclean.runtime import jobs as module
from rayclean.runtime.jobs import JobPackage, Jobs
from tests.full_disk import files_of_at_most

from ray._private.runtime_env.packaging import create_package
from ray.job_submission import JobDetails, JobStatus

PARCEL = JobPackage("run", "s3://bucket/runs/run", "rayclean clean config.json", {"config.json": "{}"})
OTHER = JobPackage(
    "run", "s3://bucket/runs/run", "rayclean clean config.json", {"config.json": '{"seed": 1}'}
)


class Server:
    """Knows no job until somebody submits one; a rival may be faster."""

    def __init__(self, rival: JobPackage | None):
        self.rival, self.known = rival, []

    def get_address(self) -> str:
        return "http://10.0.0.1:8265"

    def list_jobs(self) -> list[JobDetails]:
        return self.known

    def submit_job(self, *, submission_id: str, metadata: dict[str, str], **rest: object) -> None:
        if self.rival is not None:
            metadata = {"rayclean": self.rival.fingerprint}
        job = {"type": "SUBMISSION", "submission_id": submission_id, "metadata": metadata, "entrypoint": "x"}
        self.known = [JobDetails(**job, status=JobStatus.RUNNING)]
        if self.rival is not None:
            raise RuntimeError(f"Job with submission_id {submission_id} already exists")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Callable[[JobPackage | None], Jobs]:
    def start(rival: JobPackage | None) -> Jobs:
        monkeypatch.setattr(module, "JobSubmissionClient", lambda address: Server(rival))
        return Jobs("http://10.0.0.1:8265")

    return start


def test_of_two_at_the_same_moment_one_starts(server: Callable[[JobPackage | None], Jobs]) -> None:
    job, new = server(None).submit(PARCEL)
    assert (job.attempt, new) == (1, True)
    job, new = server(PARCEL).submit(PARCEL)
    assert (job.under_way, new) == (True, False)


def test_a_rival_with_another_config_is_no_success(server: Callable[[JobPackage | None], Jobs]) -> None:
    with pytest.raises(ArtifactError, match=r"works in s3://bucket/runs/run with another config"):
        server(OTHER).submit(PARCEL)


def test_another_refusal_stays_one(
    server: Callable[[JobPackage | None], Jobs], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = server(PARCEL)
    monkeypatch.setattr(jobs.client, "list_jobs", list)
    with pytest.raises(ResourceError, match="already exists"):
        jobs.submit(PARCEL)


def test_a_tunnel_that_breaks_is_explained(
    server: Callable[[JobPackage | None], Jobs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's client hands on what requests raises, which is no ConnectionError of Python's."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{probe.getsockname()[1]}"
    jobs = server(None)

    def gone(*_: object, **__: object) -> None:
        requests.get(closed, timeout=5)

    for asked in ("list_jobs", "submit_job", "get_job_info", "get_job_logs"):
        monkeypatch.setattr(jobs.client, asked, gone, raising=False)
    for ask in (
        lambda: jobs.submit(PARCEL), lambda: jobs.latest("r", "run"), lambda: jobs.state("x-1"), lambda: jobs.logs("x-1"),
    ):  # fmt: skip
        with pytest.raises(ResourceError, match=r"A job that was submitted .* goes on"):
            ask()


@pytest.mark.parametrize(("mode", "prefix"), [("token", "RAY_AUTH_MODE=token "), (None, "")])
def test_the_command_that_stops_a_job_works_as_it_stands(
    server: Callable[[JobPackage | None], Jobs],
    monkeypatch: pytest.MonkeyPatch,
    mode: str | None,
    prefix: str,
) -> None:
    jobs = server(None)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    assert (
        jobs.stop("rayclean-run-1") == f"{prefix}ray job stop rayclean-run-1 --address http://10.0.0.1:8265"
    )


def test_a_disk_without_room_for_what_is_sent(
    server: Callable[[JobPackage | None], Jobs], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    jobs = server(None)
    full = "beyond the limit of its size"
    with (
        files_of_at_most(1),
        pytest.raises(FaultError, match=rf"cannot write '.*rayclean-job-.*/config\.json'.*{full}"),
    ):
        jobs.submit(PARCEL)

    def pack(*, runtime_env: dict[str, str], **rest: object) -> None:
        create_package(runtime_env["working_dir"], tmp_path / "sent.zip", include_gitignore=False)

    with monkeypatch.context() as patch:
        patch.setattr(jobs.client, "submit_job", pack)
        with files_of_at_most(10), pytest.raises(FaultError, match=f"{full}.*the same command goes on"):
            jobs.submit(PARCEL)
    assert jobs.client.list_jobs() == []
    _, new = jobs.submit(PARCEL)
    assert new
