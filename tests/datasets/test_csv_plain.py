"""Records that need no second look are read together; what is read is the same as one by one."""

import io
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.datasets import csv_dialect
from rayclean.datasets.csv_dialect import Dialect, PlainRecords, Records
from rayclean.datasets.csv_expectation import Expectation
from rayclean.datasets.csv_records import checked_records
from rayclean.datasets.rejected_rows import RejectedRow

DIALECTS = [
    Dialect(),
    Dialect(";"),
    Dialect(quote="'"),
    Dialect(quote=""),
    Dialect(escape="\\"),
    Dialect(quote="", escape="\\"),
    Dialect(blanks=True),
]
LINES = st.one_of(
    st.sampled_from(
        [
            "a pan,tea",
            "a pot,soup",
            '"a pan, a lid",tea',
            '"a ""big"" pan",soup',
            '"a pan\nand a lid",tea',
            "a pan,new",
            "",
        ]
    ),
    st.text('a ,"\\\n;', max_size=12),
    st.sampled_from(["tea", "soup", "N"]).map("\\N,{}".format),
)
FILES = st.builds(
    lambda many, lines, end, last: end.join([*["a pan,tea", "a pot,soup"] * many, *lines]) + last,
    st.integers(0, 12),
    st.lists(LINES, max_size=40),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\n"]),
)


def read(text: str, dialect: Dialect, header: bool) -> list[list[str] | RejectedRow]:
    lines = list(io.StringIO(text, newline=""))
    labels = [1] if header else []
    return list(checked_records(lines, Expectation(lines, dialect, 2, labels, header)))


@settings(max_examples=1000, deadline=None)
@given(
    text=FILES,
    dialect=st.sampled_from(DIALECTS),
    header=st.booleans(),
    chunk=st.sampled_from([1, 7, 60, 1 << 16]),
)
def test_the_records_are_the_same_as_one_by_one(
    text: str, dialect: Dialect, header: bool, chunk: int
) -> None:
    text = text.replace(",", dialect.delimiter).replace('"', dialect.quote or '"')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Records, "plain", lambda *_: PlainRecords([], []))
        one_by_one = read(text, dialect, header)
        patch.undo()
        patch.setattr(csv_dialect, "_CHUNK", chunk)
        assert read(text, dialect, header) == one_by_one


@pytest.mark.parametrize(
    "row", ["a pan,tea", '"a pan, a lid",tea', '"a pan\nand a lid",tea', '"the ""big"" pan",tea']
)
@pytest.mark.parametrize("escape", ["", "\\"])
def test_a_calm_file_is_read_together(row: str, escape: str) -> None:
    """But for the header and records between two chunks: otherwise it would take several times as long."""
    lines = list(io.StringIO("text,label\n" + f"{row}\n" * 10_000, newline=""))
    records = Records(lines, Dialect(escape=escape))
    next(iter(records))
    together = one = 0
    while True:
        found = records.plain(2, {1: {"tea"}}, 3)
        together += len(found.rows)
        assert found.last == found.last[-3:]
        assert all(after.number == before.last + 1 for before, after in pairwise(found.last))
        if next(iter(records), None) is None:
            break
        one += 1
    assert together + one == 10_000
    assert one <= len("".join(lines)) / csv_dialect._CHUNK + 1
