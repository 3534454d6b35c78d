"""From GGUF to a Hugging Face folder: kept once, whole or not at all."""

import threading
from pathlib import Path

import pytest

from rayclean.annotators import gguf


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYCLEAN_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"GGUF, one version")
    return file


def test_two_at_once_end_with_one_whole_folder(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=20)
    targets: list[Path] = []

    def convert(file: Path, target: Path) -> None:
        both.wait()  # neither has renamed yet
        targets.append(target)
        (target / "config.json").write_text("{}")
        (target / "model.safetensors").write_bytes(file.read_bytes())

    monkeypatch.setattr(gguf, "_convert", convert)
    folders: list[Path] = []
    threads = [
        threading.Thread(target=lambda: folders.append(gguf.huggingface_folder(source))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(targets)) == 2
    assert folders[0] == folders[1]
    assert [p.name for p in folders[0].parent.iterdir()] == [folders[0].name]  # nothing temporary is left
    assert (folders[0] / "model.safetensors").read_bytes() == source.read_bytes()

    monkeypatch.setattr(gguf, "_convert", lambda file, target: pytest.fail("converted twice"))
    assert gguf.huggingface_folder(source) == folders[0]


def test_a_conversion_that_fails_leaves_nothing(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(file: Path, target: Path) -> None:
        (target / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(gguf, "_convert", convert)
    with pytest.raises(KeyboardInterrupt):
        gguf.huggingface_folder(source)
    assert list(gguf.cache_folder("models").iterdir()) == []


def test_another_file_is_another_folder(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "_convert", lambda file, target: (target / "config.json").write_text("{}"))
    first = gguf.huggingface_folder(source)
    source.write_bytes(b"GGUF, another version")
    assert gguf.huggingface_folder(source) != first
    assert first.name.startswith("tiny-")
