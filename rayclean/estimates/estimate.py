"""What a run will take: seconds, questions, tokens and money, each with where it comes from."""

import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rayclean.annotators.estimate import LoadedTexts
from rayclean.config import Config
from rayclean.errors import DataError
from rayclean.estimates.questions import QuestionCosts, estimate_costs
from rayclean.estimates.rehearsal import RehearsedRun, Shortened, rehearse, seconds_per_text, shortened
from rayclean.estimates.sampling import DataSample, draw_rows, sample_config
from rayclean.estimates.verb_times import TimePart, estimate_times
from rayclean.folder import Folder
from rayclean.pipeline import open_run, validate_verbs
from rayclean.progress import say
from rayclean.run import VERBS, Run
from rayclean.runtime.needs import VerbNeeds, is_worth_ray
from rayclean.verb_fingerprints import fingerprints, verb_module

SIZES = (64, 256, 1024)
"""Rows of the three rehearsals, where a text takes milliseconds."""
SLOW_SIZES = (48, 64, 192)
"""The same where a text takes longer, since a whole network is trained."""
_SLOW = 0.02
"""Seconds a text takes at least where it is slow."""
_TRAIN_SECONDS = 4.0
"""What the training of the largest rehearsal may take at least."""
_MOST_EPOCHS = 8
"""Most epochs of it."""
_RAY_SECONDS = 15.0
"""What Ray takes to start."""
_WORKERS_SECONDS = 12.0
"""What the processes of a verb take to start, each of which imports PyTorch."""


@dataclass(frozen=True)
class VerbEstimate:
    """What a verb will take."""

    verb: str
    seconds: float
    """Without the answers of an annotator; 0 where it is done."""
    is_done: bool
    """Whether it is finished under this config, so that it is reused."""
    parts: tuple[TimePart, ...]


@dataclass(frozen=True)
class RunEstimate:
    """What a run will take."""

    name: str
    rows: int
    """Of the data."""
    rows_basis: str
    examples: int
    """Rows of them that can be used."""
    verbs: tuple[VerbEstimate, ...]
    questions: tuple[QuestionCosts, ...]
    notes: tuple[str, ...]
    """What the figures leave out, in sentences."""

    @property
    def seconds(self) -> float:
        """Of all verbs and of all questions whose time is known."""
        return sum(each.seconds for each in self.verbs) + sum(each.seconds or 0.0 for each in self.questions)

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON values, with their sums."""
        costs = {each.currency for each in self.questions if each.cost}
        return {
            **asdict(self),
            "seconds": self.seconds,
            "tokens": sum(each.tokens for each in self.questions),
            "cost": sum(each.cost for each in self.questions),
            "currency": next(iter(costs), None),
        }


def estimate_run(config: Config, *, measure_model: bool = False) -> RunEstimate:
    """Rehearse a run on a sample of its data, in this process and a temporary folder, and scale what it took.

    Args:
        config: of the run; what it has finished already costs nothing.
        measure_model: whether a language model that the run would serve is started and asked, to learn its speed.

    Raises:
        RaycleanError: the config or the data cannot work: what the run itself would say.
    """
    run = open_run(config)
    validate_verbs(config, VERBS, run)
    prints = fingerprints(config, run)
    done = {verb: run.done(verb, prints[verb]) for verb in VERBS}
    if all(done.values()):
        return _nothing_left(config, run)
    sizes = SLOW_SIZES if seconds_per_text(config) > _SLOW else SIZES
    sample = draw_rows(config, sizes[-1])
    with tempfile.TemporaryDirectory(prefix="rayclean-estimate-", ignore_cleanup_errors=True) as path:
        folder = Folder(path)
        runs, short = _rehearse_all(config, folder, sizes, sample)
        used = runs[-1].examples / max(len(sample.rows), 1)
        data = LoadedTexts.of(run) if done["load"] else None
        if data is None:
            sampled = LoadedTexts.of(runs[-1].run)
            assert sampled is not None, "the rehearsal has loaded its sample"
            data = replace(sampled, examples=round(used * sample.count.rows))
        examples = data.examples
        times = estimate_times(config, sample, runs, short, examples)
        costs = (
            []
            if done["relabel"] and done["train"]
            else estimate_costs(config, runs[-1], data, measure=measure_model)
        )
        needed = {verb: _needs(config, verb, runs[-1], examples) for verb in VERBS if not done[verb]}
    costs = [each for each in costs if not done["relabel" if each.asker == "relabel" else "train"]]
    starts = _starts(
        config, needed, {each.asker for each in costs if each.billable and each.seconds is not None}
    )
    verbs = [_verb(verb, [*times[verb], *starts.get(verb, ())], done[verb]) for verb in VERBS]
    return RunEstimate(
        config.name,
        sample.count.rows,
        sample.count.basis,
        examples,
        tuple(verbs),
        tuple(costs),
        tuple(_notes(config, costs)),
    )


def _nothing_left(config: Config, run: Run) -> RunEstimate:
    """The estimate of a run that is finished."""
    manifest = run.manifest("load")
    metrics: dict[str, Any] = {} if manifest is None else manifest.metrics
    rows = sum(int(each["rows"]) for each in metrics["left_out"].values())
    verbs = tuple(_verb(verb, (), True) for verb in VERBS)
    return RunEstimate(config.name, rows, "as loaded before", int(metrics["examples"]), verbs, (), ())


def _rehearse_all(
    config: Config, folder: Folder, sizes: Sequence[int], sample: DataSample
) -> tuple[list[RehearsedRun], Shortened]:
    """A cold, a small and a large rehearsal, and what the large one leaves out.

    Where a training takes next to no time, the large one has more epochs, so that there is something to measure.
    """
    runs: list[RehearsedRun] = []
    short = shortened(config)
    for number, size in enumerate(sizes, 1):
        count = min(size, len(sample.rows))
        if number == len(sizes):
            trained = runs[-1].verbs["train"]
            per_epoch = (
                trained.training
                / max(trained.work, 1)
                * runs[-1].examples
                * count
                / max(min(sizes[-2], count), 1)
            )
            short = shortened(config, min(_MOST_EPOCHS, max(1, int(_TRAIN_SECONDS / max(per_epoch, 1e-9)))))
        say(f"estimate: all verbs on {count:,} rows of a sample ({number} of {len(sizes)})")
        runs.append(rehearse(sample_config(short.config, folder.sub(f"part-{number}"), sample, count)))
    if not runs[-1].examples:
        raise DataError("no row of the sample can be used; `rayclean load` says why")
    return runs, short


def _verb(verb: str, parts: Sequence[TimePart], is_done: bool) -> VerbEstimate:
    kept = () if is_done else tuple(each for each in parts if each.seconds >= 0.05) or tuple(parts[:1])
    return VerbEstimate(verb, sum(each.seconds for each in kept), is_done, kept)


def _needs(config: Config, verb: str, rehearsed: RehearsedRun, examples: int) -> VerbNeeds:
    """What a verb of the run will say that it needs, by which the run decides whether it is worth Ray."""
    needs: VerbNeeds = verb_module(verb).needs(config, rehearsed.run)
    return replace(needs, seconds=needs.seconds * examples / rehearsed.examples)


def _starts(
    config: Config, needed: Mapping[str, VerbNeeds], timed: Collection[str]
) -> dict[str, list[TimePart]]:
    """What Ray and its processes take to start, by the verb that waits for it.

    Args:
        config: of the run.
        needed: what the verbs need that are not done, in order.
        timed: askers of questions whose time is known, the start of the model and of Ray included.
    """
    found: dict[str, list[TimePart]] = {}
    for verb, needs in needed.items():
        if is_worth_ray(config.cluster, needs):
            begins = not found and verb not in timed
            found[verb] = [TimePart("Ray's start", _RAY_SECONDS, "assumed")] if begins else []
            if needs.trains or needs.network:
                found[verb].append(TimePart("start of its processes", _WORKERS_SECONDS, "assumed"))
    return found


def _notes(config: Config, costs: Sequence[QuestionCosts]) -> list[str]:
    found = []
    if config.cluster.address or os.environ.get("RAY_ADDRESS") or config.cluster.workers > 1:
        found.append(
            "seconds are those of one process on this machine; the cluster's nodes may be faster, and are more"
        )
    if any(each.asker == "relabel" and each.billable for each in costs) and not config.relabel.ask_all:
        found.append(
            "asking ends after the controls and 200 suspects where the annotator is no better than chance"
        )
    if any(each.seconds is None for each in costs):
        found.append("how fast the annotator answers is not known, and not in the sum")
    if any(each.billable for each in costs):
        found.append("questions whose answer is in the ledger are asked about no more")
    return found
