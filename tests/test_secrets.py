"""No secret in what a run leaves or says: planted wherever one may be given, then looked for everywhere."""

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec.config
import pyarrow.parquet as pq
import pytest

import rayclean
from rayclean.config.credentials import holds_credential
from rayclean.errors import ConfigError
from rayclean.job_package import pack
from tests import toy
from tests.annotators.hostile import serve_in_process
from tests.command import Ended, run_command

SECRET = "Planted-4f9d21c7b3"
"""In every secret; it occurs nowhere else."""
VARIABLES = ("MY_KEY", "WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "RAYCLEAN_API_KEY")
FAULTS = {"rose": "client", "ship": "echo", "oven": "echo"}
"""Word of a text -> how the endpoint repeats the key that it got."""


class OnlyWithKey(BaseHTTPRequestHandler):
    """Serves files to whoever sends the secret, and nobody else."""

    files: dict[str, bytes]

    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == f"Bearer {SECRET}"
        content = self.files.get(self.path, b"")
        self.send_response(200 if known and content else 401)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", '"1"')
        self.end_headers()
        if known and self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def data_url(tmp_path: Path) -> Iterator[str]:
    """A CSV file behind a token."""
    folder = toy.write(tmp_path / "toy", rows=70, noise=0.2, files=1)
    rows = pq.read_table(folder / "000.parquet").to_pylist()
    text = "key,text,label\n" + "".join(f"{row['key']},{row['text']},{row['label']}\n" for row in rows)
    handler = type("Handler", (OnlyWithKey,), {"files": {"/data.csv": text.encode()}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/data.csv"
    server.shutdown()
    server.server_close()
    thread.join()


def holding(folder: Path) -> list[str]:
    """Files below a folder that hold the secret, as it is or in columns of Parquet."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".parquet":
                content += json.dumps(pq.read_table(path).to_pylist(), default=str).encode()
            found += [str(path)] if SECRET.encode() in content else []
    return found


def test_a_run_neither_keeps_nor_tells_a_secret(
    tmp_path: Path,
    data_url: str,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Keys of the endpoint and of others in the environment, and a token for the data in fsspec's own settings."""
    caplog.set_level(logging.DEBUG)
    for name in VARIABLES:
        monkeypatch.setenv(name, SECRET)
    headers = {"client_kwargs": {"headers": {"Authorization": f"Bearer {SECRET}"}}}
    monkeypatch.setitem(fsspec.config.conf, "http", headers)

    def fault(prompt: str, before: int) -> str | None:
        text = prompt.rsplit("<text>", 1)[-1]
        return next((FAULTS[word] for word in FAULTS if word in text), None)

    with serve_in_process(fault) as server:
        values = toy.config(tmp_path, tmp_path / "runs")
        values["dataset"] = {"path": data_url, "id": "key", "test": {"share": 0.1}}
        values["predict"] |= {"training": {"epochs": 2}, "experts": ["words"]}
        values["train"] = {"epochs": 1}
        values["evaluate"] = {"compare": False}
        values["relabel"] = {"controls": 10, "max_error_rate": 1.0}
        values["annotator"] = {"name": "openai", "base_url": server.url, "model": "tiny", "form": "choice"}
        values["annotator"] |= {"api_key_env": "MY_KEY"}
        values["cluster"] = {"ray": False}
        file = tmp_path / "tickets.json"
        file.write_text(json.dumps(values))
        ended = run_command("clean", str(file), capsys=capsys, monkeypatch=monkeypatch)
        sent = {headers["authorization"] for headers in server.headers}
    assert ended.code == 0, ended.stderr
    assert sent == {f"Bearer {SECRET}"}
    runs = tmp_path / "runs"
    ledger = "".join(path.read_text() for path in runs.rglob("ledger/segment-*.jsonl"))
    assert '\\"sent\\": \\"Bearer ***\\"' in ledger  # the endpoint repeated the key in an answer
    assert "bad key Bearer ***" in ledger  # and in an error
    assert holding(runs) == []
    assert SECRET not in ended.stdout + ended.stderr + caplog.text
    assert SECRET not in json.dumps(pack("clean", str(file)).files)  # what is sent to a cluster
    gone = run_command("load", str(file), f"dataset.path={data_url}x", capsys=capsys, monkeypatch=monkeypatch)
    assert (gone.code, SECRET in gone.stdout + gone.stderr) == (2, False)


PLACES = {
    "dataset.path": "https://anna:{}@host/data.csv",
    "dataset.dev.path": "https://host/dev.csv?token={}",
    "dataset.test.path": "s3://{}:x@bucket/test.csv",
    "output": "ftp://anna:{}@host/runs",
    "predict.model": "https://host/model?X-Amz-Signature={}&b=1",
    "predict.path": "simplecache::https://{}@host/p.parquet",
    "encoder.model": "https://host/model?a=1&api_key={}",
    "annotator.base_url": "http://anna:{}@127.0.0.1:9/v1",
    "annotator.api_key_env": "sk-{}",
    "annotator.template": "abfs://c@account/t.jinja?sv=1&sig={}",
    "cluster.address": "ray://user:{}@head:10001",
    "dataset.separator": "wss://host/?access_token={}",
}
"""Key of a config -> a value with a secret in it."""


LISTS = ("dataset.path", "dataset.dev.path", "dataset.test.path", "predict.path")


@pytest.mark.parametrize(
    ("key", "at"), [(key, at) for key in PLACES for at in ("file", "override", *["list"] * (key in LISTS))]
)
def test_a_secret_in_a_config_is_refused_and_not_repeated(
    tmp_path: Path, key: str, at: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    value: Any = PLACES[key].format(SECRET)
    values: dict[str, Any] = {"output": str(tmp_path / "runs"), "annotator": {"name": "openai"}}
    values["dataset"] = {"path": str(tmp_path / "data.csv")}
    if at == "list":
        value = ["a.csv", value]
    overrides = []
    if at == "override":
        overrides.append(f"{key}={value}")
    else:
        *parents, last = key.split(".")
        section = values
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    file = tmp_path / "tickets.json"
    file.write_text(json.dumps(values))
    ended = _refused("config", str(file), *overrides, capsys=capsys, monkeypatch=monkeypatch)
    assert key.rpartition(".")[2] in ended.stderr
    _refused("load", str(file), *overrides, capsys=capsys, monkeypatch=monkeypatch)
    assert [path.name for path in tmp_path.iterdir()] == ["tickets.json"]  # nothing was written


def test_a_secret_in_the_address_of_a_run_folder_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = _refused("status", f"ftp://anna:{SECRET}@host/r/x", capsys=capsys, monkeypatch=monkeypatch)
    assert "FSSPEC_" in ended.stderr


def _refused(*arguments: str, **fixtures: Any) -> Ended:
    ended = run_command(*arguments, **fixtures)
    assert ended.code == 2
    assert SECRET not in ended.stdout + ended.stderr
    return ended


def test_a_key_in_the_place_of_the_name_of_its_variable_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = "a8F3kd92LkQz77Yw"  # could be the name of a variable
    config = {
        "dataset": {"path": "x.csv"},
        "annotator": {
            "name": "openai",
            "model": "m",
            "base_url": "http://127.0.0.1:9/v1",
            "api_key_env": key,
        },
    }
    with pytest.raises(ConfigError) as error:
        rayclean.pipeline.validate_verbs(rayclean.parse_config(config), ("relabel",))
    assert "api_key_env" in str(error.value)
    assert key not in str(error.value)


@pytest.mark.parametrize(
    "value",
    [
        "hf://glue:sst2@main", "github://org:repo@branch/data.csv", "abfs://container@account/a.csv", "sftp://anna@host/a.csv",
        "http://127.0.0.1:8000/v1", "s3://bucket/a@b:c.csv", "https://host/a.csv?page=2", "mail a:b@c", "C:/data/a?key=b",
        "https://host/a.csv#token", "local/tok?en=1.csv",
    ],
)  # fmt: skip
def test_other_addresses_hold_no_secret(value: str) -> None:
    assert not holds_credential(value)
