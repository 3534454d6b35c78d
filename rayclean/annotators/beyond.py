"""LLM disagreement: questions about labels that detection does not doubt, for what self-prediction cannot see.

Errors that follow a rule are learnt by the model like any other rule, and no self-prediction shows them; a language model
that reads the text may. `relabel.beyond` examples are drawn from all that are no suspects, evenly over quality, and asked
about blindly, after all suspects and by the first annotator alone: it is a detector, but one that needs the control
questions of `relabel`. Its disagreement, seen through its accuracy on control
questions, estimates how many labels beyond the suspects are wrong (`functional.denied_labels`). Their labels do not change:
`relabel/beyond/` lists them, the most probably wrong first, for a person.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.annotators.answers import answered_query
from rayclean.annotators.choices import Measured, choices
from rayclean.folder import Folder
from rayclean.functional.audit_rates import stratified_draw
from rayclean.functional.decision import suggestion_probability
from rayclean.functional.denied_labels import denied_labels

BEYOND = pa.schema(
    [
        ("unit_id", pa.int64()),
        ("example_id", pa.int64()),
        ("given_label", pa.int32()),
        ("suggested_label", pa.int32()),
        ("chosen_label", pa.int32()),  # null: a tie
        ("probability", pa.float64()),  # that another label than the given one is right, by model and answer
        ("vote", pa.bool_()),  # whether the answer is another label than the given one
        ("quality", pa.float64()),  # 1 - probability; lower = the given label is more likely wrong
        ("annotator", pa.string()),
    ]
)
"""`relabel/beyond/`: what the annotator says of examples that are no suspects."""


def drawn_beyond(detect: Folder, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Sorted ids of `count` units that are neither suspects nor control questions, evenly over quality. Units of which the
    same value is given and suggested are left out: nobody can choose between two equal answers.
    """
    columns = ["unit_id", "quality", "suspect", "control", "given_value", "suggested_value"]
    rest = []
    for shard in detect.shards("findings"):
        table = detect.read_table("findings", shard, columns=columns)
        same = np.asarray(pc.equal(table["given_value"], table["suggested_value"]).fill_null(False))
        kept = ~table["suspect"].to_numpy() & (table["control"].to_numpy() < 0) & ~same
        rest.append(table.select(["unit_id", "quality"]).filter(pa.array(kept)))
    table = pa.concat_tables(rest)
    ids, quality = table["unit_id"].to_numpy(), table["quality"].to_numpy().astype(np.float64)
    return np.sort(ids[stratified_draw(ids, quality, count, seed, "beyond the suspects")])


def write_beyond(
    out: Folder, rows: list[dict[str, Any]], measured: Measured, annotator: str
) -> dict[str, Any] | None:
    """Write `beyond/` from rows of `answers/`, which `annotator` gave; None if nobody was asked.

    Returns:
        `asked`, `denied` and `wrong` (estimated share of wrong labels beyond the suspects: value, low, high; null where the
        annotator is too weak to tell).
    """
    answered = [(row, answer) for row in rows if (answer := answered_query(row)) is not None]
    if not answered:
        return None
    label = choices([answer for _, answer in answered], measured.bias).label
    given = np.array([row["given_label"] for row, _ in answered])
    says = np.where(label < 0, np.nan, label != given)  # a third label denies the given one, too
    log_odds = np.array([row["log_odds"] for row, _ in answered], dtype=np.float64)
    probability = suggestion_probability(log_odds, says, measured.worth.lower, (0.0, 1.0))
    found = [
        {
            **{name: row[name] for name in BEYOND.names[:4]},
            "chosen_label": int(each) if each >= 0 else None,
            "probability": p,
            "vote": bool(each >= 0 and each != row["given_label"]),
            "quality": 1 - p,
            "annotator": annotator,
        }
        for (row, _), each, p in zip(answered, label, probability.tolist(), strict=True)
    ]
    found.sort(key=lambda row: (-row["probability"], row["unit_id"]))
    out.write_table(pa.Table.from_pylist(found, schema=BEYOND), "beyond", "part-00000.parquet")
    what = denied_labels(says[~np.isnan(says)] == 1, measured.worth)
    wrong = (
        None
        if what.wrong is None
        else {"value": what.wrong.value, "low": what.wrong.low, "high": what.wrong.high}
    )
    return {"asked": what.asked, "denied": what.denied, "wrong": wrong}
