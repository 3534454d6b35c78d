"""From measured sizes to larger ones, and how many rows files hold."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayclean.config import parse_config
from rayclean.datasets.sources import find_sources
from rayclean.estimates import data_size
from rayclean.estimates.data_size import count_rows_of
from rayclean.estimates.scaling import fit_line, seconds_per_row
from rayclean.hashing import digest


def test_a_line_through_cold_and_warm_measurements() -> None:
    line = fit_line([64, 256, 1280], [5 + 64 * 0.01, 0.5 + 256 * 0.01, 0.5 + 1280 * 0.01])
    assert line.slope == pytest.approx(0.01)
    assert line.at(10_000) == pytest.approx(105)
    assert line.at(0) == 0


def test_noise_never_makes_time_negative() -> None:
    assert fit_line([10, 20, 30], [3, 2, 1]).at(1000) >= 0
    assert fit_line([40, 40, 40], [2.0, 1.0, 1.0]).at(40) == pytest.approx(2.0)


def test_the_cost_of_a_row_falls_with_the_batch() -> None:
    costs = seconds_per_row((32, 512), (0.001 + 0.032 / 32, 0.001 + 0.032 / 512))
    assert costs.at(1 / 128) == pytest.approx(0.001 + 0.032 / 128)


def rows_of(path: Path) -> data_size.RowCount:
    return count_rows_of(find_sources(parse_config({"dataset": {"path": str(path)}}).dataset)[0])


def test_small_files_are_counted(tmp_path: Path) -> None:
    lines = [f'"ship {n}\nsails",sea' for n in range(500)]
    (tmp_path / "a.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    assert (rows_of(tmp_path / "a.csv").rows, rows_of(tmp_path / "a.csv").basis) == (500, "counted")
    pq.write_table(pa.table({"text": ["a"] * 70, "label": [1] * 70}), tmp_path / "a.parquet")
    assert rows_of(tmp_path / "a.parquet") == data_size.RowCount(70, "as the files say")


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.json"])
def test_large_files_are_counted_by_their_beginning(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_size, "_HEAD", 4096)
    monkeypatch.setattr(data_size, "_PACKED_HEAD", 1 << 20)
    count = 40_000 if name.endswith(".gz") else 3000
    rows = [{"text": f"the ship {digest(str(n), 64)} sails", "label": "sea"} for n in range(count)]
    path = tmp_path / name
    if "csv" in name:
        content = "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows)
    else:
        content = (
            json.dumps(rows, indent=0)
            if name == "a.json"
            else "".join(json.dumps(row) + "\n" for row in rows)
        )
    path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    found = rows_of(path)
    assert found.basis != "counted"
    assert found.rows == pytest.approx(count, rel=0.25 if name.endswith(".gz") else 0.05)
