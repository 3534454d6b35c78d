"""Pushing the model or the cleaned data set of a run to the Hugging Face hub."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from rayclean.config import Config, parse_config
from rayclean.faults import faults_explained
from rayclean.folder import Folder
from rayclean.pipeline import open_run
from rayclean.publishing.cards import dataset_card, model_card
from rayclean.publishing.cleaned_dataset import write_cleaned_dataset
from rayclean.publishing.hub import Pushed, upload
from rayclean.run import Run
from rayclean.schema import LabelSet
from rayclean.tasks import TASKS

CARD = "README.md"
_PRIVATE_KEYS = ("_name_or_path", "name_or_path")
"""Keys of JSON files with the place on this machine that a model came from."""


def push(
    config: Config,
    repository: str,
    what: Literal["model", "data"] = "model",
    *,
    private: bool = False,
    revision: str | None = None,
) -> Pushed:
    """Upload the trained model or the cleaned data set of a run, with a card that says how it was made and what was measured.

    All files appear in one commit: an interrupted push shows nothing, at most an empty repository.

    Args:
        config: of a run whose train (data: relabel) is finished.
        repository: `user/name` on the hub; it is made if it is not there.
        what: `train/model/`, or the examples with their given and their final labels.
        private: whether only who has access may see it.
        revision: branch to push to, which is made if it is not there; None: `main`.

    Raises:
        ArtifactError: the verb is not finished.
        ConfigError: the name, the token or its rights are wrong, or a public repository was to be private.
        ResourceError: the hub cannot be reached, or failed.
    """
    run = open_run(config)
    with faults_explained(run.url()), run.locked():
        if what == "data":
            return _push_data(run, repository, private, revision)
        with _local(run.require("train").sub("model")) as folder:
            files: dict[str, Path | bytes] = {
                path.relative_to(folder).as_posix(): _public(path)
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
            files[CARD] = model_card(run, repository).encode()
            return upload(
                files, repository, "model", private=private, revision=revision, is_own=_is_of_model,
                message=f"Model of the run {config.name}",
            )  # fmt: skip


def _push_data(run: Run, repository: str, private: bool, revision: str | None) -> Pushed:
    settings = parse_config(run.read_json("config.json"), where=run.path("config.json"))
    labels = LabelSet.from_json(run.require("load").read_text("labels.json"))
    task = TASKS.build(settings.task, labels)
    with tempfile.TemporaryDirectory(prefix="rayclean-push-") as name:
        folder = Path(name)
        rows = write_cleaned_dataset(run, task, folder)
        files: dict[str, Path | bytes] = {
            path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
        }
        files[CARD] = dataset_card(run, repository, rows).encode()
        return upload(
            files, repository, "dataset", private=private, revision=revision,
            is_own=lambda path: path.startswith("data/part-") and path.endswith(".parquet"),
            message=f"Cleaned data of the run {run.name}",
        )  # fmt: skip


def _is_of_model(path: str) -> bool:
    """Whether a file of a repository may come from an earlier push of a model in another layout."""
    return path.endswith(".safetensors") or path.startswith(("encoder/", "member-"))


@contextmanager
def _local(folder: Folder) -> Iterator[Path]:
    """A folder on this machine: itself, or a copy of a remote one."""
    if folder.is_local:
        yield Path(folder.root)
        return
    with tempfile.TemporaryDirectory(prefix="rayclean-push-") as copy:
        folder.fs.get(folder.root.rstrip("/") + "/", copy, recursive=True)
        yield Path(copy)


def _public(path: Path) -> Path | bytes:
    """A file as it may be given away: JSON without paths of this machine."""
    if path.suffix != ".json" or path.name == "tokenizer.json":
        return path
    content = json.loads(path.read_text("utf-8"))
    public = _without_places(content)
    return path if public == content else json.dumps(public, indent=1, ensure_ascii=False).encode()


def _without_places(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_places(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    return {
        key: os.path.basename(each.rstrip("/"))
        if key == "model" and _is_place(each)
        else _without_places(each)
        for key, each in value.items()
        if not (key in _PRIVATE_KEYS and _is_place(each))
    }


def _is_place(value: Any) -> bool:
    """Whether a value is a path of this machine."""
    return isinstance(value, str) and (
        os.path.isabs(value) or value.startswith(("~", ".")) or os.path.isdir(value)
    )
