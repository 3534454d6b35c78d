"""Reads what W&B wrote of a run offline."""

import json
import time
from pathlib import Path
from typing import Any


def records(run: Path) -> list[Any]:
    """What W&B wrote of a run. Its own reader is part of its binary: the format is LevelDB's log after 7 bytes, blocks of
    32 KiB, each piece of a record with 4 bytes of checksum, 2 of length and 1 that says whether it is the last.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = run.glob("run-*.wandb")
    content, at, pieces, found = path.read_bytes(), 7, b"", []
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        pieces += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            found.append(Record.FromString(pieces))
            pieces = b""
    return found


def read(run: Path) -> dict[str, Any]:
    """A finished run; W&B's process closes the file a moment after `finish` returns."""
    deadline = time.monotonic() + 20
    while not (found := records(run)) or not any(record.HasField("exit") for record in found):
        assert time.monotonic() < deadline, "the run was never finished"
        time.sleep(0.02)
    (begun,) = [record.run for record in found if record.HasField("run")]
    (end,) = [record.exit for record in found if record.HasField("exit")]
    history, summary = {}, {}
    for record in found:
        if record.HasField("history"):
            values = {
                (each.key or ".".join(each.nested_key)): json.loads(each.value_json)
                for each in record.history.item
            }
            history[record.history.step.num] = {k: v for k, v in values.items() if not k.startswith("_")}
        for each in record.summary.update:
            summary[each.key or ".".join(each.nested_key)] = json.loads(each.value_json)
    return {
        "id": begun.run_id, "group": begun.run_group, "project": begun.project, "name": begun.display_name,
        "config": {each.key: json.loads(each.value_json) for each in begun.config.update},
        "history": history, "summary": summary, "exit": end.exit_code,
    }  # fmt: skip
