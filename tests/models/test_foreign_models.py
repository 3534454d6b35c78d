"""Models of others: their code is not run, and their pickles are not read."""

import json
import pickle
import shutil
from pathlib import Path

import pytest

from rayclean.config import Plugin
from rayclean.errors import ConfigError, RaycleanError
from rayclean.models.loading import build_encoder, load_encoder


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    """A file that foreign code would write."""
    return tmp_path / "evidence"


def test_code_beside_a_model_is_not_run(tiny_bert: str, tmp_path: Path, evidence: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_bert, folder)
    config = json.loads((folder / "config.json").read_text())
    names = {
        "AutoConfig": "evil.EvilConfig",
        "AutoModel": "evil.EvilModel",
        "AutoTokenizer": ["evil.T", None],
    }
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": names, "model_type": "evil"}))
    (folder / "evil.py").write_text(f"open({str(evidence)!r}, 'w').close()\n")
    plugin = Plugin(name="transformer", model=str(folder))
    with pytest.raises(ConfigError):
        build_encoder(plugin, 2)
    (folder / "config.json").write_text(
        json.dumps(config | {"auto_map": names})
    )  # a known kind: its own code
    build_encoder(plugin, 2)
    assert not evidence.exists()


class _Evil:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_a_pickle_in_the_place_of_weights_is_not_read(tiny_bert: str, tmp_path: Path, evidence: Path) -> None:
    content = pickle.dumps(_Evil(evidence))
    for name in ("pytorch_model.bin", "model.safetensors"):
        folder = tmp_path / name
        shutil.copytree(tiny_bert, folder)
        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(content)
        with pytest.raises(RaycleanError):
            build_encoder(Plugin(name="transformer", model=str(folder)), 2)
    assert not evidence.exists()
    pickle.loads(content).close()
    assert evidence.exists()  # the trap works


def test_a_saved_network_names_no_class_but_an_encoder(tmp_path: Path) -> None:
    described = {"encoder": "pickle:Unpickler", "options": {}, "num_classes": 2}
    (tmp_path / "rayclean.json").write_text(json.dumps(described))
    with pytest.raises(RaycleanError):
        load_encoder(str(tmp_path))
