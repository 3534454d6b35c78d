"""What a reader sees first: alarms of the verbs, and classes that relabelling empties."""

from rayclean.evaluation.alarms import alarms


def row(name: str, before: int, out: int, into: int = 0) -> dict:
    return {"name": name, "before": before, "after": before - out + into, "out": out, "into": into}


def test_alarms_of_verbs_come_first_in_their_order() -> None:
    found = alarms(
        [row("rare", 7, 7)], {"load": {"alarms": ["one"]}, "predict": {}, "detect": {"alarms": ["two"]}}
    )
    assert found[:2] == ["load: one", "detect: two"]
    assert "of 7 labels 'rare' 7 are changed, which empties the class" in found[2]


def test_only_classes_that_lose_nearly_all_labels() -> None:
    kept = [row("half", 100, 50), row("whole", 100, 0), row("exchanged", 10, 9, 9), row("none", 0, 0)]
    assert alarms(kept, {}) == []
    (found,) = alarms([*kept, row("it's rare", 10, 8)], {})
    assert "nearly empties" in found
    assert found.endswith("""--from-label 'it'"'"'s rare'""")  # ready for a shell


def test_many_emptied_classes_are_counted_the_largest_named() -> None:
    found = alarms([row(f"c{size}", size, size) for size in range(1, 10)], {})
    assert len(found) == 6
    assert "'c9'" in found[0]
    assert found[-1] == "relabel: 4 further classes are emptied or nearly so"
