"""The cards of a model and of a data set: what a reader must know of them, by the figures of the run.

A card states what was measured and nothing else; what was not measured it calls so. Paths and addresses of the run's config
are on no card, and texts neither.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from rayclean.annotations import waiting_for_person
from rayclean.config import Config, parse_config
from rayclean.evaluation.formatting import format_interval, format_percent
from rayclean.evaluation.headlines import headlines
from rayclean.evaluation.label_metrics import injected_noise
from rayclean.evaluation.verdict import run_verdict
from rayclean.hashing import digest
from rayclean.run import Run
from rayclean.schema import FormName, LabelSet
from rayclean.tasks import TASKS

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TEMPLATES = Path(__file__).parent / "templates"
MOST_CLASSES_NAMED = 100
"""Classes that a card names; of more it says how many there are."""
_TASKS: dict[FormName, str] = {
    "class": "text-classification", "classes": "text-classification", "tags": "token-classification",
}  # fmt: skip
"""The hub's name of a task."""
_SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
_SIZE_NAMES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B")
_MINILM = "sentence-transformers/all-MiniLM-L6-v2"
"""What `minilm` is called on the hub."""
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def model_card(run: Run, repository: str) -> str:
    """The card (Markdown with a YAML header) of `train/model/`.

    Args:
        run: whose train is finished; figures are those of its evaluate, if that is finished, too.
        repository: `user/name` where it will stand.
    """
    from huggingface_hub import ModelCard, ModelCardData

    config, facts = _facts(run)
    described = run.read_json("train", "model", "rayclean.json")
    facts |= {
        "repository": repository,
        "train": run.manifest("train").metrics,  # type: ignore[union-attr]  # required by the caller
        "pipeline": described.get("pipeline"),
        "no_pipeline": _plain(described.get("no_pipeline", "it was written by an earlier rayclean")),
        "max_length": described["options"].get("max_length"),
        "encoder": _plain(_encoder_name(described)),
    }
    header = ModelCardData(
        library_name="transformers" if facts["pipeline"] else "rayclean",
        pipeline_tag=facts["task"],
        base_model=_base_model(described),
        tags=["rayclean", "label-noise", "data-cleaning"],
        model_name=config.name,
        eval_results=_results(facts, config),
    )
    return str(ModelCard.from_template(header, template_path=str(TEMPLATES / "model_card.jinja"), **facts))


def dataset_card(run: Run, repository: str, rows: int) -> str:
    """The card of the folder that `write_cleaned_dataset` wrote.

    Args:
        run: whose relabel is finished.
        repository: `user/name` where it will stand.
        rows: number of rows.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    config, facts = _facts(run)
    facts |= {"repository": repository, "rows": rows}
    header = DatasetCardData(
        pretty_name=config.name,
        task_categories=[facts["task"]],
        size_categories=[_size(rows)],
        tags=["rayclean", "label-noise", "data-cleaning"],
        configs=[{"config_name": "default", "data_files": "data/*.parquet"}],
    )
    return str(
        DatasetCard.from_template(header, template_path=str(TEMPLATES / "dataset_card.jinja"), **facts)
    )


def _facts(run: Run) -> tuple[Config, dict[str, Any]]:
    """What both cards say, and the config that the run was made from."""
    config = parse_config(run.read_json("config.json"), where=run.path("config.json"))
    names = LabelSet.from_json(run.require("load").read_text("labels.json")).names
    load, relabel = run.manifest("load"), run.manifest("relabel")
    assert load is not None
    metrics = run.read_json("evaluate", "metrics.json") if run.manifest("evaluate") is not None else None
    form = TASKS.resolve(config.task.name).label_form
    facts: dict[str, Any] = {
        "name": config.name,
        "version": load.rayclean,
        "task": _TASKS[form],
        "form": form,
        "classes": len(names),
        "class_names": [_code(name) for name in names[:MOST_CLASSES_NAMED]],
        "source": _source(config),
        "trained_on": config.train.labels,
        "method": config.method.name,
        "sources": None if relabel is None else _sources(run),
        "annotators": []
        if relabel is None
        else [_annotator(config, each) for each in relabel.metrics["judged"]],
        "prompts": _prompts(run),
        "injected": _injected(run),
        "measured": metrics is not None,
        "figures": [],
        "sentences": [],
        "certificate": None,
        "notes": [],
        "measured_on": {},
        "metrics": metrics,
    }
    if metrics is not None:
        # The commands in the verdict name the run's folder, and paths of this machine are nobody's business.
        verdict = run_verdict(metrics, config.model_dump(mode="json") | {"output": "runs"})
        facts |= {
            "figures": _figures(metrics),
            "sentences": [verdict.title + ".", *map(_plain, verdict.sentences)],
            "certificate": _plain(verdict.certificate),
            "notes": [_plain(note) for note in [*metrics["alarms"], *metrics["notes"]]],
            "measured_on": {name: _plain(text) for name, text in metrics["measured_on"].items()},
        }
    return config, facts


def _figures(metrics: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Name, value, interval or aside, and meaning of every figure that is known."""
    rows = [(each.title, each.value, each.aside, each.means) for each in headlines(metrics)]
    given = metrics["noise"]["given"]
    if given is not None:
        interval = format_interval(metrics["intervals"]["noise.given"])
        rows.insert(
            0, ("Wrong labels as given", format_percent(given), interval, "Before anything was changed.")
        )
    return [(_plain(a), _plain(b), _plain(c), _plain(d)) for a, b, c, d in rows]


def _results(facts: Mapping[str, Any], config: Config) -> "list[EvalResult] | None":
    """The measured accuracy for the header of a model card; None where none was measured on right labels alone."""
    from huggingface_hub import EvalResult

    metrics = facts["metrics"]
    if metrics is None or metrics["accuracy"]["trained"] is None:
        return None
    return [
        EvalResult(
            task_type=facts["task"], dataset_type=config.name, dataset_name=config.name, dataset_split="test",
            metric_type="accuracy", metric_value=round(metrics["accuracy"]["trained"], 4),
            metric_name=f"accuracy on {facts['measured_on']['accuracy']}",
        )
    ]  # fmt: skip


def _annotator(config: Config, judged: Mapping[str, Any]) -> dict[str, Any]:
    """Name, model and control questions of one annotator."""
    named = [config.annotator, *config.relabel.annotators]
    model = next(
        (
            str(each.options["model"])
            for each in named
            if each.name == judged["name"] and "model" in each.options
        ),
        None,
    )
    if model is not None and not _HUB_ID.fullmatch(model):
        model = model.rstrip("/").rpartition("/")[2]  # no path or address of the user's
    return {
        "name": _code(judged["name"]),
        "model": None if model is None else _code(model),
        "controls": judged["controls"],
    }


def _injected(run: Run) -> str | None:
    """What was made wrong on purpose; None where the labels are as they came."""
    noise = injected_noise(run.sub("load"))
    if noise is None:
        return None
    return (
        f"{format_percent(noise['realised_rate'])} of the given labels were made wrong on purpose (noise of kind "
        f"{_code(noise['kind'])}), for an experiment."
    )


def _sources(run: Run) -> dict[str, int]:
    """Number of labels by where they come from, as they are now, and of those that were `doubted`."""
    found: Counter[str] = Counter()
    relabel = run.sub("relabel")
    for shard in relabel.shards("labels"):
        column = relabel.read_table("labels", shard, columns=["source"])["source"]
        found.update({row["values"]: row["counts"] for row in pc.value_counts(column).to_pylist()})
    labels = sum(found.values())
    return {"labels": labels, "doubted": labels - found["given"], "changed": found["changed"],
            "referred": waiting_for_person(found), "audited": found["audited"], "reverted": found["reverted"]}  # fmt: skip


def _prompts(run: Run) -> dict[str, Any] | None:
    """Number of different prompts that were answered, and a hash of all of them; None where nobody was asked."""
    found: set[str] = set()
    if run.manifest("relabel") is not None:
        relabel = run.sub("relabel")
        for shard in relabel.shards("annotations"):
            column = pc.unique(
                relabel.read_table("annotations", shard, columns=["prompt_hash"])["prompt_hash"]
            )
            found.update(value for value in column.to_pylist() if value)
    return {"count": len(found), "hash": digest("\n".join(sorted(found)), digits=16)} if found else None


def _source(config: Config) -> str | None:
    """Where anybody finds the data; None where only the user knows."""
    path, format_ = config.dataset.path, config.dataset.format
    if format_ == "builtin" and isinstance(path, str):
        return _code(path)
    if isinstance(path, str) and path.startswith("hf://"):
        return _code(path.removeprefix("hf://"))
    return None


def _encoder_name(described: Mapping[str, Any]) -> str:
    """The network in a few words, by its description."""
    options = described["options"].get("member", described["options"])
    if "model" not in options:
        return str(options.get("name", described["encoder"]))
    part = "its head alone" if options["trainable"] == "head" else "all of it"
    return f"{_base_model(described) or Path(options['model']).name} ({part} was trained)"


def _base_model(described: Mapping[str, Any]) -> str | None:
    """The hub id of the body, if that is where it came from: only then its commit is known (`revision`)."""
    options = described["options"].get("member", described["options"])
    model = options.get("model")
    if model == "minilm":
        return _MINILM
    known = model and options.get("revision") and _HUB_ID.fullmatch(model) and not Path(model).exists()
    return model if known else None


def _size(rows: int) -> str:
    """The hub's category of a number of rows.

    >>> _size(10), _size(2225), _size(5_000_000_000)
    ('n<1K', '1K<n<10K', 'n>1B')
    """
    above = sum(rows >= size for size in _SIZES)
    if above == 0:
        return "n<1K"
    return (
        f"n>{_SIZE_NAMES[-1]}" if above == len(_SIZES) else f"{_SIZE_NAMES[above - 1]}<n<{_SIZE_NAMES[above]}"
    )


def _plain(text: str) -> str:
    """A sentence that may hold values of the data, as Markdown that is only text."""
    return re.sub(r"([<>\[\]*`|\\])", r"\\\1", " ".join(str(text).split()))


def _code(text: str) -> str:
    r"""A name of the data, as code.

    >>> _code("a`b\n|c")
    "`a'b c`"
    """
    return "`" + " ".join(text.replace("`", "'").replace("|", " ").split()) + "`"
