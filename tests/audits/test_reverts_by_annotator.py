"""Changes are taken back by who decided them: an annotator or an auditor."""

import json
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

import rayclean
from rayclean.annotations import SuspectRanking
from rayclean.errors import ConfigError
from tests.audits.conftest import Relabelled
from tests.audits.test_commands import fill, labels, truth_of
from tests.command import run_command


@pytest.fixture
def audited(relabelled: Relabelled) -> Relabelled:
    """Some changes are an auditor's word, the others the annotator's."""
    rayclean.audit(relabelled.config())
    rayclean.audit(relabelled.config(), [fill(relabelled.form, truth_of(relabelled))], auditor="anna")
    return relabelled


def changes(relabelled: Relabelled) -> dict[int, str]:
    """Who decided each change that `annotations/` holds."""
    suspects = SuspectRanking.read(relabelled.run.require("relabel"))
    rows = suspects.decided("changed")
    return dict(zip(suspects.unit_id[rows].tolist(), suspects.annotator[rows].tolist(), strict=True))


def reverted(relabelled: Relabelled) -> set[int]:
    return {key for key, row in labels(relabelled.run).items() if row["source"] == "reverted"}


def test_one_annotators_changes_are_reverted_and_applied_again(audited: Relabelled) -> None:
    config, by = audited.config(), changes(audited)
    counts = Counter(by.values())
    assert min(counts["anna"], counts["simulated"]) >= 5
    before = labels(audited.run)
    result = rayclean.revert(config, annotator="anna")
    rest = len(by) - counts["anna"]  # the annotator's, and those that the model made against its answer
    assert result == {"reverted": counts["anna"], "copies": 0, "changed": rest}
    assert reverted(audited) == {key for key, name in by.items() if name == "anna"}
    assert rayclean.revert(config, annotator="anna")["reverted"] == 0
    assert rayclean.revert(config, annotator="simulated")["changed"] == counts["posterior"] > 0
    assert reverted(audited) == {key for key, name in by.items() if name != "posterior"}
    assert rayclean.revert(config, annotator="simulated", undo=True)["reverted"] == counts["simulated"]
    assert reverted(audited) == {key for key, name in by.items() if name == "anna"}
    assert rayclean.revert(config, annotator="anna", undo=True)["changed"] == len(by)
    assert labels(audited.run) == before


def test_it_narrows_other_criteria_and_they_it(audited: Relabelled) -> None:
    config, by = audited.config(), changes(audited)
    suspects = SuspectRanking.read(audited.run.require("relabel"))
    names = [each["name"] for each in audited.run.read_json("load", "labels.json")]
    sure = dict(zip(suspects.unit_id.tolist(), suspects.certainty.tolist(), strict=True))
    given = dict(zip(suspects.unit_id.tolist(), suspects.given.tolist(), strict=True))
    bound = sorted(sure[key] for key in by)[len(by) // 2]
    label = Counter(given[key] for key in by).most_common(1)[0][0]
    expected = {
        key for key, name in by.items() if name == "simulated" and sure[key] < bound and given[key] == label
    }
    assert 0 < len(expected) < Counter(by.values())["simulated"]
    rayclean.revert(config, annotator="simulated", below=bound, from_label=names[label])
    assert reverted(audited) == expected


def test_the_command_names_who_decided(
    audited: Relabelled, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        ConfigError, match="annotator 'simulate' decided about no label: did you mean simulated"
    ):
        rayclean.revert(audited.config(), annotator="simulate")
    file = tmp_path / "config.json"
    file.write_text(json.dumps(audited.values))
    run = partial(run_command, "revert", str(file), capsys=capsys, monkeypatch=monkeypatch)
    counts = Counter(changes(audited).values())
    done = run("--annotator", "anna")
    assert done.code == 0, done.stderr
    rest = sum(counts.values()) - counts["anna"]
    assert f"{counts['anna']} labels reverted, {rest} changes remain" in done.stdout
    assert f"{counts['anna']} labels applied again" in run("--annotator", "anna", "--undo").stdout
    assert (wrong := run("--annotator", "nobody")).code == 2
    assert "known: anna, posterior, simulated" in wrong.stderr


def test_a_story_tells_the_auditors_word_from_the_machines(audited: Relabelled) -> None:
    suspects = SuspectRanking.read(audited.run.require("relabel"))
    for row in (suspects.annotator == "anna").nonzero()[0][:5].tolist():
        story = rayclean.log(audited.run, example_id=int(suspects.example_id[row]), neighbours=0)
        events = {event.kind: event for event in story.events}
        label = labels(audited.run)[int(suspects.unit_id[row])]
        assert events["audited"].auditor == events["decided"].auditor == events["final"].decided_by == "anna"
        assert events["audited"].label == events["final"].label == label["final_name"]
        assert events["decided"].annotator == events["answered"].annotator == "simulated"
        assert events["final"].source == "audited"
