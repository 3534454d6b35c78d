"""The drivers that are connected to the cluster."""

from rayclean.runtime import environment as environment

import ray


def alive_jobs() -> set[str]:
    """Ray's ids of the drivers that are alive."""
    # Private API: the public state API needs a dashboard, which an embedded Ray lacks.
    return {job["JobID"] for job in ray._private.state.jobs() if not job["IsDead"]}
