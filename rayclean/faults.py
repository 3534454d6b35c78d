"""Faults of the machine as one line each: a full disk, a folder that is gone, memory, a GPU, Ray.

They arise anywhere, in rayclean's own files as in those of libraries, and in a worker on another node; so they are
recognised in one place, where a command's work ends. What a library raises for a mistake in rayclean is no fault, and is
raised as it is.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from rayclean.errors import FaultError, RaycleanError

SYSTEM_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file grew beyond the limit of its size (ulimit -f, or the file system's)",
    errno.EROFS: "it is on a read-only file system",
    errno.EACCES: "it may not be read or written by this user",
    errno.EPERM: "it may not be changed by this user",
    errno.ENOENT: "it is gone: moved, deleted or unmounted meanwhile",
    errno.ENOTDIR: "a part of its path is a file, not a folder",
    errno.EISDIR: "a folder is in its place",
    errno.ESTALE: "its network file system has lost it",
    errno.EIO: "its disk reports an input/output error",
    errno.ENOTCONN: "its network file system is not connected",
    errno.ENODEV: "its device is gone",
    errno.ENXIO: "its device is gone",
    errno.EMFILE: "this process may not open more files (ulimit -n)",
    errno.ENFILE: "the system may not open more files",
    errno.ENOMEM: "the machine has no memory left",
    errno.EAGAIN: "the machine may start no more processes or threads (ulimit -u)",
    errno.ETIMEDOUT: "it does not answer in time",
    errno.ECONNREFUSED: "nobody answers there",
    errno.ECONNRESET: "the connection was cut",
    errno.EHOSTUNREACH: "it cannot be reached",
    errno.ENETUNREACH: "the network cannot be reached",
    errno.EPIPE: "the process at its other end is gone",
}
"""What an error of the operating system means for the path that it names."""
_WRITE = re.compile(r"no space left|storagefull|disk quota|quota exceeded|errno 28|errno 122", re.IGNORECASE)
"""Texts of a full disk in errors of libraries that are no `OSError` (safetensors, pyarrow, Ray)."""
_GPU = re.compile(
    r"CUDA error|CUDA out of memory|CUBLAS_STATUS|CUDNN_STATUS|NCCL error|HIP error|device-side assert"
)
_OBJECT_STORE = ("botocore.", "aiobotocore.", "gcsfs.", "google.", "azure.", "aiohttp.")
"""Packages whose errors are those of a store or of the way to it."""
KEPT = "finished work is kept, and the same command goes on from here"


@contextmanager
def faults_explained(folder: str) -> Iterator[None]:
    """Raise the faults of the machine that end the block as errors of one line.

    Args:
        folder: what the block works in, named where an error names no path.

    Raises:
        FaultError: the machine failed.
    """
    try:
        yield
    except RaycleanError:  # it says what to do
        raise
    except Exception as error:
        text = fault(error, folder)
        if text is None:
            raise
        raise FaultError(f"{text}; {KEPT}") from error


def fault(error: BaseException, folder: str) -> str | None:
    """A fault of the machine in one line, with the advice for it; None for any other error.

    Args:
        error: what was raised; errors that it was raised from are looked at, too.
        folder: named where the error names no path.

    Example:
        >>> fault(OSError(28, "No space left on device", "/data/runs/a"), "/data")
        "cannot write '/data/runs/a': the disk is full; make room"
        >>> fault(KeyError("x"), "/data") is None
        True
    """
    for each in _chain(error):
        text = _known(each, folder)
        if text is not None:
            return text
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those that it was raised from, at most ten."""
    following: BaseException | None = error
    for _ in range(10):
        if following is None:
            return
        inner = getattr(following, "cause", None)  # Ray's error of a task holds what the task raised
        if isinstance(inner, BaseException):
            following = inner
        yield following
        following = following.__cause__


def _known(error: BaseException, folder: str) -> str | None:
    packages = [f"{cls.__module__}.{cls.__name__}" for cls in type(error).__mro__]
    said = " ".join(str(error).split())
    if _WRITE.search(said) and not isinstance(error, OSError):
        return f"cannot write to {folder!r}: the disk is full ({said[:200]}); make room"
    if isinstance(error, OSError) and not any(name.startswith(_OBJECT_STORE) for name in packages):
        return _of_system(error, folder)
    if isinstance(error, MemoryError):
        return (
            f"the machine has no memory left ({said or 'MemoryError'}): close other programs, or lower "
            "dataset.rows_per_shard, train.batch_size or predict.tokens_per_batch"
        )
    if packages[0].startswith("torch.OutOfMemoryError") or ("out of memory" in said and _GPU.search(said)):
        return f"the GPU has no memory left ({said[:200]}): lower train.batch_size, predict.tokens_per_batch or predict.actors"
    if isinstance(error, RuntimeError) and _GPU.search(said):
        return f"the GPU failed or is lost ({said[:200]}): look at nvidia-smi, or set cluster.use_gpu = false"
    if packages[0] == "ray.data.exceptions.ExecutionTimeoutError":
        return (
            f"work on Ray made no progress for too long ({said.partition('. ')[0][:200]}): end what holds the cluster "
            "(`ray status` shows it), or lower dataset.rows_per_shard if a shard takes as long as that"
        )
    if any(name.startswith("ray.exceptions.") for name in packages):
        return f"Ray failed under the work ({type(error).__name__}: {said[:300]})"
    if any(name.startswith(_OBJECT_STORE) for name in packages):
        return f"the store of {folder!r} failed ({type(error).__name__}: {said[:300]}): look at its address and rights"
    return None


def _of_system(error: OSError, folder: str) -> str:
    """An error of the operating system."""
    number = error.errno
    if number is None and (found := re.search(r"\[errno (\d+)\]", str(error), re.IGNORECASE)):
        number = int(found[1])  # pyarrow
    reason = SYSTEM_ERRORS.get(number or 0) or (
        os.strerror(number) if number else " ".join(str(error).split())[:300]
    )
    if not number and error.filename is None:
        return reason  # of a library, in its own words
    path = error.filename if error.filename is not None else folder
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    writes = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
    advice = {
        errno.ENOENT: "; restore or mount it, or choose another folder (output=...)",
        errno.EISDIR: "; remove it, or choose another folder (output=...)",
        errno.ESTALE: "; mount it again",
        errno.ENOTCONN: "; mount it again",
        errno.EIO: "; save what is on it, and choose another folder (output=...)",
        errno.EMFILE: "; raise the limit",
        errno.ENFILE: "; close other programs",
        errno.ENOMEM: "; close other programs",
        errno.EAGAIN: "; raise the limit, or close other programs",
        errno.ECONNREFUSED: "; start what should answer, or correct the address",
        errno.ENOSPC: "; make room",
        errno.EDQUOT: "; make room",
        errno.ENOTDIR: "; choose another folder (output=...)",
        errno.EROFS: "; mount it writable, or choose another folder (output=...)",
        errno.EACCES: "; change its rights, or choose another folder (output=...)",
        errno.EPERM: "; change its rights, or choose another folder (output=...)",
    }.get(number or 0, "")
    return f"cannot {'write' if writes else 'use'} {path!r}: {reason}{advice}"
