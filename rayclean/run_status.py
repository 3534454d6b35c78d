"""How far a run is under a config, verb by verb."""

from dataclasses import dataclass
from typing import Literal

from rayclean.config import Config
from rayclean.pipeline import open_run
from rayclean.run import VERBS
from rayclean.verb_fingerprints import fingerprints


@dataclass(frozen=True)
class VerbStatus:
    """How far one verb is."""

    verb: str
    state: Literal["done", "stale", "partial", "missing"]
    """`stale`: finished under another config or other inputs; `partial`: begun and not finished."""
    seconds: float | None
    """Wall time of the attempt that finished it; None where nothing is finished."""
    detail: str
    """The reason for a state other than done and missing, in words; may be empty."""


def status(config: Config) -> list[VerbStatus]:
    """How far a run is under a config: a row per verb, in their order.

    Raises:
        ConfigError: a plug-in or an option is wrong.
        DataError: the data set cannot be found.
    """
    run = open_run(config)
    expected = fingerprints(config, run)
    rows = []
    for verb in VERBS:
        manifest = run.manifest(verb)
        partial = run.sub(".partial", f"{verb}-{expected[verb]}")
        if manifest is not None and manifest.fingerprint == expected[verb]:
            rows.append(VerbStatus(verb, "done", manifest.seconds, ""))
        elif partial.exists():
            files = sum(len(names) for _, _, names in partial.fs.walk(partial.root))
            rows.append(VerbStatus(verb, "partial", None, f"{files} files of an unfinished attempt"))
        elif manifest is not None:
            detail = "made from another config or other inputs"
            rows.append(VerbStatus(verb, "stale", manifest.seconds, detail))
        else:
            rows.append(VerbStatus(verb, "missing", None, ""))
    return rows
