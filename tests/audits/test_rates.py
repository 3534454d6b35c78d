"""The figures of an audit, by hand."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from rayclean.audits.answers import AuditAnswer, AuditAnswers
from rayclean.audits.draw import Draw, Population
from rayclean.audits.rates import figures
from rayclean.audits.units import DoubtedUnit
from rayclean.folder import Folder
from rayclean.schema import Label, LabelSet
from rayclean.tasks.classification import Classification


def test_a_third_label_is_the_annotators_own_answer(tmp_path: Path) -> None:
    """With `relabel.candidates = "all"` an annotator may choose a label that is neither given (a) nor suggested (b)."""
    labels = LabelSet([Label(number, name, name) for number, name in enumerate("abc")])
    task = Classification(Classification.Config(), labels)
    a, b, c = (task.answers.candidate(number) for number in range(3))
    right, chosen = [c, c, c, b, b], [2, 2, 1, 2, 1]  # right: the first, the second and the last
    units = {key: DoubtedUnit(key, key, f"text {key}", 0, 1, None, a, b) for key in range(5)}
    settled = {
        key: AuditAnswer(key, units[key].text_hash, "label", value.value, "anna")
        for key, value in enumerate(right)
    }
    ids, suspects = np.arange(6), np.arange(6) < 5
    rows = {"unit_id": ids[:5], "machine_decision": ["abstained"] * 5, "chosen_label": chosen}
    Folder(str(tmp_path)).write_table(pa.table(rows), "annotations", "part-00000.parquet")
    found = figures(
        AuditAnswers(settled, {}, frozenset(settled)),
        units,
        Draw("audit", ids[:5], ids[:0]),
        Population(ids, np.full(6, 0.5), np.full(6, 0.5), suspects),
        Folder(str(tmp_path)),
        task,
    )
    assert found["annotator_accuracy"]["value"] == 3 / 5  # with every third label as b: the last two
