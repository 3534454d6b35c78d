"""The order of the verbs, their fingerprints, and what is reused.

    load -> predict -> detect -> relabel -> train -> evaluate

A verb's fingerprint is a hash of its inputs' fingerprints, of the part of the config that it reads, and of its
code's VERSION. It is computed from the config alone, so that `status` and `clean` know before any work what is
there, what is stale and what comes next: changing `detect.budget` re-runs detect and what follows, never predict.
"""

import fcntl
import importlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rayclean.annotators import ANNOTATORS
from rayclean.config import Config, Plugin, parse_config
from rayclean.detectors import DETECTORS
from rayclean.errors import ArtifactError, ConfigError
from rayclean.fingerprints import fingerprint, stamps
from rayclean.folder import Folder
from rayclean.methods import METHODS
from rayclean.models import ENCODERS
from rayclean.plugins import build_options, resolve
from rayclean.progress import console
from rayclean.run import MANIFEST, VERBS, Run
from rayclean.tasks import TASKS

if TYPE_CHECKING:
    from rayclean.runtime.engines import Workplace
    from rayclean.runtime.needs import VerbNeeds

INPUTS: dict[str, tuple[str, ...]] = {
    "load": (),
    "predict": ("load",),
    "detect": ("load", "predict"),
    "relabel": ("load", "predict", "detect"),
    "train": ("load", "predict", "relabel"),
    "evaluate": ("load", "predict", "detect", "relabel", "train"),
}
"""Which finished folders each verb reads."""


def open_run(config: Config) -> Run:
    """The run folder that a config names."""
    return Run(os.path.join(config.output, config.name))


def check_plugins(config: Config) -> dict[str, Any]:
    """Resolve every name in the config and check its options.

    Returns:
        The identity of every plug-in, as plain JSON values, for fingerprints.

    Raises:
        ConfigError: an unknown name or option, with the nearest valid ones.
    """

    def identity(family: str, registry: dict[str, str], plugin: Plugin) -> dict[str, Any]:
        options = build_options(family, resolve(family, registry, plugin.name), plugin.options)
        return {"name": plugin.name, **options.identity()}

    return {
        "task": identity("task", TASKS, config.task),
        "encoder": identity("encoder", ENCODERS, config.encoder),
        "detectors": [identity("detector", DETECTORS, detector) for detector in config.detect.detectors],
        "annotator": identity("annotator", ANNOTATORS, config.annotator),
        "method": identity("method", METHODS, config.method),
    }


def fingerprints(config: Config, run: Run) -> dict[str, str]:
    """The fingerprint that each verb's folder must have under this config.

    Raises:
        ConfigError: a plug-in or an option is wrong.
        DataError: the data set cannot be found.
    """
    plugins = check_plugins(config)
    dataset = config.dataset.identity()
    prompts = {key: dataset.pop(key) for key in ("words", "definitions")}
    # Replaced probabilities or a classifier trained anew are other inputs.
    given = [stamps(path) for path in (*_paths(config.predict.path), *_paths(config.predict.model))]
    reads: dict[str, Any] = {
        "load": [dataset, config.seed, _verb("load").source_fingerprint(config)],
        "predict": [plugins["task"], plugins["encoder"], config.predict.identity(), given, config.seed],
        "detect": [plugins["task"], plugins["detectors"], config.detect.identity(), config.seed],
        "relabel": [plugins["annotator"], config.relabel.identity(), prompts, config.seed, _reverts(run)],
        "train": [plugins["encoder"], plugins["method"], config.train.identity(), config.seed],
        "evaluate": [config.evaluate.identity()],
    }
    prints: dict[str, str] = {}
    for verb in VERBS:
        inputs = [prints[name] for name in INPUTS[verb]]
        prints[verb] = fingerprint(verb, _verb(verb).VERSION, inputs, reads[verb])
    return prints


def validate_verbs(config: Config, verbs: Sequence[str] = VERBS, run: Run | None = None) -> None:
    """What can be known to be wrong before anything expensive starts: names, options, models, endpoints.

    Raises:
        RaycleanError: it cannot work.
    """
    for verb in verbs:
        _verb(verb).validate(config, run or open_run(config))


def load(config: Config, *, again: bool = False) -> Run:
    """Read, validate and identify the examples."""
    return run_verbs(config, ("load",), again=again)


def predict(config: Config, *, again: bool = False) -> Run:
    """Let a model predict the examples it was trained on."""
    return run_verbs(config, ("predict",), again=again)


def detect(config: Config, *, again: bool = False) -> Run:
    """Find the doubtful labels."""
    return run_verbs(config, ("detect",), again=again)


def relabel(config: Config, *, again: bool = False) -> Run:
    """Ask the annotator about the doubtful labels."""
    return run_verbs(config, ("relabel",), again=again)


def train(config: Config, *, again: bool = False) -> Run:
    """Train on the final labels."""
    return run_verbs(config, ("train",), again=again)


def evaluate(config: Config, *, again: bool = False) -> Run:
    """Measure against whatever truth is known, and write the report."""
    return run_verbs(config, ("evaluate",), again=again)


def clean(config: Config, *, again: bool = False) -> Run:
    """All six verbs; finished ones are reused (unless `again`), a crashed one goes on where it was."""
    return run_verbs(config, VERBS, again=again)


def run_verbs(
    config: Config,
    verbs: tuple[str, ...],
    *,
    again: bool = False,
    run: Run | None = None,
    place: "Workplace | None" = None,
) -> Run:
    """Some verbs, in order; finished ones are reused.

    Args:
        config: of the run.
        verbs: a part of `VERBS`.
        again: run them even if they are finished.
        run: where artifacts lie; the folder that the config names by default.
        place: what the run shares with others that run side by side; None: nothing.

    Raises:
        RaycleanError: the config cannot work, or what a verb raises.
    """
    run = run or open_run(config)
    prints = fingerprints(config, run)
    with locked(run):
        todo: list[str] = []
        for verb in verbs:
            if again or not run.done(verb, prints[verb]) or set(INPUTS[verb]) & set(todo):
                todo.append(verb)
        if todo:
            _require_inputs(run, todo, prints)
            validate_verbs(config, todo, run)
        run.write_text(config.model_dump_json(indent=1), "config.json")
        for verb in verbs:
            if verb not in todo:
                console.print(f"{verb}: done before, reused", highlight=False)
        if todo:
            _run_unfinished(config, run, todo, prints, again, place)
        if "evaluate" in verbs:  # the two files that people look for stand at the top
            for name in ("metrics.json", "report.html"):
                if run.exists("evaluate", name):
                    run.write_text(run.read_text("evaluate", name), name)
                else:  # evaluate.report = false: an earlier report would be of other labels
                    run.remove(name)
    return run


@dataclass(frozen=True)
class VerbStatus:
    """How far one verb is."""

    verb: str
    state: Literal["done", "stale", "partial", "missing"]
    """`stale`: finished under another config or other inputs; `partial`: begun and not finished."""
    seconds: float | None
    detail: str


def status(config: Config) -> list[VerbStatus]:
    """How far a run is under a config, verb by verb."""
    run = open_run(config)
    prints = fingerprints(config, run)
    rows = []
    for verb in VERBS:
        manifest = run.manifest(verb)
        partial = Folder(run.url(".partial", f"{verb}-{prints[verb]}"))
        if manifest is not None and manifest.fingerprint == prints[verb]:
            rows.append(VerbStatus(verb, "done", manifest.seconds, ""))
        elif partial.exists():
            shards = sum(len(files) for _, _, files in partial.fs.walk(partial.root))
            rows.append(VerbStatus(verb, "partial", None, f"{shards} files of an unfinished attempt"))
        elif manifest is not None:
            rows.append(
                VerbStatus(verb, "stale", manifest.seconds, "made from another config or other inputs")
            )
        else:
            rows.append(VerbStatus(verb, "missing", None, ""))
    return rows


def revert(config: Config, **selection: Any) -> dict[str, Any]:
    """Undo changes of labels by replaying less of the ledger; see `rayclean.annotators.final_labels.replay_reverts`.

    Verbs after relabel become stale: run them again to train and evaluate on the reverted labels.
    """
    from rayclean.annotators.final_labels import replay_reverts as replay

    run = open_run(config)
    with locked(run):
        if not run.done("relabel", fingerprints(config, run)["relabel"]):
            raise ArtifactError(
                f"{run.url('relabel')} is missing or was made from another config: run `rayclean clean` first, then revert"
            )
        result: dict[str, Any] = replay(config, run, **selection)
        # The labels were rewritten by replay; under the new list of reverts this very folder is what relabel would write.
        manifest = run.read_json("relabel", MANIFEST)
        run.write_json({**manifest, "fingerprint": fingerprints(config, run)["relabel"]}, "relabel", MANIFEST)
    return result


def resolved_config(run_folder: str) -> Config:
    """The config of an existing run folder.

    Raises:
        ArtifactError: the folder holds no run.
    """
    run = Run(run_folder)
    if not run.exists("config.json"):
        raise ArtifactError(
            f"{run.url()} is no run folder (no config.json there); give a path like runs/<name>"
        )
    config = parse_config(run.read_json("config.json"), where=run.path("config.json"))
    output, _, name = run.url().rstrip("/").rpartition("/")  # where it is now, not where it was made
    return config.model_copy(update={"output": output, "name": name})


def _run_unfinished(
    config: Config,
    run: Run,
    todo: Sequence[str],
    prints: dict[str, str],
    again: bool,
    place: "Workplace | None",
) -> None:
    from rayclean.runtime.engines import Workplace
    from rayclean.runtime.session import Session

    def needs(verbs: Sequence[str]) -> "list[VerbNeeds]":
        return [_verb(verb).needs(config, run) for verb in verbs]

    with Session(config.cluster, run.name, place or Workplace()) as session:
        session.prepare(needs(todo))
        for position, verb in enumerate(todo):
            with run.exclusive(verb):
                if not again and run.done(verb, prints[verb]):  # another trial of a sweep was faster
                    continue
                start = time.monotonic()
                out = run.begin(verb, prints[verb])
                metrics = _verb(verb).run(config, run, out, session.engines(needs(todo[position:])))
                run.outdate(verb)  # even under the same fingerprint (`--again`)
                seconds = time.monotonic() - start
                run.commit(verb, prints[verb], out, seconds, metrics)
                session.report_finished(verb, seconds, metrics)
                console.print(f"{verb}: done in {seconds:,.1f} s", highlight=False)


def _require_inputs(run: Run, todo: list[str], prints: dict[str, str]) -> None:
    for verb in todo:
        for before in INPUTS[verb]:
            if before not in todo and not run.done(before, prints[before]):
                state = (
                    "was made from another config or other data" if run.manifest(before) else "has not run"
                )
                raise ArtifactError(
                    f"{verb} needs {before}, which {state}: run `rayclean {before}` first, or `rayclean clean`"
                )


def _verb(name: str) -> Any:
    return importlib.import_module(f"rayclean.verbs.{name}")


def _paths(path: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if path is None else (path,) if isinstance(path, str) else path


def _reverts(run: Run) -> str:
    return (
        fingerprint(run.read_text("ledger", "reverts.jsonl")) if run.exists("ledger", "reverts.jsonl") else ""
    )


@contextmanager
def locked(run: Run) -> Iterator[None]:
    """One process at a time in a run folder; the lock goes with the process, however it ends."""
    try:
        run.make()
        if not run.is_local:  # a bucket that is not there, or not ours, is told before anything runs
            run.write_text("", ".lock")
    except OSError as error:
        raise ConfigError(
            f"output: cannot write to {run.url()} ({error}); choose another folder (output=...)"
        ) from error
    if not run.is_local:
        yield  # object stores have no locks; the fingerprints still keep two runs of one config consistent
        return
    with open(run.path(".lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ArtifactError(
                f"another rayclean works in {run.url()}; wait for it, or choose another name (name=...)"
            ) from error
        yield
