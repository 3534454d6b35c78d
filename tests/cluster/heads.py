"""Ray heads and nodes of their own on this machine, as `ray start` makes them: dashboard, job server, token."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Head:
    """A running head."""

    dashboard: str
    """URL of the job server."""
    address: str
    """host:port of the GCS."""
    environment: dict[str, str]
    """Of whoever may use it."""
    metrics: int
    """Port of its Prometheus figures."""


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@contextmanager
def head(cpus: int = 4, extra: dict[str, str] | None = None) -> Iterator[Head]:
    """A head with token authentication; gone after the block, with all that runs on it."""
    gcs, dashboard, metrics, agent = free_ports(4)
    folder = tempfile.mkdtemp(prefix="rc-", dir="/tmp")  # short: sockets lie below it
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("RAY_")},
        **(extra or {}),
        "PATH": f"{BIN}:{os.environ['PATH']}", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    }  # fmt: skip
    command = [
        str(BIN / "ray"), "start", "--head", "--node-ip-address=127.0.0.1", f"--port={gcs}", f"--num-cpus={cpus}",
        "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--metrics-export-port={metrics}",
        f"--dashboard-agent-listen-port={agent}", f"--temp-dir={folder}", "--block", "--object-store-memory=200000000",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        _wait_for_dashboard(f"http://127.0.0.1:{dashboard}", process)
        yield Head(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}", environment, metrics)
    finally:
        _end(process, folder)


def _wait_for_dashboard(url: str, process: subprocess.Popen[bytes]) -> None:
    """It comes up after the GCS, and answers this without a token."""
    until = time.monotonic() + 120
    while True:
        with suppress(OSError), urllib.request.urlopen(f"{url}/api/gcs_healthz", timeout=5):
            return
        assert process.poll() is None, "ray start failed"
        assert time.monotonic() < until, "Ray's dashboard does not answer"
        time.sleep(0.5)


def _end(process: subprocess.Popen[bytes], folder: str) -> None:
    """`ray stop` would stop every Ray of the machine; this ends what this head started."""
    import psutil

    ours = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    _, alive = psutil.wait_procs([psutil.Process(process.pid), *ours], timeout=15)
    for each in alive:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)
