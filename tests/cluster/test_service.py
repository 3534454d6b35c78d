"""The annotator as a service, deployed by `serve deploy` from the very file that Kubernetes gets; a run that asks it."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from rayclean.run import Run
from tests import toy
from tests.cluster.heads import BIN, free_ports, head

FILE = Path(__file__).parents[2] / "cluster" / "kuberay" / "rayservice.yaml"
KEY = "a-key-of-more-than-16-characters"


def get(url: str, key: str | None = None) -> tuple[int, str]:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


@pytest.mark.slow
@pytest.mark.llm
def test_the_service_of_the_manifest_answers_whoever_has_the_key(tmp_path: Path) -> None:
    (manifest,) = [d for d in yaml.safe_load_all(FILE.read_text()) if d["kind"] == "RayService"]
    (port,) = free_ports(1)
    config = yaml.safe_load(manifest["spec"]["serveConfigV2"])
    config["http_options"] |= {
        "host": "127.0.0.1",
        "port": port,
    }  # a pod of one's own there, a shared machine here
    config["applications"][0]["args"]["server"] |= {"gpu": False, "max_replicas": 1}  # a GPU there, none here
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(config))
    pods = manifest["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
    named = {entry["name"]: entry.get("value") for entry in pods}
    extra = {
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": named["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"],
        "RAYCLEAN_API_KEY": KEY,
    }
    assert "RAYCLEAN_API_KEY" in named
    url = f"http://127.0.0.1:{port}"
    with head(extra=extra) as cluster:
        deploy = [str(BIN / "serve"), "deploy", str(tmp_path / "serve.yaml"), "--address", cluster.dashboard]
        done = subprocess.run(deploy, env=cluster.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        until = time.monotonic() + 400
        while (answer := get(f"{url}/v1/models", KEY))[0] != 200:
            assert time.monotonic() < until, answer
            time.sleep(2)
        (model,) = json.loads(answer[1])["data"]
        assert model["id"].startswith("smollm2-135m@")
        assert get(f"{url}/v1/models")[0] == get(f"{url}/v1/models", "wrong")[0] == 401
        assert get(f"{url}/-/healthz")[0] == 200
        # A run elsewhere that asks it.
        values = toy.config(toy.write(tmp_path / "data", rows=80), tmp_path / "runs", name="asks")
        values["annotator"] = {
            "name": "openai", "base_url": f"{url}/v1", "model": model["id"], "tokenizer": "smollm2-135m",
            "api_key_env": "ANNOTATOR_KEY", "concurrency": 4,
        }  # fmt: skip
        values["relabel"] = {"demonstrations": 2}
        (tmp_path / "run.json").write_text(json.dumps(values))
        command = [sys.executable, "-m", "rayclean", "clean", str(tmp_path / "run.json")]
        plain = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        done = subprocess.run(command, env={**plain, "ANNOTATOR_KEY": KEY}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        metrics = Run(str(tmp_path / "runs" / "asks")).manifest("relabel")
        assert metrics is not None
        assert metrics.metrics["answered"] == metrics.metrics["suspects"] > 0
        assert metrics.metrics["errors"] == {}
    texts = [path.read_text(errors="ignore") for path in (tmp_path / "runs").rglob("*.json*")]
    assert not any(KEY in text for text in texts)
