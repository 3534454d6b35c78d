"""Values that are kept for ever: a change here loses answers that were paid for."""

import hashlib
from pathlib import Path

import numpy as np

from rayclean import hashing
from rayclean.annotators.model_source import content_hash
from rayclean.datasets.example_id import key_id, row_id
from rayclean.functional.hashing import folds, mix


def test_values_never_change() -> None:
    assert hashing.digest("text", digits=16) == "d7f35fa228381a1c"
    assert hashing.digest(b"text") == hashlib.blake2b(b"text", digest_size=16).hexdigest()
    assert hashing.int64("text") == 2024992729630503895
    assert hashing.uint32("text") == 999008199
    assert hashing.text_group("Some  Text\n") == hashing.int64("some text")
    assert (key_id("1"), key_id(1)) == (-1227777692984573623, 8727818820637439042)
    assert row_id("data", "a.csv", 3) == 6762809663199945055
    assert mix(np.array([1, 2]), 7, "fold").tolist() == [9019550954598325696, 3021238710925096939]
    assert folds(np.arange(8), 7, 3).tolist() == [2, 1, 1, 1, 2, 2, 2, 0]


def test_copies_of_a_text_are_one_group() -> None:
    """Case, blanks and the form of Unicode do not tell texts apart; accents, punctuation and the order of words do."""
    same = ["Stra\u00dfe am Caf\u00e9", "strasse  am\tcafe\u0301", "\u00a0STRASSE AM CAF\u00c9\n"]
    assert len({hashing.text_group(text) for text in same}) == 1
    others = [
        "strasse am cafe",
        "strasse amcaf\u00e9",
        "strasse am caf\u00e9.",
        "am strasse caf\u00e9",
        "",
        "\ud800",
    ]
    assert len({hashing.text_group(text) for text in [same[0], *others]}) == 7
    assert hashing.text_group("") == hashing.text_group(" \n")


def test_half_of_a_surrogate_pair_is_no_error() -> None:
    assert hashing.digest("\ud800") != hashing.digest("\ud801")


def test_files_and_models(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"{}")
    assert hashing.file_digest(tmp_path / "config.json") == hashing.digest(b"{}")
    whole = hashlib.sha256(b"{}")
    assert hashing.file_digest(tmp_path / "config.json", "sha256") == whole.hexdigest()
    assert hashing.sha256([b"{", b"}"]) == whole.hexdigest()
    expected = hashlib.sha256(b"config.json\0" + b"2\0" + whole.digest()).hexdigest()[:12]
    assert content_hash(tmp_path) == expected
