"""The dialect of a CSV: what is recognised, what is said about it, what fixes it, and what is refused."""

import pytest

from rayclean.config import DatasetConfig
from rayclean.datasets.base import SourceFile
from rayclean.datasets.csv import Csv
from rayclean.datasets.rejected_share import check_rejected
from rayclean.errors import DataError

from .staged import Staged

ROWS = [(f"a wet, grey {['quay', 'roof'][n % 2]} no. {n}", ["dock", "attic"][n % 2]) for n in range(40)]


def stage(folder, content, name="a.csv", encoding="utf-8", **options):
    (folder / name).write_bytes(content.encode(encoding))
    return Staged(folder / "out", folder / name, **options)


def joined(delimiter, rows=ROWS, header=("text", "label")):
    return "".join(delimiter.join(row) + "\n" for row in [header, *rows])


@pytest.mark.parametrize(
    ("name", "format_"), [("a.csv", "auto"), ("a.tsv", "auto"), ("a.txt", "csv"), ("a.tab", "auto")]
)
@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_delimiters_are_found_by_the_names_of_the_columns(tmp_path, delimiter, name, format_):
    found = stage(tmp_path, joined(delimiter), name, format=format_)
    assert found.pairs == ROWS
    ((words, form),) = found.forms.items()
    usual = "\t" if name in ("a.tsv", "a.tab") else ","
    assert (form["remark"] == "") == (delimiter == usual)
    assert ("tab" if delimiter == "\t" else repr(delimiter)) in words


def test_a_comma_is_preferred_where_both_read_the_header(tmp_path):
    rows = [(f"one; two; {number}", "dock") for number in range(9)]
    assert stage(tmp_path, joined(",", rows)).pairs == rows


def test_files_of_one_source_may_differ(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for number, (delimiter, encoding) in enumerate([(",", "utf-8"), (";", "utf-16"), ("\t", "utf-8-sig")]):
        (folder / f"{number}.csv").write_text(joined(delimiter, [(f"{t} {number}", la) for t, la in ROWS]) if delimiter != ","
                                             else 'text,label\n"a, 0",dock\n', encoding)  # fmt: skip
    found = Staged(tmp_path / "out", folder)
    assert len(found.pairs) == 81
    assert len(found.forms) == 3


def test_what_the_config_says_is_not_guessed(tmp_path):
    found = stage(tmp_path, joined("^"), delimiter="^")
    assert found.pairs == ROWS
    assert [form["remark"] for form in found.forms.values()] == [""]
    with pytest.raises(DataError, match=r"header is one column, 'text\^label'.*dataset\.delimiter = '\^'"):
        stage(tmp_path, joined("^"))


def test_a_wrong_delimiter_is_refused_and_shifts_nothing(tmp_path):
    with pytest.raises(DataError, match="one column, 'text;label'"):
        stage(tmp_path, joined(";"), delimiter=",")


def test_excel_says_the_delimiter_in_the_first_line(tmp_path):
    found = stage(tmp_path, "sep=;\n" + joined(";"))
    assert found.pairs == ROWS
    found = stage(tmp_path, 'sep=;\ntext;label\na;dock\n"b "x;dock\nc;dock\n')
    assert "line 4 left out" in found.rejected[0][2]


ESCAPED = joined(";", [(f'"{text} \\"{n}\\"; C:\\pier"', label) for n, (text, label) in enumerate(ROWS)])


def test_quotes_escaped_by_a_backslash(tmp_path):
    expected = [(f'{text} "{n}"; C:\\pier', label) for n, (text, label) in enumerate(ROWS)]
    found = stage(tmp_path, ESCAPED)
    assert found.pairs == expected
    assert all("escaped by \\" in words and form["remark"] for words, form in found.forms.items())
    assert stage(tmp_path, ESCAPED, escape="\\").pairs == expected
    assert stage(tmp_path, ESCAPED, escape="").pairs == []


def test_null_of_databases(tmp_path):
    lines = ["text,label", '"a ""b"" \\"c\\"",dock', "d,\\N", '"e \\\\N",dock', "C:\\New,dock", "\\\\N,dock"]
    found = stage(tmp_path, "\n".join(lines), escape="\\")
    assert found.pairs == [('a "b" "c"', "dock"), ("e \\N", "dock"), ("C:\\New", "dock"), ("\\N", "dock")]
    assert [reason for _, reason, _ in found.rejected] == ["null label"]


def test_a_backslash_before_a_closing_quote_is_no_escape_in_rfc_4180(tmp_path):
    rows = [(f'"C:\\{number}\\"', "dock") for number in range(30)]
    assert stage(tmp_path, joined(",", rows)).pairs == [(text[1:-1], label) for text, label in rows]


def test_tables_of_databases_quote_nothing(tmp_path):
    rows = [(f'"{text}' if n % 5 == 0 else text, label) for n, (text, label) in enumerate(ROWS)]
    found = stage(tmp_path, joined("\t", rows), "a.tsv")
    assert found.pairs == rows
    assert all("quotes as plain characters" in words for words in found.forms)
    rows = [('"open', "dock"), *((text.replace(",", ""), label) for text, label in ROWS)]
    assert len(stage(tmp_path, joined(",", rows)).pairs) == 40, "between commas a quote is a quote"
    assert stage(tmp_path, joined(",", rows), quote="").pairs == rows


def test_a_quoted_tsv_with_a_fault_is_still_quoted(tmp_path):
    rows = [(f'"{text}"', label) for text, label in ROWS]
    found = stage(tmp_path, joined("\t", [*rows, ('"open', "dock")]), "a.tsv")
    assert found.pairs == ROWS
    assert len(found.rejected) == 1


def test_blanks_before_quotes(tmp_path):
    rows = [(f'"{text}"', f'"{label}"') for text, label in ROWS]
    found = stage(tmp_path, joined(", ", rows))
    assert found.pairs == ROWS
    assert all(
        "blanks before them left out" in words and form["remark"] for words, form in found.forms.items()
    )


def test_delimiters_escaped_by_a_backslash(tmp_path):
    rows = [(text.replace(",", "\\,"), label) for text, label in ROWS]
    assert stage(tmp_path, joined(",", rows)).pairs == ROWS


def test_single_quotes(tmp_path):
    rows = [(f"'{text}, it''s'", f"'{label}'") for text, label in ROWS]
    found = stage(tmp_path, joined(",", rows, ("'text'", "'label'")))
    assert found.pairs == [(f"{text}, it's", label) for text, label in ROWS]


def test_blanks_around_the_names_of_columns(tmp_path):
    plain = [(text.replace(",", ""), label) for text, label in ROWS]
    assert stage(tmp_path, joined(", ", plain, ("text ", "label"))).pairs == plain
    assert stage(tmp_path, joined(",", plain, ("text", " label")), label=" label").pairs == plain


def test_a_file_without_header(tmp_path):
    plain = [(text.replace(",", ""), label) for text, label in ROWS]
    content = joined(",", plain[1:], plain[0])
    message = (
        r"names none of the columns text.* 'dock' stands in column 2.* dataset\.header = false.*column_1"
    )
    with pytest.raises(DataError, match=message):
        stage(tmp_path, content)
    found = stage(tmp_path, content, header=False, text="column_1", label="column_2")
    assert found.pairs == plain


def test_one_name_for_two_columns(tmp_path):
    with pytest.raises(DataError, match=r"a\.csv: it names \['label'\] more than once"):
        stage(tmp_path, "text,label,label\na,b,c\n")


def test_the_guess_does_not_depend_on_what_comes_after_the_sample(tmp_path, monkeypatch):
    monkeypatch.setattr("rayclean.datasets.text_files._SAMPLE_BYTES", 200)
    rows = [(text.replace(",", ""), label) for text, label in ROWS]
    found = stage(tmp_path, joined(",", [*rows, ('"a \\"b\\"', "dock\n"), ('\u00e9"', "dock")]))
    assert found.pairs[:40] == rows
    assert found.labels == {"dock", "attic"}


def test_single_quotes_are_found_by_the_names_of_the_columns_though_a_record_is_malformed(tmp_path):
    content = "'text','label'\n" + "".join(f"'{text}','{label}'\n" for text, label in ROWS)
    found = stage(tmp_path, f"{content}'the quay's wall','dock'\n")
    assert found.pairs == ROWS
    assert [reason for _, reason, _ in found.rejected] == ["malformed CSV line"]


@pytest.mark.parametrize(
    ("before", "first"),
    [("Export of 2024\n\n", "Export of 2024"), ("Export, all\n,\n", "Export"), ("# a\n# b, c\n", "# a")],
)
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_a_title_above_the_header_is_named(tmp_path, before, first, delimiter):
    rows = "".join(f"a text {number}{delimiter}x\n" for number in range(20))
    (tmp_path / "a.csv").write_text(f"{before}text{delimiter}label\n{rows}")
    message = (
        rf"line 3 names the columns text, label, and the first line is '{first}.*remove the 2 lines before"
    )
    with pytest.raises(DataError, match=message):
        Staged(tmp_path / "out", tmp_path / "a.csv")


def test_what_a_spreadsheet_leaves_behind_costs_nothing(tmp_path):
    """Two columns without a name, and blank records, inside and at the end; the numbers of rows do not move."""
    rows = "".join(f"a text {number},{'xy'[number % 2]},,\n" for number in range(20))
    (tmp_path / "a.csv").write_text(f"text,label,,\n,,,\n{rows}" + ", ,,\n" * 300)
    found = Staged(tmp_path / "out", tmp_path / "a.csv")
    assert len(found.pairs) == 20
    assert {reason for _, reason, _ in found.rejected} == {"blank row"}
    check_rejected(DatasetConfig(path="x"), found.summaries)
    assert Csv().columns(SourceFile(str(tmp_path / "a.csv"), "a.csv", 1)) == [
        "text",
        "label",
        "column_3",
        "column_4",
    ]
