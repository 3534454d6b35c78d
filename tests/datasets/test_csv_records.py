"""After a malformed record, reading goes on where a record begins, and nowhere inside of it."""

import pytest

from rayclean.datasets.rejected_rows import WHOLE_CHARACTERS

from .staged import Staged

GOOD = [(f"tin kettle {number} on a stove", ["tea", "soup"][number % 2]) for number in range(60)]


def stage(folder, *blocks, good=GOOD, header="text,label", row="{0},{1}", **options):
    """Load good rows with a block of lines after every tenth of them, as long as there are blocks."""
    lines = [f"{header}\n"]
    left = list(blocks)
    for number, pair in enumerate(good):
        lines.append(row.format(*pair, number=number) + "\n")
        if left and number % 10 == 9:
            lines.append(left.pop(0))
    assert not left
    (folder / "a.csv").write_text("".join(lines), newline="")
    return Staged(folder / "out", folder / "a.csv", **options)


TEXT_FIRST = {
    "escaped quotes": '"She asked \\"more?\\" and\nput the kettle, then the lid\nback again",tea\n',
    "quotes as they are": '"She asked "more?" and\nput the kettle, then the lid\nback again",tea\n',
    "a line with a known label": '"She asked "more?" and\npoured some,tea\nand more",soup\n',
    "a first line that is a record": '"Yes", she said, then\nput the lid",tea\n',
    "a first line with as many fields": '"She asked for more", then\nput the lid",tea\n',
    "no quotes at all": "She asked for more\nof this,tea\n",
    "its closing quote is lost": '"She asked for\nmore of this,tea\n',
    "a quote too many": '""She asked for\nmore", of this,tea\n',
    "a quote begins a line": '"She asked for\n" more of this",tea\n',
    "wrongly doubled": '"She asked "more"",tea\n',
    "a blank line inside": '"She asked "more?"\n\nput the kettle, then the lid\n",tea\n',
}


@pytest.mark.parametrize("block", TEXT_FIRST.values(), ids=TEXT_FIRST)
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_no_line_of_a_broken_text_is_a_record(tmp_path, block, delimiter):
    blocks = [block.replace(",", delimiter)] * 3
    row, header = f"{{0}}{delimiter}{{1}}", f"text{delimiter}label"
    found = stage(tmp_path, *blocks, row=row, header=header, delimiter=delimiter, escape="")
    assert found.pairs == GOOD
    assert {reason for _, reason, _ in found.rejected} == {"malformed CSV line"}
    assert len(found.rejected) >= 3


LABEL_FIRST = {
    "escaped quotes": 'tea,"She asked \\"more?\\" and\nput the kettle, then the lid\nback again"\n',
    "quotes as they are": 'tea,"She asked "more?" and\nput the kettle, then the lid\nback again"\n',
    "a line that is a record": 'tea,"She asked "more?" and\nsoup, or tea\nback again"\n',
}


@pytest.mark.parametrize("block", LABEL_FIRST.values(), ids=LABEL_FIRST)
def test_labels_may_come_first(tmp_path, block):
    found = stage(tmp_path, block, block, header="label,text", row="{1},{0}", escape="")
    assert found.pairs == GOOD


def test_numbers_may_come_first(tmp_path):
    block = '99,"She asked "more?" and\nput the kettle, then, tea\n1,a lid,then\nback again",tea\n'
    found = stage(tmp_path, block, header="n,text,label", row="{number},{0},{1}")
    assert found.pairs == GOOD


def test_labels_of_few_rows_and_of_a_sorted_file_are_read_on(tmp_path):
    """Where a file is sorted by label, those after a fault are new; one of another row is a class as well."""
    good = [*sorted(GOOD, key=lambda pair: pair[1]), ("a pan", "rare")]
    found = stage(tmp_path, "x\n", "x\n", "x\n", '"open\n', good=good, escape="")
    assert found.labels == {"tea", "soup", "rare"}
    assert len(found.pairs) > 50


def test_the_whole_record_is_kept_with_what_is_wrong_and_where_reading_goes_on(tmp_path):
    found = stage(tmp_path, TEXT_FIRST["escaped quotes"], escape="")
    ((row, _, value),) = found.rejected
    assert row == 10
    assert value.startswith("',' expected after '\"'; ")
    assert 'if the backslash before " escapes it, set dataset.escape; ' in value
    assert "lines 12 to 14 left out, goes on at line 15: " in value
    assert value.endswith(TEXT_FIRST["escaped quotes"].rstrip("\n"))


def test_a_long_record_is_kept_in_part(tmp_path):
    found = stage(tmp_path, '"a "b" c\n' + ("d" * 100 + "\n") * (WHOLE_CHARACTERS // 100) + 'e",tea\n')
    ((_, _, value),) = found.rejected
    assert len(value) == WHOLE_CHARACTERS
    assert found.pairs == GOOD


def test_what_is_lost_is_counted(tmp_path, monkeypatch):
    """Where reading does not go on for long, the lines that look like records count one by one."""
    monkeypatch.setattr("rayclean.datasets.text_files._SAMPLE_BYTES", 30 * 60)
    others = [(f"pot {number}", f"kind {number}") for number in range(60)]
    found = stage(tmp_path, good=[*GOOD, ("a pan", 'tea\n"a "b" c'), *others])
    assert found.pairs == [*GOOD, ("a pan", "tea")]
    assert len(found.rejected) == 1 + 60 - 20


@pytest.mark.parametrize(("begin", "least", "lost"), [("", 300 - 20, 0), ('"a "b" c\n', 300 - 200, 1)])
def test_lines_without_a_delimiter_are_counted_where_they_are_more_than_a_text_has(
    tmp_path, begin, least, lost
):
    """Like a file with another delimiter that was appended: hundreds of rows are no single malformed one."""
    found = stage(tmp_path, begin + "".join(f"pot {number}\ttea\n" for number in range(300)))
    assert (
        found.pairs == GOOD[:10] + GOOD[10 + lost :]
    )  # after an open quote, one row may be the end of its text
    assert len(found.rejected) > least


@pytest.mark.parametrize(("row", "header"), [("{0},{1}", "text,label"), ("{number},{0},{1}", "n,text,label")])
@pytest.mark.parametrize("between", [0, 1, 30])
@pytest.mark.parametrize("open_text", ['"an open lid', '"an open lid, and a pan'])
def test_an_open_quote_and_an_inch_mark_make_no_text_of_what_lies_between(
    tmp_path, row, header, between, open_text
):
    """Read as quoted, all lines between them are one text with a known label, and nothing looks amiss."""
    others = [(f"pot {number}", "tea") for number in range(between)]  # with a blank line now and then
    lines = [(open_text, "soup"), *others, ('a sheet of 27"', "tea")]
    found = stage(
        tmp_path,
        "".join(
            row.format(*pair, number=900 + number) + "\n" * (1 + (number == 9))
            for number, pair in enumerate(lines)
        ),
        header=header,
        row=row,
    )
    expected = GOOD[:10] + others + GOOD[10:]
    assert [pair for pair in found.pairs if '"' not in pair[0]] == expected
    assert found.rejected[0][2].startswith("a quote that is never closed")


def test_a_quoted_text_may_list_records(tmp_path):
    """Where no label is known in every line, the text is one."""
    text = '"the pan,tea\nthe lid, or so\nthe pot,soup",tea\n'
    assert ("the pan,tea\nthe lid, or so\nthe pot,soup", "tea") in stage(tmp_path, text).pairs


def test_one_label_per_row_shows_nothing(tmp_path):
    """Labels that do not come again are no set of classes; after an open quote, one row may be the end of its text."""
    unique = [(f"pot {number}", f"kind {number}") for number in range(60)]
    found = stage(tmp_path, "a,b,c\n", '"a "b" c\n', good=unique)
    assert found.pairs == unique[:20] + unique[21:]


def test_a_file_that_is_cut_in_its_last_record(tmp_path):
    whole = "".join(f"{text},{label}\n" for text, label in GOOD)
    for end, kept in {"": 60, "a pan,so": 60, "a pan": 60, '"a pan,tea': 60, "a pan,tea": 61}.items():
        (tmp_path / "a.csv").write_text(f"text,label\n{whole}{end}")
        found = Staged(tmp_path / f"out{len(end)}", tmp_path / "a.csv")
        assert len(found.pairs) == kept, end
        assert found.labels == {"tea", "soup"}


def test_a_header_in_the_middle_is_no_example(tmp_path):
    found = stage(tmp_path, "text,label\n")
    assert found.pairs == GOOD
    assert found.rejected == [(10, "header repeated", "['text', 'label']")]


def test_quotes_in_the_middle_of_a_field_are_characters(tmp_path):
    found = stage(tmp_path, '5" pan,tea\n', 'the "big" pan,soup\n')
    assert len(found.pairs) == 62
    assert found.rejected == []


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_line_ends(tmp_path, end):
    content = "text,label\n" + "".join(f'"{text}\nagain",{label}\n' for text, label in GOOD)
    (tmp_path / "a.csv").write_text(content.replace("\n", end), newline="")
    assert Staged(tmp_path / "out", tmp_path / "a.csv").pairs == [
        (f"{text}{end}again", label) for text, label in GOOD
    ]
