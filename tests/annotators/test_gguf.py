"""From GGUF to a Hugging Face folder: kept once, whole or not at all."""

import threading
from contextlib import nullcontext, suppress
from pathlib import Path

import gguf as library
import numpy as np
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


def test_a_conversion_is_announced_and_a_kept_one_is_not(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gguf, "_convert", lambda file, target: (target / "config.json").write_text("{}"))
    folder = gguf.huggingface_folder(source)
    assert capsys.readouterr().err == f"converting tiny.gguf (once; kept in {folder})\n"
    gguf.huggingface_folder(source)
    assert capsys.readouterr().err == ""


def tiny_llama(path: Path) -> None:
    """A network of one layer with a tokenizer of bytes, as llama.cpp writes it."""
    size, heads, hidden, draw = 32, 2, 64, np.random.default_rng(0)
    tokens = [chr(33 + place) for place in range(94)] + ["ab"]
    writer = library.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(64)
    writer.add_embedding_length(size)
    writer.add_block_count(1)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(size // heads)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * len(tokens))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    shapes = {
        "token_embd": (len(tokens), size),
        "output_norm": (size,),
        "blk.0.attn_norm": (size,),
        "blk.0.ffn_norm": (size,),
    }
    shapes |= {f"blk.0.attn_{each}": (size, size) for each in ("q", "k", "v", "output")}
    shapes |= {
        "blk.0.ffn_gate": (hidden, size),
        "blk.0.ffn_up": (hidden, size),
        "blk.0.ffn_down": (size, hidden),
    }
    for name, shape in shapes.items():
        values = draw.normal(size=shape).astype(np.float32)
        kind = library.GGMLQuantizationType.Q8_0 if len(shape) == 2 else None
        data = values if kind is None else library.quants.quantize(values, kind)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_file_is_parsed_once_and_the_folder_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, parsed = tmp_path / "tiny.gguf", []
    tiny_llama(file)
    original = library.GGUFReader.__init__
    monkeypatch.setattr(
        library.GGUFReader,
        "__init__",
        lambda self, path, *args: parsed.append(path) or original(self, path, *args),
    )
    for name, parsing in (("fast", gguf._parsed_once), ("plain", nullcontext)):
        parsed.clear()
        (tmp_path / name).mkdir()
        monkeypatch.setattr(gguf, "_parsed_once", parsing)
        gguf._convert(file, tmp_path / name)
        assert len(parsed) == (1 if name == "fast" else 3)
    assert sorted(each.name for each in (tmp_path / "fast").iterdir()) == sorted(
        each.name for each in (tmp_path / "plain").iterdir()
    )
    for each in (tmp_path / "fast").iterdir():
        assert each.read_bytes() == (tmp_path / "plain" / each.name).read_bytes(), each.name


def test_the_reader_of_others_is_left_as_it_was() -> None:
    before = library.GGUFReader, library.get_tensor_name_map
    with suppress(KeyboardInterrupt), gguf._parsed_once():
        assert library.GGUFReader is not before[0]
        raise KeyboardInterrupt
    assert (library.GGUFReader, library.get_tensor_name_map) == before
