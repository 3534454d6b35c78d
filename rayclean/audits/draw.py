"""Which units an audit asks about: some of the suspects and some of all, each part a fair draw.

The draw is kept in `<run>/audit/draw.json` for as long as detection stays what it is, so that answers that come in over
weeks, in several forms, belong to one sample. A larger sample contains the smaller one.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rayclean.audits.answers import AUDIT
from rayclean.config import AuditConfig
from rayclean.errors import ArtifactError
from rayclean.fingerprints import fingerprint
from rayclean.folder import Folder
from rayclean.functional.audit_rates import stratified_draw
from rayclean.functional.lookup import lookup
from rayclean.functional.types import Bools, Doubles, Ids
from rayclean.run import Run

FOLDER = "audit"
"""Folder of a run with the draw, the forms, the figures and the certificate; no verb removes it."""


@dataclass(frozen=True)
class Population:
    """All U units as detection sees them; 25 bytes each."""

    unit_id: Ids
    quality: Doubles
    """[U] the lower, the more likely wrong."""
    given_probability: Doubles
    """[U] that the given label is right, as detection believes."""
    suspect: Bools

    @property
    def expected_rest(self) -> float:
        """Share of wrong labels that detection expects among the units that are no suspects."""
        rest = self.given_probability[~self.suspect]
        return float(np.clip(1 - rest, 0, 1).mean()) if len(rest) else 0.0


@dataclass(frozen=True)
class Draw:
    """The units of an audit."""

    form: str
    """Name of the sample: another one for other data, another detection or another seed."""
    suspects: Ids
    """Suspects, in the order of their draw."""
    random: Ids
    """Units drawn from all, suspects or not."""

    @property
    def units(self) -> Ids:
        """All units of the sample, sorted."""
        return np.union1d(self.suspects, self.random)


def read_population(detect: Folder) -> Population:
    """All units of `findings/`."""
    columns = ["unit_id", "quality", "given_probability", "suspect"]
    shards = detect.shards("findings")
    table = pa.concat_tables([detect.read_table("findings", shard, columns=columns) for shard in shards])
    table = table.sort_by("unit_id")
    quality, probability = (table[name].to_numpy().astype(np.float64) for name in columns[1:3])
    return Population(table["unit_id"].to_numpy(), quality, probability, table["suspect"].to_numpy())


def form_name(run: Run, seed: int, purpose: str) -> str:
    """Name of the forms of a sample, for `answers.AUDIT` or `answers.CERTIFICATE`.

    Raises:
        ArtifactError: detection has not run.
    """
    detect = run.manifest("detect")
    if detect is None:
        raise ArtifactError(f"{run.url('detect')} is missing: run `rayclean clean` first")
    return f"{purpose}-{fingerprint(detect.fingerprint, seed)[:10]}"


def draw_sample(run: Run, config: AuditConfig, population: Population) -> Draw:
    """The sample of the present detection: the one that was drawn before, made larger where the config asks for more.

    Suspects are spread evenly over the probability that their suggestion is right, examples from all over quality.
    """
    name = form_name(run, config.seed, AUDIT)
    before = _drawn(run, name)
    suspects = population.unit_id[population.suspect]
    values = _suggestion_probability(run.require("relabel"), suspects)
    draw = Draw(
        name,
        _extended(before.suspects, suspects, values, config.suspects, config.seed, "audit of suspects"),
        _extended(
            before.random,
            population.unit_id,
            population.quality,
            config.random,
            config.seed,
            "audit of all",
        ),
    )
    parts = {"suspects": draw.suspects.tolist(), "random": draw.random.tolist()}
    run.write_json({"form": name, **parts}, FOLDER, "draw.json")
    return draw


def read_draw(run: Run, config: AuditConfig) -> Draw:
    """The sample that was drawn for the present detection; an empty one where none was."""
    return _drawn(run, form_name(run, config.seed, AUDIT))


def _drawn(run: Run, name: str) -> Draw:
    found = run.read_json(FOLDER, "draw.json") if run.exists(FOLDER, "draw.json") else {"form": None}
    of_this = found if found["form"] == name else {"suspects": [], "random": []}
    return Draw(name, *(np.array(of_this[part], dtype=np.int64) for part in ("suspects", "random")))


def _extended(before: Ids, ids: Ids, values: Doubles, count: int, seed: int, purpose: str) -> Ids:
    order = ids[stratified_draw(ids, values, count, seed, purpose)]
    every: Ids = np.concatenate([before, order[~np.isin(order, before)]])
    return every[: max(count, len(before))]


def _suggestion_probability(relabel: Folder, suspects: Ids) -> Doubles:
    shards = relabel.shards("annotations")
    columns = ["unit_id", "probability"]
    table = pa.concat_tables(
        [relabel.read_table("annotations", shard, columns=columns) for shard in shards]
    ).sort_by("unit_id")
    position, known = lookup(table["unit_id"].to_numpy(), suspects)
    values = np.full(len(suspects), 0.5)
    values[known] = table["probability"].to_numpy()[position[known]]
    return values
