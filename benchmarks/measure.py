"""Memory and CPU time of a process and of what it starts."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any


def measured_alone(script: str, task: list[Any]) -> dict[str, Any]:
    """The last line that `script --task TASK` prints, as JSON: a call in a process of its own, on one thread."""
    one = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, script, "--task", json.dumps(task)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | one)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def peak_mb() -> float:
    """Greatest memory of this process; not `ru_maxrss`, which starts with that of the parent."""
    status = Path("/proc/self/status")
    if status.exists():
        return round(int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1)  # macOS: bytes


class Tree:
    """CPU seconds of this process and all below it, and the greatest memory of any worker among them."""

    def __init__(self) -> None:
        import psutil

        self.root = psutil.Process()
        self.cpu: dict[int, float] = {}
        self.worker_mb = 0.0

    def look(self) -> float:
        """CPU seconds so far; called now and then, so that processes that end are counted up to their last look."""
        import psutil

        for process in [self.root, *self.root.children(recursive=True)]:
            try:
                with process.oneshot():
                    times, name = process.cpu_times(), process.name()
                    self.cpu[process.pid] = times.user + times.system
                    if name.startswith("ray::"):
                        self.worker_mb = max(
                            self.worker_mb, (process.memory_info().rss - process.memory_info().shared) / 2**20
                        )
            except psutil.Error:
                continue
        return sum(self.cpu.values())
