"""`rayclean push` against a stand-in of the hub: what arrives, what is refused, and what an interrupted push shows."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard, ModelCard, constants

import rayclean
from rayclean.config import parse_config
from rayclean.run import Run
from tests import toy
from tests.command import Ended, run_command
from tests.publishing.hub_server import TOKEN, Hub, running_hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as server:
        yield server


class Pusher:
    """Runs `rayclean push` in this process, against a stand-in."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
        self.capsys, self.monkeypatch = capsys, monkeypatch
        monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
        # The library reads these variables when it is imported; other tests have done so, without a network.
        for name, value in (
            ("HF_HUB_OFFLINE", False),
            ("HF_HUB_DISABLE_XET", True),
            ("HF_TOKEN_PATH", str(home / "none")),
        ):
            monkeypatch.setattr(constants, name, value)

    def __call__(self, run: Run, *arguments: str, hub: Hub | None, token: str | None = TOKEN) -> Ended:
        """The command's end; no hub: nothing is listening."""
        with self.monkeypatch.context() as patch:
            patch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9" if hub is None else hub.url)
            if token is None:
                patch.delenv("HF_TOKEN", raising=False)
            else:
                patch.setenv("HF_TOKEN", token)
            ended = run_command(
                "push", run.url(), *arguments, capsys=self.capsys, monkeypatch=self.monkeypatch
            )
        assert token is None or token not in ended.stdout + ended.stderr
        assert "Traceback" not in ended.stderr
        return ended


@pytest.fixture
def push(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Pusher:
    return Pusher(tmp_path, capsys, monkeypatch)


def environment(hub: Hub, home: Path) -> dict[str, str]:
    """Of a process that knows this hub alone."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    return kept | {
        "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip


def test_the_model_arrives_whole_with_its_card(
    published_run: Run, hub: Hub, push: Pusher, tmp_path: Path
) -> None:
    done = push(published_run, "me/tickets", "--private", hub=hub)
    assert done.code == 0, done.stderr
    assert f"{hub.url}/me/tickets (private; commit aaaaaaaaaaaa)" in done.stdout
    repository = hub.repositories["models/me/tickets"]
    assert repository.private
    assert repository.commits == ["Model of the run tickets"]
    files = repository.branches["main"]
    for path in Path(published_run.path("train", "model")).rglob("*"):
        if path.is_file() and path.name != "rayclean.json":
            assert files[path.name] == path.read_bytes()
    told = json.loads(files["rayclean.json"])
    assert told["options"]["model"] == "tiny-bert"  # without its place on this machine
    card = ModelCard(files["README.md"].decode())
    assert card.data.to_dict()["pipeline_tag"] == "text-classification"
    places = str(Path(published_run.root).parents[1]).encode()
    assert not any(places in content for name, content in files.items() if not name.endswith(".safetensors"))


def test_a_pushed_model_runs_in_the_pipeline(
    published_run: Run, hub: Hub, push: Pusher, tmp_path: Path
) -> None:
    from transformers import pipeline

    done = push(published_run, "me/tickets", hub=hub)
    assert "(public: everybody can see it" in done.stdout
    folder = tmp_path / "copy"
    for name, content in hub.repositories["models/me/tickets"].branches["main"].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    test = published_run.read_table("load", "test", published_run.shards("load", "test")[0])
    config = toy.config(Path("unused"), tmp_path / "runs", "scored")
    data = tmp_path / "data"
    data.mkdir()
    pq.write_table(
        test.select(["text"]), data / "a.parquet"
    )  # without labels, so that the network alone predicts
    config["dataset"] = {"path": str(data), "format": "parquet", "labels": sorted(toy.TOPICS)}
    config["predict"] = {"mode": "model", "model": str(folder)}
    scored = rayclean.pipeline.run_verbs(parse_config(config), ("load", "predict"))
    classifier = pipeline("text-classification", str(folder), device="cpu")
    names = sorted(toy.TOPICS)
    for shard in scored.shards("load", "examples"):
        examples = scored.read_table("load", "examples", shard)
        predictions = scored.read_table("predict", "predictions", shard)
        assert examples["example_id"].to_pylist() == predictions["example_id"].to_pylist()
        rows = classifier(examples["text"].to_pylist(), truncation=True, top_k=None, batch_size=8)
        found = [[{each["label"]: each["score"] for each in row}[name] for name in names] for row in rows]
        np.testing.assert_allclose(found, predictions["probabilities"].to_pylist(), atol=1e-4)


def test_the_cleaned_data_arrive(published_run: Run, hub: Hub, push: Pusher, tmp_path: Path) -> None:
    hub.repositories.clear()
    done = push(published_run, "me/tickets", "--data", "--revision", "v1", hub=hub)
    assert done.code == 0, done.stderr
    assert f"{hub.url}/datasets/me/tickets/tree/v1" in done.stdout
    repository = hub.repositories["datasets/me/tickets"]
    assert set(repository.branches["main"]) == {".gitattributes"}
    files = repository.branches["v1"]
    card = DatasetCard(files["README.md"].decode())
    assert card.data.to_dict()["task_categories"] == ["text-classification"]
    tables = [pq.read_table(io.BytesIO(files[name])) for name in sorted(files) if name.endswith(".parquet")]
    rows = sum(len(table) for table in tables)
    examples = sum(
        len(published_run.read_table("load", "examples", s)) for s in published_run.shards("load", "examples")
    )
    assert rows == examples
    # a later push with fewer shards leaves none of the old ones
    files["data/part-99999.parquet"] = b"old"
    files["notes.txt"] = b"the user's"
    push(published_run, "me/tickets", "--data", "--revision", "v1", hub=hub)
    assert "data/part-99999.parquet" not in repository.branches["v1"]
    assert repository.branches["v1"]["notes.txt"] == b"the user's"


@pytest.mark.parametrize(
    ("repository", "token", "words"),
    [
        ("me/tickets", None, ["there is no token", "HF_TOKEN", "hf auth login"]),
        ("me/tickets", "hf_wrong", ["does not accept the token", "HF_TOKEN"]),
        ("others/tickets", TOKEN, ["may not write to others/tickets", "a name of your own"]),
        ("no name", TOKEN, ["names no repository", "user/name"]),
        ("tickets", TOKEN, ["names no repository", "user/name"]),
    ],
)
def test_refusals_say_what_to_do(
    repository: str,
    token: str | None,
    words: list[str],
    published_run: Run,
    hub: Hub,
    push: Pusher,
    tmp_path: Path,
) -> None:
    done = push(published_run, repository, hub=hub, token=token)
    assert done.code == 2
    for word in words:
        assert word in done.stderr
    assert hub.repositories == {}


def test_a_hub_that_cannot_be_reached(published_run: Run, push: Pusher) -> None:
    done = push(published_run, "me/tickets", hub=None)
    assert done.code == 2
    assert "http://127.0.0.1:9 cannot be reached" in done.stderr


def test_a_hub_that_is_switched_off(
    published_run: Run, hub: Hub, push: Pusher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    done = push(published_run, "me/tickets", hub=hub)
    assert done.code == 2
    assert "switched off by HF_HUB_OFFLINE" in done.stderr
    assert hub.heard == []


def test_nothing_private_is_pushed_to_a_public_repository(
    published_run: Run, hub: Hub, push: Pusher, tmp_path: Path
) -> None:
    assert push(published_run, "me/tickets", hub=hub).code == 0
    before = dict(hub.repositories["models/me/tickets"].branches["main"])
    done = push(published_run, "me/tickets", "--private", hub=hub)
    assert done.code == 2
    assert "is public" in done.stderr
    assert hub.repositories["models/me/tickets"].branches["main"] == before


def test_a_failing_or_interrupted_push_shows_nothing(
    published_run: Run, hub: Hub, push: Pusher, tmp_path: Path
) -> None:
    import threading

    hub.fail_commits = 503
    done = push(published_run, "me/tickets", hub=hub)
    assert done.code == 2
    assert "failed with 503" in done.stderr
    assert "nothing was published" in done.stderr
    hub.fail_commits, hub.hold = 0, threading.Event()
    hub.uploading.clear()
    command = [sys.executable, "-m", "rayclean", "push", published_run.url(), "me/tickets"]
    with subprocess.Popen(
        command, env=environment(hub, tmp_path), stderr=subprocess.PIPE, text=True
    ) as process:
        assert hub.uploading.wait(60)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        hub.hold.set()
    assert set(hub.repositories["models/me/tickets"].branches["main"]) == {".gitattributes"}
    assert hub.repositories["models/me/tickets"].commits == []


def test_a_run_that_is_not_trained(tmp_path: Path, hub: Hub, push: Pusher) -> None:
    config = parse_config(toy.config(toy.write(tmp_path / "data", rows=60), tmp_path / "runs", "short"))
    run = rayclean.load(config)
    done = push(run, "me/short", hub=hub)
    assert done.code == 2
    assert "rayclean train" in done.stderr
    assert hub.heard == []
