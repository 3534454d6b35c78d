"""From an example to the row that a person knows, and back."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import rayclean
from rayclean.errors import ConfigError
from rayclean.folder import Folder
from rayclean.origins import Origin, Origins

KEYS = ["T-1", 'say "hi"', "it's \\ é", "", " 7", "7", "T-2", "T-3"]
"""Keys as people have them; the row with the empty one is rejected."""


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def rows(keys: list[Any], word: str) -> list[dict[str, Any]]:
    return [{"id": key, "text": f"{word} {n}", "label": "ab"[n % 2]} for n, key in enumerate(keys)]


def load(folder: Path, **dataset: Any) -> Folder:
    values = {
        "output": str(folder / "runs"),
        "dataset": {"rows_per_shard": 3, **dataset},
        "cluster": {"ray": False},
    }
    return rayclean.load(rayclean.parse_config(values)).require("load")


def texts(load: Folder) -> dict[int, str]:
    parts = [load.read_table(part, shard) for part in ("examples", "test") for shard in load.shards(part)]
    return {row["example_id"]: row["text"] for part in parts for row in part.to_pylist()}


def test_every_example_has_its_key_file_and_row(tmp_path: Path) -> None:
    write(tmp_path / "data" / "a.jsonl", rows(KEYS, "one"))
    write(tmp_path / "data" / "sub" / "b.jsonl", rows([1, 2, -3, 2**60], "two"))
    found = load(tmp_path, path=str(tmp_path / "data"), id="id", test={"share": 0.3}, max_rejected=0.5)
    known = texts(found)
    origins = Origins(found)
    assert origins.keyed
    of = {known[key]: origin for key, origin in origins.of(known).items()}
    assert of == {
        **{f"one {n}": Origin(key, "a.jsonl", n) for n, key in enumerate(KEYS) if key},
        **{f"two {n}": Origin(str(key), "sub/b.jsonl", n) for n, key in enumerate((1, 2, -3, 2**60))},
    }
    assert [known[each] for each in origins.by_key(['say "hi"', "2"])] == ["one 1", "two 1"]
    places = [("a.jsonl", 5), ("sub/b.jsonl", 0)]
    assert [known[each] for each in origins.by_row(places)] == ["one 5", "two 0"]
    with pytest.raises(ConfigError, match="no example has the key 'T-9'"):
        origins.by_key(["T-1", "T-9"])
    with pytest.raises(ConfigError, match=r"row 3 of 'a\.jsonl'.*rejected"):  # its key is empty
        origins.by_row([("a.jsonl", 3)])


def test_without_a_key_an_example_is_known_by_its_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", rows([1, 2, 3, 4], "one"))
    other = write(tmp_path / "dev" / "a.jsonl", rows([1, 2], "two"))
    found = load(tmp_path, path=path, dev={"path": other})
    known = texts(found)
    origins = Origins(found)
    assert not origins.keyed
    assert {known[each] for each in origins.by_row([("a.jsonl", 1)])} == {"one 1", "two 1"}  # both are meant
    with pytest.raises(ConfigError, match="names no key"):
        origins.by_key(["1"])


def test_shards_are_in_the_order_asked_for_and_null_where_nothing_is_known(tmp_path: Path) -> None:
    found = load(tmp_path, path=write(tmp_path / "a.jsonl", rows([1, 2, 3], "one")))
    (shard,) = found.shards("examples")
    ids = found.read_table("examples", shard)["example_id"].combine_chunks()
    asked = pa.concat_arrays([ids[::-1], ids])
    table = Origins(found).shard(shard, asked)
    assert table["example_id"].combine_chunks() == asked
    assert table["row"].to_pylist() == [2, 1, 0, 0, 1, 2]
    found.remove("origins")
    assert Origins(found).shard(shard, asked)["file"].null_count == 6
    assert Origins(found).of(ids.to_pylist()) == {}
