"""The verbs as functions of a config, in their order; what is finished is reused.

load -> predict -> detect -> relabel -> train -> evaluate
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rayclean import interrupts
from rayclean.config import Config, parse_config, require_config
from rayclean.config.credentials import ADVICE, holds_credential
from rayclean.errors import ArtifactError, ConfigError
from rayclean.faults import faults_explained
from rayclean.overrides import leaves
from rayclean.progress import say
from rayclean.results import RunResults
from rayclean.run import VERBS, Manifest, Run
from rayclean.verb_fingerprints import INPUTS, fingerprints, verb_module

if TYPE_CHECKING:
    from rayclean.runtime.engines import Engines, Workplace
    from rayclean.runtime.needs import VerbNeeds

logger = logging.getLogger(__name__)

_OnEpoch = Callable[[dict[str, Any]], None]
"""Called with the line of `metrics.jsonl` of every epoch of the final training."""


def open_run(config: Config) -> RunResults:
    """The run folder that a config names.

    Raises:
        TypeError: it is no `Config`; the message has the call that makes one.
    """
    require_config(config)
    return RunResults(os.path.join(config.output, config.name))


def load(config: Config, *, again: bool = False) -> RunResults:
    """Read, validate and identify the examples; `again`: even if that is finished."""
    return run_verbs(config, ("load",), again=again)


def predict(config: Config, *, again: bool = False) -> RunResults:
    """Let a model predict the examples it was trained on; `again`: even if that is finished."""
    return run_verbs(config, ("predict",), again=again)


def detect(config: Config, *, again: bool = False) -> RunResults:
    """Find the doubtful labels; `again`: even if that is finished."""
    return run_verbs(config, ("detect",), again=again)


def relabel(config: Config, *, again: bool = False) -> RunResults:
    """Ask the annotator about the doubtful labels; `again`: what failed or was not asked."""
    return run_verbs(config, ("relabel",), again=again)


def train(config: Config, *, again: bool = False) -> RunResults:
    """Train on the final labels; `again`: even if that is finished."""
    return run_verbs(config, ("train",), again=again)


def evaluate(config: Config, *, again: bool = False) -> RunResults:
    """Measure against whatever truth is known, and write the report; `again`: even if that is finished."""
    return run_verbs(config, ("evaluate",), again=again)


def run_verbs(
    config: Config,
    verbs: Sequence[str],
    *,
    again: bool = False,
    run: RunResults | None = None,
    on_epoch: _OnEpoch | None = None,
    place: "Workplace | None" = None,
) -> RunResults:
    """Run some verbs, in order; finished ones are reused.

    Args:
        config: of the run.
        verbs: a part of `VERBS`, in their order.
        again: whether they run even if they are finished.
        run: the run folder; by default the one that the config names.
        on_epoch: hears of every epoch of the final training, if `train` runs.
        place: what the run shares with others that run side by side; None: nothing.

    Raises:
        RaycleanError: the config cannot work, the machine failed, or what a verb raises.
        TypeError: `config` is no `Config`.
    """
    from rayclean import run_actions

    is_trial = run is not None
    run = run or open_run(config)
    # Trials of a sweep have a folder of their own and one target in common: nothing is exported of them.
    exports = config.export is not None and not is_trial and "evaluate" in verbs
    with faults_explained(run.url()):
        expected = fingerprints(config, run)
    with faults_explained(run.url()), interrupts.handlers_kept(), run.locked():
        todo: list[str] = []
        for verb in verbs:
            if again or not run.done(verb, expected[verb]) or set(INPUTS[verb]) & set(todo):
                todo.append(verb)
        if todo:
            _require_inputs(run, todo, expected)
            validate_verbs(config, todo, run)
        if exports:
            run_actions.check_export(config)
        _log_reuse(config, run, verbs, todo, expected, again)
        run.write_text(config.model_dump_json(indent=1), "config.json")
        for verb in verbs:
            if verb not in todo:
                say(f"{verb}: done before, reused")
                _say_remarks(verb, run.manifest(verb))
        if todo:
            _run_unfinished(config, run, todo, expected, again, on_epoch, place)
        if "evaluate" in verbs:
            _show_results(run)
    if exports:
        run_actions.export_configured(config)
    return run


def validate_verbs(config: Config, verbs: Sequence[str] = VERBS, run: Run | None = None) -> None:
    """Check what can be known to be wrong before anything expensive starts: names, options, models,
    endpoints.

    Raises:
        RaycleanError: it cannot work.
    """
    for verb in verbs:
        verb_module(verb).validate(config, run or open_run(config))


def resolved_config(run_folder: str) -> Config:
    """The config of an existing run folder, which may have been moved since.

    Raises:
        ArtifactError: the folder holds no run.
        ConfigError: its address holds a password, a token or a key.
    """
    if holds_credential(run_folder):  # it becomes a part of the config
        raise ConfigError(f"the address of the run folder holds a password, a token or a key. {ADVICE}")
    run = Run(run_folder)
    if not run.exists("config.json"):
        raise ArtifactError(
            f"{run.url()} is no run folder (no config.json there); give a path like runs/<name>"
        )
    config = parse_config(run.read_json("config.json"), where=run.path("config.json"))
    output, _, name = run.url().rstrip("/").rpartition("/")
    return config.model_copy(update={"output": output, "name": name})


def _run_unfinished(
    config: Config,
    run: Run,
    todo: Sequence[str],
    expected: dict[str, str],
    again: bool,
    on_epoch: _OnEpoch | None,
    place: "Workplace | None",
) -> None:
    from rayclean.runtime.engines import Workplace
    from rayclean.runtime.session import Session

    def needs(verbs: Sequence[str]) -> "list[VerbNeeds]":
        return [verb_module(verb).needs(config, run) for verb in verbs]

    with Session(config.cluster, run.name, place or Workplace()) as session:
        session.prepare(needs(todo))
        for position, verb in enumerate(todo):
            interrupts.check()
            interrupts.say_kept(_progress(run, todo[:position], verb))
            with run.exclusive(verb):  # another trial of a sweep may have finished it meanwhile
                if again or not run.done(verb, expected[verb]):
                    engines = session.engines(needs(todo[position:]))
                    done = _run_verb(config, run, verb, expected[verb], engines, on_epoch)
                    session.report_finished(verb, done.seconds, done.metrics)


def _log_reuse(
    config: Config,
    run: Run,
    verbs: Sequence[str],
    todo: Sequence[str],
    expected: dict[str, str],
    again: bool,
) -> None:
    """Log of every verb why its finished folder is reused, or why it runs; `config.json` is still that of the last command."""
    if not logger.isEnabledFor(logging.INFO):
        return
    for verb in verbs:
        manifest = run.manifest(verb)
        others = [each for each in INPUTS[verb] if each in todo]
        if verb not in todo:
            why = f"is reused: it was finished under the same fingerprint, {expected[verb]}"
        elif manifest is None:
            why = "runs: it is not finished"
        elif again:
            why = "runs: it is asked for again"
        elif others:
            why = f"runs: it reads what {' and '.join(others)} will write"
        else:
            why = f"runs: its fingerprint was {manifest.fingerprint} and is {expected[verb]}; {_changes(config, run)}"
        logger.info("%s %s", verb, why)


def _changes(config: Config, run: Run) -> str:
    """What has changed since the last command, in words."""
    last = run.read_json("config.json") if run.exists("config.json") else {}
    before, now = (dict(leaves(values, ())) for values in (last, config.model_dump(mode="json")))
    keys = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    changed = [f"{'.'.join(key)} {before.get(key)} -> {now.get(key)}" for key in keys]
    if changed:
        return f"changed since the last command: {', '.join(changed)}"
    return "not the config has changed since the last command, so the data, what people said, or rayclean"


def _progress(run: Run, done: Sequence[str], verb: str) -> str:
    """How far a command is, for the message after a signal."""
    finished = f"{', '.join(done)} done, " if done else ""
    return f"{run.url()}: {finished}{verb} goes on where it was"


def _run_verb(
    config: Config,
    run: Run,
    verb: str,
    fingerprint: str,
    engines: "Engines",
    on_epoch: _OnEpoch | None = None,
) -> Manifest:
    start = time.monotonic()
    out = run.begin(verb, fingerprint)
    listening = {"on_epoch": on_epoch} if verb == "train" and on_epoch is not None else {}
    metrics = verb_module(verb).run(config, run, out, engines, **listening)
    run.outdate(verb)  # even under the same fingerprint (`--again`)
    manifest = run.commit(verb, fingerprint, out, time.monotonic() - start, metrics)
    say(f"{verb}: done in {manifest.seconds:,.1f} s")
    _say_remarks(verb, manifest)
    return manifest


def _say_remarks(verb: str, manifest: Manifest | None) -> None:
    """Print what a finished verb says of its data and figures: alarms first, then warnings."""
    metrics = {} if manifest is None else manifest.metrics
    for alarm in metrics.get("alarms", []):
        say(f"{verb}: LOOK AT THIS FIRST: {alarm}")
    for warning in metrics.get("warnings", []):
        say(f"{verb}: {warning}")


def _require_inputs(run: Run, todo: list[str], expected: dict[str, str]) -> None:
    """Refuse to run a verb whose inputs are neither finished under this config nor about to be."""
    for verb in todo:
        for needed in INPUTS[verb]:
            if needed not in todo and not run.done(needed, expected[needed]):
                state = (
                    "was made from another config or other data" if run.manifest(needed) else "has not run"
                )
                raise ArtifactError(
                    f"{verb} needs {needed}, which {state}: run `rayclean {needed}` first, or `rayclean clean`"
                )


def _show_results(run: Run) -> None:
    """Copy the two files that people look for to the top of the run folder."""
    for name in ("metrics.json", "report.html"):
        if run.exists("evaluate", name):
            run.write_text(run.read_text("evaluate", name), name)
        else:  # evaluate.report = false: an earlier report would be of other labels
            run.remove(name)
