from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rayclean.detectors import DETECTORS
from rayclean.detectors.base import DetectorBatch
from rayclean.detectors.pointwise import Disagreement, NormalizedMargin, SelfConfidence
from rayclean.errors import ConfigError
from rayclean.folder import Folder
from rayclean.plugins import Plugin
from tests.contracts import check_detector, detector_case


def test_votes_and_qualities() -> None:
    p = np.array([[0.75, 0.25], [0.25, 0.75], [0.5, 0.5]], dtype=np.float32)
    batch = DetectorBatch(np.arange(3), np.zeros(3, np.int32), p.argmax(axis=1).astype(np.int32), p)
    quality, vote = SelfConfidence(SelfConfidence.Config(), 2).score(batch, None)
    assert quality.tolist() == [0.75, 0.25, 0.5]
    assert vote.tolist() == [False, True, False]
    assert SelfConfidence(SelfConfidence.Config(threshold=0.6), 2).score(batch, None)[1].tolist() == [
        False,
        True,
        True,
    ]
    quality, vote = NormalizedMargin(NormalizedMargin.Config(), 2).score(batch, None)
    assert quality.tolist() == [0.75, 0.25, 0.5]
    assert vote.tolist() == [False, True, False]
    quality, vote = Disagreement(Disagreement.Config(), 2).score(batch, None)
    assert quality.tolist() == [1, 0, 1]
    assert vote.tolist() == [False, True, False]


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_contract(name: str, tmp_path: Path) -> None:
    case = detector_case()
    given = case.probabilities[np.arange(len(case.unit_id)), case.given_label]
    Folder(str(tmp_path)).write_table(
        pa.table({"example_id": case.unit_id, "trained_label": case.given_label, "quality": given}),
        "part-00000.parquet",
    )
    options = {"path": str(tmp_path), "share": 0.3} if name == "dynamics" else {}
    check_detector(Plugin(name=name, **options))


def test_unknown_option_is_named() -> None:
    with pytest.raises(ConfigError, match="threshold"):
        DETECTORS.checked(Plugin(name="self_confidence", treshold=0.1))
