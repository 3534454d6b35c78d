"""A disk that is full at any file that a person's answers change: nothing is half, and the same command goes on."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import rayclean
from rayclean.errors import FaultError
from tests.audits.conftest import Relabelled
from tests.full_disk import full_from


def answered(form: Path) -> str:
    """The form with `a` as the answer to every question."""
    rows = [json.loads(line) for line in form.read_text().splitlines()]
    assert rows
    back = form.with_name(f"back-{form.name}")
    back.write_text("".join(json.dumps({**row, "answer": "a"}) + "\n" for row in rows))
    return str(back)


def command(name: str, relabelled: Relabelled) -> Callable[[], object]:
    """A command that records what a person says; its form has been written."""
    config = relabelled.config()
    if name == "revert":
        return partial(rayclean.revert, config, everything=True)
    write = rayclean.audit if name == "audit" else rayclean.certify
    back = answered(Path(write(config).forms[1]))
    return partial(write, config, [back], auditor="anna")


def state(run: rayclean.Run) -> dict[str, Any]:
    """All that the commands write, but for names and times of the records in the ledger."""
    root = Path(run.path())
    tables = [
        *root.glob("relabel/annotations/*"),
        *root.glob("relabel/labels/*"),
        *root.glob("relabel/*.parquet"),
    ]
    found: dict[str, Any] = {str(path.relative_to(root)): pq.read_table(path).to_pylist() for path in tables}
    found |= {path.name: path.read_text() for path in root.glob("audit/*")}
    manifest = run.manifest("relabel")
    assert manifest is not None
    return found | {"metrics": manifest.metrics}


@pytest.mark.parametrize(
    "name", ["audit", *(pytest.param(name, marks=pytest.mark.slow) for name in ("certify", "revert"))]
)
def test_a_disk_that_is_full_at_any_file(name: str, relabelled: Relabelled, tmp_path: Path) -> None:
    act, root, before = command(name, relabelled), Path(relabelled.run.path()), tmp_path / "before"
    shutil.copytree(root, before)
    with full_from(None) as written:
        act()
    calm = repr(state(relabelled.run))  # NaN equals nothing
    assert calm != repr(state(rayclean.Run(str(before))))
    assert len(written) > 3
    held = {number: Path(path).parent for number, path in enumerate(written) if Path(path).stat().st_size}
    last = {folder: number for number, folder in held.items()}
    first = {folder: number for number, folder in reversed(held.items())}
    for number in sorted({*first.values(), *last.values()}):  # of many shards the first and the last one
        path = written[number]
        shutil.rmtree(root)
        shutil.copytree(before, root)
        with full_from(number), pytest.raises(FaultError, match="beyond the limit of its size") as caught:
            act()
        assert f"cannot write '{root}/" in str(caught.value), path
        assert not list(root.rglob("*.tmp"))
        act()
        assert repr(state(relabelled.run)) == calm, path
