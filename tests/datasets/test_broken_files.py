"""Broken CSV and JSON files: nothing is read that their authors did not write, and nothing but our own errors is raised.

Every file begins as a healthy one. Its structure is then damaged where people and programs damage it: a quote is lost, added
or escaped in another way, line ends change, the file is cut, a NUL gets in. Whatever is kept must be a whole text of the
healthy file with its own label, but for the damaged characters themselves. Opening quotes are not lost: the lines of such a
text are records by themselves, which no reader can know.
"""

import csv
import io
import json
import random
import re

import pytest

from rayclean.errors import RaycleanError

from .staged import Staged

LABELS = ("heron", "ferry", "storm")
WORDS = "the old pilot waits by a quiet pier while rain falls on every second boat".split()
STRUCTURE = re.compile(r"[\"'\\\s\x00,;\[\]{}:\ufffd]+|\\x[0-9a-f]{2}")


def table(draw):
    """Rows whose texts hold what must be quoted."""
    rows = []
    for number in range(draw.randint(12, 40)):
        words = draw.choices(WORDS, k=draw.randint(3, 9))
        for _ in range(draw.choice([0, 0, 1, 3])):
            words.insert(
                draw.randrange(1, len(words)),
                draw.choice(['"so"', "aye,", "then\n", "and\nno, but\n", '"no", he']),
            )
        rows.append((f"{' '.join(words)} n{number}", draw.choice(LABELS)))
    return rows


def healthy_csv(draw, rows):
    """The table in a dialect that `load` recognises, the text in the first column or in the last."""
    buffer = io.StringIO(newline="")
    options = draw.choice(
        [{}, {"delimiter": ";"}, {"quoting": csv.QUOTE_ALL}, {"escapechar": "\\", "doublequote": False}]
    )
    writer = csv.writer(buffer, lineterminator=draw.choice(["\n", "\r\n"]), **options)
    order = draw.choice([("text", "label"), ("n", "text", "label"), ("label", "text")])
    writer.writerow(order)
    for number, (text, label) in enumerate(rows):
        writer.writerow([{"text": text, "label": label, "n": number}[name] for name in order])
    return buffer.getvalue()


def damaged_csv(draw, content):
    """The file with a few faults of its quotes, its line ends or its end."""
    for _ in range(draw.randint(1, 4)):
        quotes = [found.start() for found in re.finditer(r'(?<=[^,;\r\n])"', content)]  # no opening ones
        place = draw.choice(quotes) if quotes else 0
        kind = draw.choice(["lose", "double", "escape", "add", "carriage", "nul", "cut", "open"])
        if kind == "lose" and quotes:
            content = content[:place] + content[place + 1 :]
        elif kind == "double" and quotes:
            content = content[:place] + '"' + content[place:]
        elif kind == "escape":
            start = content.find('""', place)
            content = content if start < 0 else f'{content[:start]}\\"{content[start + 2 :]}'
        elif kind in ("add", "nul"):
            place = draw.choice([found.start() for found in re.finditer(" ", content)])
            content = content[:place] + ('"' if kind == "add" else "\0") + content[place:]
        elif kind == "carriage":
            content = content.replace("\r\n", "\n").replace("\n", "\r")
        elif kind == "cut":
            content = content[: draw.randint(len(content) // 2, len(content))]
        elif kind == "open":
            place = draw.choice([found.end() for found in re.finditer(r"\n(?!\")|\r(?![\n\"])", content)])
            content = content[:place] + '"' + content[place:]
    return content.encode()


def damaged_jsonl(draw, rows):
    content = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
    if draw.random() < 0.3:
        content = json.dumps(
            [{"text": text, "label": label} for text, label in rows], indent=draw.choice([None, 1])
        )
    for _ in range(draw.randint(1, 4)):
        place = draw.choice([found.start() for found in re.finditer(r'(?<!\\)["{}\[\],:\n]', content)])
        kind = draw.choice(["lose", "double", "cut", "nest"])
        if kind == "cut":
            content = content[: draw.randint(len(content) // 2, len(content))]
        else:
            content = (
                content[:place]
                + {"lose": "", "double": content[place] * 2, "nest": "[" * 5000}[kind]
                + content[place + 1 :]
            )
    return content.encode()


def bare(value):
    """A value without what structures a file."""
    return STRUCTURE.sub("", value)


def is_written(pair, written, is_last):
    """Whether a pair is one of the healthy file; of the last one a cut file may hold the beginning."""
    text, label = map(bare, pair)
    return (text, label) in written or (
        is_last and any(t.startswith(text) and la.startswith(label) for t, la in written)
    )


def check(folder, name, content, rows):
    path = folder / name
    path.write_bytes(content)
    written = {(bare(text), label) for text, label in rows}
    try:
        kept = Staged(folder / "out", path).pairs
    except RaycleanError as error:
        return 0 if name in str(error) else pytest.fail(f"names no file: {error}")
    invented = [pair for i, pair in enumerate(kept, 1) if not is_written(pair, written, i == len(kept))]
    assert invented == [], content.decode("utf-8", "replace")
    return len(kept)


def fuzz(folder, seeds):
    kept = 0
    for seed in seeds:
        draw = random.Random(seed)
        rows = table(draw)
        if seed % 3:
            kept += check(folder / str(seed), "a.csv", damaged_csv(draw, healthy_csv(draw, rows)), rows)
        else:
            kept += check(
                folder / str(seed), draw.choice(["a.jsonl", "a.json"]), damaged_jsonl(draw, rows), rows
            )
    return kept


@pytest.fixture
def folder(tmp_path):
    class Folders:
        def __truediv__(self, name):
            (tmp_path / name).mkdir()
            return tmp_path / name

    return Folders()


def test_nothing_is_invented_from_broken_files(folder):
    assert fuzz(folder, range(300)) > 3000, "a reader that rejects everything invents nothing, too"


@pytest.mark.slow
def test_nothing_is_invented_from_many_broken_files(folder):
    assert fuzz(folder, range(300, 10_300)) > 100_000
