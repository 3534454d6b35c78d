"""The ledger: nothing is lost, nothing is counted twice, whatever is torn, merged or written at the same
time.
"""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayclean.annotators import ledger as module
from rayclean.annotators.ledger import Ledger
from rayclean.annotators.ledger_search import recorded_answers
from rayclean.annotators.query import Annotation
from rayclean.folder import Folder
from tests.annotators.queries import CANDIDATES


def annotation(number: int, error: str | None = None, session: str = "s", raw: str = "") -> Annotation:
    choice, scores = (None, ()) if error else (1, (-1.5, -0.25))
    return Annotation(f"{number:032x}", number, choice, scores, candidates=CANDIDATES[:2], raw=raw,
                      prompt_tokens=10, answer_tokens=1, error=error, session=session)  # fmt: skip


def put(ledger: Ledger, annotations: list[Annotation]) -> None:
    async def go() -> None:
        await asyncio.gather(*(ledger.put(a) for a in annotations))

    asyncio.run(go())


def segments(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir())


def test_what_is_put_is_read_again(tmp_path: Path) -> None:
    nasty = 'line\nbreak \u2028 "quote" \x00 \ud800'
    put(Ledger(Folder(str(tmp_path)), "s"), [annotation(1, raw=nasty), annotation(2)])
    ledger = Ledger(Folder(str(tmp_path)), "s")
    assert ledger.lookup([f"{1:032x}", f"{7:032x}"]) == {f"{1:032x}": annotation(1, raw=nasty)}
    assert len(segments(tmp_path)) == 1  # both waited for the same segment


def test_failures_are_counted_but_answer_nothing(tmp_path: Path) -> None:
    put(
        Ledger(Folder(str(tmp_path)), "s"),
        [annotation(1, "timeout: late"), annotation(2), annotation(3, session="x")],
    )
    ledger = Ledger(Folder(str(tmp_path)), "s")
    assert f"{1:032x}" not in ledger.lookup([f"{1:032x}"])
    assert (ledger.spent.queries, ledger.spent.failed, ledger.spent.prompt_tokens) == (
        2,
        1,
        20,
    )  # not session x's
    put(ledger, [annotation(1)])
    assert ledger.lookup([f"{1:032x}"])[f"{1:032x}"].choice == 1


def test_torn_lines_are_reported_and_the_rest_is_read(tmp_path: Path) -> None:
    put(Ledger(Folder(str(tmp_path)), "s"), [annotation(n) for n in range(5)])
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])  # 2.5 of 5 lines of equal length
    ledger = Ledger(Folder(str(tmp_path)), "s")
    assert (len(ledger), ledger.torn) == (2, 1)
    (tmp_path / f"segment-{'0' * 4}-aa-00000000-00000000.jsonl").write_bytes(b"")
    (tmp_path / "reverts.jsonl").write_text("{}")
    (tmp_path / "segment-half.jsonl.tmp").write_text("{")
    assert len(Ledger(Folder(str(tmp_path)), "s")) == 2


def test_answers_of_another_version_are_kept_named_and_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = (
        '{"v": 1, "key": "'
        + f"{5:032x}"
        + '", "example_id": 5, "label": 1, "scores": {"0": -1.5, "1": -0.2}}\n'
    )
    path = tmp_path / f"segment-{'0' * 4}-aa-00000000-00000000.jsonl"
    path.write_text(old)
    ledger = Ledger(Folder(str(tmp_path)), "s")
    assert (len(ledger), ledger.torn, ledger.other_versions) == (0, 0, 1)
    assert "1 answers" in caplog.text
    assert str(tmp_path) in caplog.text
    put(ledger, [annotation(5)])
    ledger.close()
    assert path.read_text() == old
    assert ledger.lookup([f"{5:032x}"])[f"{5:032x}"] == annotation(5)


def test_small_segments_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MERGE_AT", 4)
    ledger = Ledger(Folder(str(tmp_path)), "s")
    for number in range(10):
        put(ledger, [annotation(number)])
    assert len(segments(tmp_path)) == 4  # two merged ones of 4, two small ones
    ledger.close()
    assert len(segments(tmp_path)) == 3
    keys = [f"{n:032x}" for n in range(10)]
    assert ledger.lookup(keys).keys() == set(keys)
    again = Ledger(Folder(str(tmp_path)), "s")
    assert again.lookup(keys).keys() == set(keys)
    assert again.spent == ledger.spent
    assert again.spent.queries == 10


def test_crash_between_merging_and_deleting_counts_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(Folder(str(tmp_path)), "s")
    for number in range(3):
        put(ledger, [annotation(number)])
    monkeypatch.setattr(ledger.folder, "remove", lambda *parts: None)
    ledger.close()
    assert len(segments(tmp_path)) == 4
    again = Ledger(Folder(str(tmp_path)), "s")
    assert (len(again), again.spent.queries) == (3, 3)


def test_a_reader_follows_another_writers_merge(tmp_path: Path) -> None:
    writer = Ledger(Folder(str(tmp_path)), "s")
    for number in range(3):
        put(writer, [annotation(number)])
    reader = Ledger(Folder(str(tmp_path)), "r")
    writer.close()  # the segments that the reader knows are gone
    assert len(reader.lookup([f"{n:032x}" for n in range(3)])) == 3


def test_several_writers_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MERGE_AT", 3)

    def write(start: int) -> None:
        ledger = Ledger(Folder(str(tmp_path)), "s")
        for number in range(start, start + 10):
            put(ledger, [annotation(number)])
        ledger.close()

    threads = [threading.Thread(target=write, args=(start,)) for start in (0, 5, 20)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(Ledger(Folder(str(tmp_path)), "s")) == 25  # 0..14 and 20..29


def test_a_full_disk_fails_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(Folder(str(tmp_path)), "s")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ledger, "_write", full)
    with pytest.raises(OSError, match="No space"):
        put(ledger, [annotation(1)])


records = st.lists(st.tuples(st.integers(0, 8), st.booleans(), st.sampled_from(["s", "x"])), max_size=25)


@settings(max_examples=25, deadline=None)
@given(records, st.integers(2, 5), st.lists(st.integers(0, 24), max_size=3))
def test_any_history_reads_as_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory,
    history: list[tuple[int, bool, str]],
    merge_at: int,
    restarts: list[int],
) -> None:
    """Whatever is put, merged and reopened: keys with a good answer are found, and each session's counts are
    right.
    """
    folder = Folder(str(tmp_path_factory.mktemp("ledger")))
    before, module.MERGE_AT = module.MERGE_AT, merge_at
    linger, module.LINGER = module.LINGER, 0.0
    try:
        ledger = Ledger(folder, "s")
        for position, (number, good, session) in enumerate(history):
            if position in restarts:
                ledger = Ledger(folder, "s")
            put(ledger, [annotation(number, None if good else "server: 500", session)])
    finally:
        module.MERGE_AT, module.LINGER = before, linger
    expected = {f"{number:032x}" for number, good, _ in history if good}
    assert Ledger(folder, "s").lookup([f"{n:032x}" for n in range(9)]).keys() == expected
    for session in ("s", "x"):
        assert Ledger(folder, session).spent.queries == sum(s == session for _, _, s in history)


def test_answers_about_a_few_questions_are_found_in_all_segments(tmp_path: Path) -> None:
    """By unit, key or prompt; failed ones, too; once each, while a merged segment and its parts are both there."""
    folder = Folder(str(tmp_path))
    assert recorded_answers(folder, [1], [], []) == []
    late = replace(annotation(1), written=9.0)
    failed = replace(annotation(1, "timeout: late"), written=2.0)
    by_prompt = replace(annotation(4), prompt_hash="ab" * 8, written=5.0)
    raw = replace(
        annotation(5), raw=f'{{"unit_id": 1, "key": "{1:032x}"}}', written=1.0
    )  # an answer that quotes others
    for part in ([late, annotation(2)], [failed], [by_prompt, raw, annotation(11)]):
        put(Ledger(folder, "s"), part)
    one = Ledger(folder, "s")
    put(one, [replace(annotation(6), written=7.0)])
    put(one, [annotation(7)])
    parts = {name: (tmp_path / name).read_bytes() for name in segments(tmp_path)}
    one.close()
    for name, content in parts.items():  # as a crash before their deletion leaves them
        (tmp_path / name).write_bytes(content)
    assert recorded_answers(folder, [1], [], []) == [failed, late]
    assert recorded_answers(folder, [], [f"{6:032x}"], ["ab" * 8]) == [
        by_prompt,
        replace(annotation(6), written=7.0),
    ]
    assert recorded_answers(folder, [3], [f"{8:032x}"], ["cd" * 8]) == []
    assert recorded_answers(folder, [], [], []) == []
