"""The commands `submit` and `logs`, and the job's line of `status`, which use the job server of a cluster."""

import os
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rayclean.cli.arguments import AddressOption, OverridesArgument
from rayclean.errors import ArtifactError, ConfigError, ResourceError
from rayclean.interrupts import say_kept

if TYPE_CHECKING:
    from rayclean.config import Config
    from rayclean.runtime.jobs import Jobs, RunJob

ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Environment variables that may hold the address of a job server."""
FileArgument = Annotated[
    str, typer.Argument(metavar="CONFIG", help="Config file, or a sweep file with --verb sweep.")
]
VerbOption = Annotated[
    str, typer.Option(help="clean, sweep, or one of load predict detect relabel train evaluate.")
]


def submit(
    config: FileArgument,
    overrides: OverridesArgument = None,
    address: AddressOption = None,
    verb: VerbOption = "clean",
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print the job's log until it ends.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Even if this very job has succeeded before.")
    ] = False,
    extend: Annotated[
        bool, typer.Option("--extend", help="--verb sweep only: the sweep's space grew; run what is new.")
    ] = False,
) -> None:
    """Run a config on a Ray cluster. The same work is never started twice; after a failure it is resumed."""
    from rayclean.job_package import pack
    from rayclean.runtime.jobs import Jobs

    package = pack(verb, config, overrides or [], extend=extend)
    jobs = Jobs(address)
    job, new = jobs.submit(package, again=again)
    if new:
        typer.echo(f"submitted {job.id} to {jobs.address}")
    elif job.under_way:
        typer.echo(f"{job.id} is {job.state} already; nothing was started")
    else:
        typer.echo(f"{job.id} has done this; --again submits it once more (finished verbs are reused)")
    if follow:
        _follow(jobs, job)
        return
    arguments = shlex.join([config, *(overrides or []), *(["--address", address] if address else [])])
    arguments += f" --verb {verb}" if verb == "sweep" else ""
    typer.echo(f"its log: rayclean logs {arguments} --follow")
    if verb != "sweep":
        typer.echo(f"how far: rayclean status {arguments}")
    typer.echo(f"stop it: {jobs.stop(job.id)}")


def logs(
    config: FileArgument,
    overrides: OverridesArgument = None,
    address: AddressOption = None,
    verb: VerbOption = "clean",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the job ends.")] = False,
) -> None:
    """Print the output of a run's last job."""
    from rayclean.job_package import pack
    from rayclean.runtime.jobs import Jobs

    package = pack(verb, config, overrides or [])
    jobs = Jobs(address)
    job = jobs.latest(package.run, package.name)
    if job is None:
        raise ArtifactError(
            f"{jobs.address} knows no job that works in {package.run}; submit it first: rayclean submit {config}"
        )
    if follow:
        _follow(jobs, job)
    else:
        typer.echo(jobs.logs(job.id), nl=False)


@dataclass(frozen=True)
class LastJob:
    """What a job server says of a run."""

    jobs: "Jobs | None" = None
    """The server; None where none is named, or none has answered."""
    job: "RunJob | None" = None
    """The run's last job; None where it has none."""

    @property
    def described(self) -> str:
        """A line on it."""
        assert self.jobs is not None
        if self.job is None:
            return f"no job of this run on {self.jobs.address}"
        return f"{self.job.id} (attempt {self.job.attempt}): {self.job.state}. {self.job.message}"

    def to_json(self) -> dict[str, Any] | None:
        """The job as JSON values."""
        if self.job is None:
            return None
        return {name: getattr(self.job, name) for name in ("id", "attempt", "state", "message")}


def run_job(address: str | None, config: "Config") -> LastJob:
    """A run's last job, if `--address` or the environment names a job server.

    Args:
        address: address from the command line, at which a server must answer; None: from the environment.
        config: config of the run.
    """
    if not address and not any(os.environ.get(name) for name in ADDRESSES):
        return LastJob()
    from rayclean.runtime.jobs import Jobs

    try:
        jobs = Jobs(address)
        return LastJob(jobs, jobs.latest(_run_url(config), config.name))
    except ResourceError as error:
        if address:
            raise
        typer.secho(f"no state of the job: {error}", fg="yellow", err=True)
        return LastJob()


def _run_url(config: "Config") -> str:
    """The URL of the run folder as `submit` writes it, also if the package for its file system is missing."""
    from rayclean.pipeline import open_run

    try:
        return open_run(config).url()
    except ConfigError:
        return os.path.join(config.output, config.name)


def _follow(jobs: "Jobs", job: "RunJob") -> None:
    say_kept(f"{job.id} goes on on the cluster; stop it with: {jobs.stop(job.id)}")
    for piece in jobs.follow(job.id):
        typer.echo(piece, nl=False)
    ended = jobs.state(job.id)
    typer.echo(f"{job.id}: {ended.state}")
    if ended.state != "SUCCEEDED":
        typer.secho(
            f"{ended.message}\nfinished work is kept: the same command submits the next attempt, "
            "which goes on from here",
            fg="red",
            err=True,
        )
        raise typer.Exit(1)
