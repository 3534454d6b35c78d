"""The fingerprint of every verb under a config, which decides whether finished work is reused.

A verb's fingerprint is a hash of its inputs' fingerprints, of the part of the config that it reads, and of
its code's VERSION. It is computed from the config alone, so that `status` and `clean` know before any work
what is finished, what is stale and what comes next: changing `detect.budget` re-runs detect and what follows,
never predict.
"""

import importlib
from typing import Any

from rayclean.annotators import ANNOTATORS, relabel_annotators
from rayclean.annotators.reverts import reverts_fingerprint, reverts_fingerprints
from rayclean.audits.answers import answers_fingerprint, answers_fingerprints
from rayclean.config import Config, Plugin
from rayclean.detectors import DETECTORS
from rayclean.fingerprints import fingerprint, stamps
from rayclean.methods import METHODS
from rayclean.models import ENCODERS
from rayclean.models.trained_model import trained_model
from rayclean.plugins import Family
from rayclean.run import VERBS, Run
from rayclean.tasks import TASKS

INPUTS: dict[str, tuple[str, ...]] = {
    "load": (),
    "predict": ("load",),
    "detect": ("load", "predict"),
    "relabel": ("load", "predict", "detect"),
    "train": ("load", "predict", "relabel"),
    "evaluate": ("load", "predict", "detect", "relabel", "train"),
}
"""The finished folders that each verb reads."""


def verb_module(verb: str) -> Any:
    """The module of a verb, with its `VERSION`, `validate(config, run)` and `run(config, run, out)`."""
    return importlib.import_module(f"rayclean.verbs.{verb}")


def check_plugins(config: Config) -> dict[str, Any]:
    """Resolve every name in the config and check its options.

    Returns:
        The identity of every plug-in, as plain JSON values, for fingerprints.

    Raises:
        ConfigError: an unknown name or option, with the nearest valid ones.
    """

    def identity(family: Family[Any], plugin: Plugin) -> dict[str, Any]:
        _, options = family.checked(plugin)
        return {"name": plugin.name, **options.identity()}

    return {
        "task": identity(TASKS, config.task),
        "encoder": identity(ENCODERS, config.encoder),
        "detectors": [identity(DETECTORS, detector) for detector in config.detect.detectors],
        "annotator": identity(ANNOTATORS, config.annotator),
        "annotators": [identity(ANNOTATORS, plugin) for plugin in relabel_annotators(config)],
        "method": identity(METHODS, config.method),
    }


def config_identity(config: Config) -> dict[str, Any]:
    """The part of a config on which results depend, without its seed: equal for configs that give the same
    results, however they are written (`0` and `0.0`, an explicit default) and wherever and however fast they
    run.

    Raises:
        ConfigError: a plug-in or an option is wrong.
    """
    sections = ("dataset", "predict", "detect", "relabel", "train")
    identity = {section: getattr(config, section).identity() for section in sections}
    del identity["detect"]["detectors"]  # they are plug-ins
    return identity | check_plugins(config)


def fingerprints(config: Config, run: Run) -> dict[str, str]:
    """The fingerprint that each verb's folder must have under this config.

    Raises:
        ConfigError: a plug-in or an option is wrong.
        DataError: the data set cannot be found.
    """
    return _chained(_reads(config, run))


def is_relabelled(config: Config, run: Run) -> bool:
    """Whether relabel is finished under this config, or was until people said more.

    What they say (reverts, answers of auditors) is recorded first, and then decisions and labels are made again from what
    is there. Where a full disk or the end of the process came between, the folder still has the fingerprint of before, and
    to go on needs no other work than this.

    Raises:
        ConfigError: a plug-in or an option is wrong.
        DataError: the data set cannot be found.
    """
    manifest = run.manifest("relabel")
    if manifest is None:
        return False
    reads = _reads(config, run)
    *machine, _, _, seed = reads["relabel"]
    return any(
        manifest.fingerprint == _chained({**reads, "relabel": [*machine, reverts, answers, seed]})["relabel"]
        for reverts in reversed(reverts_fingerprints(run))
        for answers in reversed(answers_fingerprints(run))
    )


def _reads(config: Config, run: Run) -> dict[str, Any]:
    """What each verb reads of config, data and people, beside the folders of other verbs."""
    plugins = check_plugins(config)
    dataset = config.dataset.identity()
    prompts = {key: dataset.pop(key) for key in ("words", "definitions")}
    relabel = {name: value for name, value in config.relabel.identity().items() if name != "annotators"}
    label_form = TASKS.resolve(config.task.name).label_form
    # Replaced probabilities or a classifier trained anew are other inputs.
    models = map(trained_model, _paths(config.predict.model))
    brought = [stamps(path) for path in (*_paths(config.predict.path), *models)]
    return {
        "load": [dataset, config.seed, verb_module("load").source_fingerprint(config), label_form],
        "predict": [plugins["task"], plugins["encoder"], config.predict.identity(), brought, config.seed],
        "detect": [plugins["task"], plugins["detectors"], config.detect.identity(), config.seed],
        "relabel": [plugins["annotators"], relabel, prompts, config.seed, *_people(config, run)],
        "train": [
            plugins["encoder"],
            plugins["method"],
            config.train.identity(),
            config.seed,
            _asked(config, plugins),
        ],
        "evaluate": [config.evaluate.identity()],
    }


def _chained(reads: dict[str, Any]) -> dict[str, str]:
    """The fingerprints of all verbs, each made from those of its inputs and from what it reads."""
    found: dict[str, str] = {}
    for verb in VERBS:
        inputs = [found[name] for name in INPUTS[verb]]
        found[verb] = fingerprint(verb, verb_module(verb).VERSION, inputs, reads[verb])
    return found


def _people(config: Config, run: Run) -> list[Any]:
    """What people said: reverts of changes, answers of auditors, and last the sample that limits harm."""
    seed = None if config.relabel.max_harm is None else config.audit.seed
    return [reverts_fingerprint(run), answers_fingerprint(run), seed]


def _paths(path: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if path is None else (path,) if isinstance(path, str) else path


def _asked(config: Config, plugins: dict[str, Any]) -> Any:
    """The annotator that the method asks while it trains; None where it asks nobody."""
    method, options = METHODS.checked(config.method)
    return None if method.expected_queries(options) is None else plugins["annotator"]
