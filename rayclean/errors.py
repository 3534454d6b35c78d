"""What can go wrong, as a tree.

    RaycleanError
    ├── ConfigError        a config file, an override or a plug-in name or option
    ├── DataError          a data set that cannot be read or does not hold what the config says
    ├── ArtifactError      a run folder that is missing, half written, or of another version
    ├── ResourceError      the cluster or the machine lacks what the config asks for
    ├── AnnotationError    an endpoint that is down, ignores its constraint, or fails too often
    ├── DisagreementError  workers of one training that see different states of its folder
    └── FaultError         the machine failed under the work: a full disk, a vanished folder, a lost GPU or Ray

Every message states what was found, what was expected and what to do next; `docs/errors.md` shows one of each kind. The
command line exits with 1 after a `FaultError`, with 2 after any other. `TypeError` is kept for Python calls with an
argument of another type than they take; `ValueError` is kept for bad
arguments of the pure functions in `rayclean.functional`; `assert` is kept for invariants of rayclean itself.
"""


class RaycleanError(Exception):
    """Base of every error that a user can mend; the command line prints it without a traceback."""

    def __init__(self, message: str):
        super().__init__(message)
        self.message = message

    def __reduce__(self) -> tuple[type["RaycleanError"], tuple[str]]:
        return (type(self), (self.message,))  # survives the way through a Ray worker


class ConfigError(RaycleanError):
    """A config file, an override or a plug-in name or option is wrong."""


class DataError(RaycleanError):
    """A data set cannot be read or does not hold what the config says."""


class ArtifactError(RaycleanError):
    """A run folder is missing, half written, or of another version."""


class ResourceError(RaycleanError):
    """The cluster or the machine lacks what the config asks for."""


class AnnotationError(RaycleanError):
    """An annotator is down, ignores its constraint, or fails too often."""


class DisagreementError(RaycleanError):
    """Workers of one training see different states of its folder; run the same command again."""


class FaultError(RaycleanError):
    """The machine failed while work was under way; once that is mended, the same command goes on."""
