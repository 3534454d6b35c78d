"""`relabel/annotations/`: one row per suspect with the annotator's answer and the decision on the label.

`verbs/relabel` writes the rows (`annotators/decisions.py` decides); the final labels, reverts and the
evaluation read them with `SuspectRanking.read`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rayclean.folder import Folder

DECISIONS = ("changed", "kept", "referred", "abstained", "error", "unasked")
"""All values of the column `decision`: the label changes; it is confirmed; what is known does not decide, a person
should look; the annotator chose neither label; the query failed; the budget ended before the query. Only the first
one changes a label."""

FOR_A_PERSON = ("referred", "abstained")
"""Decisions that leave a label to a person: also where the annotator answered, but for neither label."""
UNDECIDED = ("referred", "abstained", "error", "unasked")
"""Decisions after which the next annotator is asked, where several are asked in order."""

MODEL_ALONE = "posterior"
"""Stands for the model where it decided by itself: the name of the annotator that asks nobody."""

ANNOTATIONS = pa.schema(
    [
        ("unit_id", pa.int64()),
        ("example_id", pa.int64()),
        ("rank", pa.int64()),
        ("given_label", pa.int32()),
        ("suggested_label", pa.int32()),
        ("given_value", pa.string()),  # the answers as JSON, where their numbers do not say them; else null
        ("suggested_value", pa.string()),
        ("log_odds", pa.float64()),  # log P(suggested) - log P(given), as detection sees it
        ("chosen_label", pa.int32()),  # the annotator's choice, its bias removed; null: no answer, or a tie
        ("confidence", pa.float32()),  # its probability of chosen_label; null: no answer
        # by model and annotator alone: the probability that the suggested label is right rather than the given one, what the
        # answer added to its log-odds (0 without one), and one of DECISIONS
        ("unaudited_probability", pa.float64()),
        ("evidence", pa.float64()),
        ("unaudited_decision", pa.string()),
        # the same with what an audit showed of all suspects, and with the certificate; without an auditor's word on this one
        ("probability", pa.float64()),
        (
            "proposed",
            pa.bool_(),
        ),  # whether the label would change, were it not for `max_harm` and the certificate
        ("certifiable", pa.bool_()),  # whether it would change within `max_harm`, certified or not
        ("machine_decision", pa.string()),
        # in the end
        ("decision", pa.string()),
        ("annotator", pa.string()),  # name of the annotator that decided, or was the last to be asked
        ("auditor", pa.string()),  # name of the auditor whose word settled it; else null
        ("audited_label", pa.int32()),  # the right label by the auditor; null: not audited, or not named
        ("accepted", pa.bool_()),  # whether the label changes (before reverts)
        ("candidates", pa.list_(pa.int32())),
        ("scores", pa.list_(pa.float32())),  # raw log-probability per candidate; empty without an answer
        ("probabilities", pa.list_(pa.float32())),  # calibrated probability per candidate
        ("error", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("answer_tokens", pa.int32()),
        ("seconds", pa.float32()),
        ("reused", pa.bool_()),  # the answer was paid for by an earlier run
        ("key", pa.string()),  # key of the answer in the ledger
        ("prompt_hash", pa.string()),
        ("model", pa.string()),
        ("raw", pa.string()),
        ("written", pa.float64()),
    ]
)
"""Columns of `relabel/annotations/`; the most doubtful suspect is the first row."""

AUDITED = pa.schema(
    [
        ("unit_id", pa.int64()),
        ("label", pa.int32()),  # number of the right answer
        ("value", pa.string()),  # the answer as JSON, where its number does not say it; else null
        ("auditor", pa.string()),
    ]
)
"""Columns of `relabel/audited.parquet`: the right answer of every unit that an auditor settled, suspect or not; absent
without an audit."""

_COLUMNS = ("unit_id", "example_id", "rank", "given_label", "suggested_label", "chosen_label", "audited_label", "confidence",
            "probability", "log_odds", "decision", "annotator", "auditor", "given_value", "suggested_value",
            "candidates", "error")  # fmt: skip


def waiting_for_person(counts: Mapping[str, int]) -> int:
    """Number of labels, of counts by decision, that a person decides.

    >>> waiting_for_person({"referred": 20, "abstained": 3, "error": 1})
    23
    """
    return sum(counts.get(decision, 0) for decision in FOR_A_PERSON)


@dataclass(frozen=True)
class SuspectRanking:
    """The decision on every suspect, sorted by the id of its unit (S suspects)."""

    unit_id: npt.NDArray[np.int64]
    example_id: npt.NDArray[np.int64]
    rank: npt.NDArray[np.int64]
    given: npt.NDArray[np.int64]
    suggested: npt.NDArray[np.int64]
    """[S] Label that a change leads to: an auditor's where there is one, else the one that detection suggests."""
    rival: npt.NDArray[np.int64]
    """[S] Label that detection suggests."""
    chosen: npt.NDArray[np.int64]
    """[S] Label that the annotator chose; -1 without an answer and for a tie."""
    confidence: npt.NDArray[np.float32]
    """[S] The annotator's probability of the chosen label; NaN without an answer."""
    probability: npt.NDArray[np.float64]
    """[S] Probability that the suggested label is right rather than the given one, by which was decided."""
    log_odds: npt.NDArray[np.float64]
    """[S] The same before anybody answered, as log P(suggested) - log P(given)."""
    decision: npt.NDArray[np.int8]
    """[S] Index into `DECISIONS`."""
    annotator: npt.NDArray[np.object_]
    """[S] Name of the annotator that decided, or of the auditor who did; `MODEL_ALONE` where a label changed or was kept
    without or against the annotator's answer. Of undecided suspects, the annotator that was asked last."""
    given_value: npt.NDArray[np.object_]
    """[S] The given answer as JSON, where its number does not say it; else None."""
    suggested_value: npt.NDArray[np.object_]
    """[S] The suggested answer as JSON, where its number does not say it; else None."""
    candidates: npt.NDArray[np.int64]
    """[S, 2], or [S, 0] where every label was a candidate."""
    truth: npt.NDArray[np.int64]
    """[S] True label, -1 until an evaluation that knows it fills it in."""
    error_kinds: Counter[str]

    @classmethod
    def read(cls, relabel: Folder) -> "SuspectRanking":
        """The decisions in `annotations/` of a finished relabel."""
        names = relabel.shards("annotations")
        return cls.from_tables(relabel.read_table("annotations", name, columns=_COLUMNS) for name in names)

    @classmethod
    def from_tables(cls, tables: Iterable[pa.Table]) -> "SuspectRanking":
        """The decisions in tables with columns of `ANNOTATIONS`, whose rows stand in any order."""
        names = _COLUMNS[:-2]
        texts = ("annotator", "auditor", "given_value", "suggested_value")
        floats = ("confidence", "probability", "log_odds")
        empty: dict[str, npt.NDArray[Any]] = {name: np.zeros(0, dtype=np.int64) for name in names}
        empty |= dict.fromkeys(texts, np.zeros(0, object)) | dict.fromkeys(floats, np.zeros(0))
        parts: dict[str, list[Any]] = {name: [column] for name, column in empty.items()}
        every, kinds = False, Counter[str]()
        for table in tables:
            decision = np.array([DECISIONS.index(x) for x in table["decision"].to_pylist()], dtype=np.int8)
            parts["decision"].append(decision)
            for name in texts:
                parts[name].append(np.array(table[name].to_pylist(), dtype=object))
            for name in floats:
                parts[name].append(table[name].to_numpy(zero_copy_only=False).astype(np.float64))
            for name in names[:7]:
                parts[name].append(pc.fill_null(table[name], -1).to_numpy().astype(np.int64))
            every |= bool((pc.max(pc.list_value_length(table["candidates"])).as_py() or 0) > 2)
            errors = table["error"].filter(pc.equal(table["decision"], "error")).to_pylist()
            kinds.update((text or "unknown").partition(":")[0] for text in errors)
        columns = {name: np.concatenate(part) for name, part in parts.items()}
        order = np.argsort(columns["unit_id"], kind="stable")
        columns = {name: column[order] for name, column in columns.items()}
        given, rival, audited = (columns[f"{name}_label"] for name in ("given", "suggested", "audited"))
        pairs = np.stack([given, rival], axis=1).astype(np.int64)
        said = np.select(
            [columns["decision"] == DECISIONS.index(each) for each in ("changed", "kept")], [rival, given], -1
        )
        decided = np.where((said >= 0) & (said != columns["chosen_label"]), MODEL_ALONE, columns["annotator"])
        return cls(
            unit_id=columns["unit_id"],
            example_id=columns["example_id"],
            rank=columns["rank"],
            given=given,
            suggested=np.where((audited >= 0) & (audited != given), audited, rival),
            rival=rival,
            chosen=columns["chosen_label"],
            confidence=columns["confidence"].astype(np.float32),
            probability=columns["probability"],
            log_odds=columns["log_odds"],
            decision=columns["decision"].astype(np.int8),
            annotator=np.where(columns["auditor"] == None, decided, columns["auditor"]),  # noqa: E711
            given_value=columns["given_value"],
            suggested_value=columns["suggested_value"],
            candidates=pairs[:, :0] if every else pairs,
            truth=np.full(len(order), -1, dtype=np.int64),
            error_kinds=kinds,
        )

    def among_candidates(self) -> npt.NDArray[np.bool_]:
        """Whether the truth is known and one of the candidates [S]."""
        if self.candidates.shape[1] == 0:
            return np.asarray(self.truth >= 0)
        return np.asarray((self.truth >= 0) & (self.candidates == self.truth[:, None]).any(axis=1))

    @property
    def certainty(self) -> npt.NDArray[np.float32]:
        """Probability of the label [S] that was decided on, against its rival, before reverts."""
        changed = self.decided("changed")
        return np.where(changed, self.probability, 1 - self.probability).astype(np.float32)

    def decided(self, decision: str) -> npt.NDArray[np.bool_]:
        """Which suspects have this decision [S], before reverts."""
        return np.asarray(self.decision == DECISIONS.index(decision))
