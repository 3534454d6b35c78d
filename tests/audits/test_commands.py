"""`audit` and `certify` on a real run: nothing is asked of an annotator, and labels follow what the auditor says."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import rayclean
from rayclean import pipeline
from rayclean.annotations import SuspectRanking
from rayclean.audits.answers import ORACLE, read_answers
from rayclean.audits.certificate import read_certificate
from rayclean.audits.forms import row_unit
from rayclean.audits.settle import read_proposals
from rayclean.errors import ArtifactError, ConfigError, DataError
from rayclean.folder import Folder
from rayclean.functional.audit_rates import error_bound
from rayclean.functional.proportions import AuditedPart
from tests.audits.conftest import VERBS, Relabelled
from tests.command import run_command

Answers = dict[int, str]


def table(path: str) -> dict[int, dict[str, Any]]:
    rows = [row for part in sorted(Path(path).glob("*.parquet")) for row in pq.read_table(part).to_pylist()]
    return {row.get("unit_id", row.get("example_id")): row for row in rows}


def labels(run: rayclean.Run) -> dict[int, dict[str, Any]]:
    return table(run.path("relabel", "labels"))


def names_of(run: rayclean.Run) -> list[str]:
    return [each["name"] for each in run.read_json("load", "labels.json")]


def truth_of(relabelled: Relabelled) -> dict[int, str]:
    names = [each["name"] for each in relabelled.run.read_json("load", "labels.json")]
    rows = table(relabelled.run.path("load", "truth"))
    return {key: names[row["true_label"]] for key, row in rows.items()}


def fill(form: Path, answers: Answers, name: str = "back.csv") -> str:
    """Write answers by unit into the form, in another order."""
    rows = list(csv.DictReader(form.read_text(encoding="utf-8-sig").splitlines()))
    for row in rows:
        row["answer"] = answers.get(row_unit(row), "")
    back = form.with_name(name)
    with back.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(reversed(rows))
    return str(back)


def ledger_size(relabelled: Relabelled) -> int:
    folder = Path(relabelled.run.path("ledger"))
    return sum(len(file.read_text().splitlines()) for file in folder.glob("segment-*.jsonl"))


def test_a_form_comes_back_and_labels_follow_it(relabelled: Relabelled) -> None:
    config, run = relabelled.config(), relabelled.run
    before, asked = labels(run), ledger_size(relabelled)
    first = rayclean.audit(config)
    assert first.figures is None
    assert 50 <= first.questions <= 60
    truth = truth_of(relabelled)
    found = rayclean.audit(config, [fill(relabelled.form, truth)], auditor="anna")
    assert found.questions == 0
    assert found.reading.answers == first.questions
    assert found.figures["auditors"] == ["anna"]
    after = labels(run)
    audited = {key: row for key, row in after.items() if row["source"] == "audited"}
    assert len(audited) == first.questions
    names = [each["name"] for each in run.read_json("load", "labels.json")]
    for key, row in audited.items():
        assert names[row["final_label"]] == truth[key]
        assert (row["annotator"], row["confidence"]) == ("anna", 1)
    assert {key: row["given_label"] for key, row in after.items()} == {
        key: row["given_label"] for key, row in before.items()
    }
    assert ledger_size(relabelled) == asked
    assert run.manifest("relabel").metrics["audit"]["audited"] == first.questions


def test_figures_bracket_the_truth(relabelled: Relabelled) -> None:
    found = rayclean.audit(relabelled.config(), oracle=True).figures
    assert found["auditors"] == [ORACLE]
    truth = table(relabelled.run.path("load", "truth"))
    final = labels(relabelled.run)
    wrong = np.mean([row["given_label"] != truth[key]["true_label"] for key, row in final.items()])
    assert found["noise_before"]["low"] <= wrong <= found["noise_before"]["high"]
    assert found["noise_after"]["value"] < found["noise_before"]["value"]
    assert not found["systematic"]
    assert found["annotator_accuracy"]["low"] < 0.85 < found["annotator_accuracy"]["high"]


def test_decisions_by_replay_are_those_of_a_new_relabel(relabelled: Relabelled) -> None:
    config, run = relabelled.config(), relabelled.run
    rayclean.audit(config, oracle=True)
    replayed = labels(run), SuspectRanking.read(run.require("relabel")).probability
    asked = ledger_size(relabelled)
    pipeline.run_verbs(config, ("relabel",), again=True)
    assert labels(run) == replayed[0]
    np.testing.assert_allclose(SuspectRanking.read(run.require("relabel")).probability, replayed[1])
    assert ledger_size(relabelled) == asked
    decided_again = labels(run)
    rayclean.audit(config)  # nothing new
    assert labels(run) == decided_again


def test_half_filled_twice_in_another_order_with_contradictions_and_an_unknown_id(
    relabelled: Relabelled,
) -> None:
    config, truth = relabelled.config(), truth_of(relabelled)
    rayclean.audit(config)
    ids = sorted(
        row_unit(row) for row in csv.DictReader(relabelled.form.read_text(encoding="utf-8-sig").splitlines())
    )
    half = {key: truth[key] for key in ids[::2]}
    wrong = {key: next(name for name in sorted({*truth.values()}) if name != truth[key]) for key in ids[:4:2]}
    one, two = fill(relabelled.form, half), fill(relabelled.form, half | wrong, "second.csv")
    content = Path(two).read_text()
    Path(two).write_text(content + content.splitlines()[1].replace("u", "u0", 1).replace(",,", ",a,") + "\n")
    with pytest.raises(DataError):  # an answer that is none stops the reading, and nothing of it is recorded
        rayclean.audit(
            config, [one, fill(relabelled.form, {ids[1]: "nonsense"}, "third.csv")], auditor="anna"
        )
    assert not Folder(relabelled.run.path("ledger", "audit")).exists()
    unknown = f"{content.splitlines()[1].split(',')[0]},u00000000000000ff,,,,garden\n"
    Path(two).write_text(content + unknown)
    found = rayclean.audit(config, [one, two], auditor="anna")
    assert found.reading.unknown == ["u00000000000000ff"]
    assert {conflict["id"] for conflict in found.reading.conflicts} == {
        f"u{key % 2**64:016x}" for key in wrong
    }
    assert found.figures["conflicts"] == 2
    assert found.figures["answered"] == len(half) - 2
    assert found.questions == len(ids) - len(half) + 2
    again = rayclean.audit(config, [one], auditor="anna")  # her later reading settles the conflicts
    assert again.reading.repeated == len(half) - 2
    assert again.reading.answers == 2
    assert not again.reading.conflicts
    assert rayclean.audit(config, [one], auditor="anna").reading.answers == 0


def test_refused_before_anything_is_recorded(relabelled: Relabelled) -> None:
    config = relabelled.config()
    rayclean.audit(config)
    back = fill(relabelled.form, truth_of(relabelled))
    with pytest.raises(ConfigError, match="'simulated' is the annotator of this run"):
        rayclean.audit(config, [back], auditor="simulated")
    with pytest.raises(DataError, match="of another run, detection or seed"):
        rayclean.audit(relabelled.config("audit.seed=1"), [back], auditor="anna")
    with pytest.raises(ArtifactError, match="made from another config: run `rayclean clean` first"):
        rayclean.audit(relabelled.config("relabel.accept=0.9"), [back], auditor="anna")
    assert not Folder(relabelled.run.path("ledger", "audit")).exists()


def test_a_larger_sample_contains_the_smaller_one(relabelled: Relabelled) -> None:
    rayclean.audit(relabelled.config())
    small = relabelled.run.read_json("audit", "draw.json")
    rayclean.audit(relabelled.config(), oracle=True)  # decisions change, the sample does not
    rayclean.audit(relabelled.config("audit.suspects=40", "audit.random=60"))
    large = relabelled.run.read_json("audit", "draw.json")
    for part, count in (("suspects", 40), ("random", 60)):
        assert large[part][: len(small[part])] == small[part]
        assert len(large[part]) == count


def test_without_an_audit_max_harm_lets_nothing_change(relabelled: Relabelled) -> None:
    before = relabelled.run.manifest("relabel").metrics
    changed = before["changed"]
    config = relabelled.config("relabel.max_harm=0.02")
    pipeline.run_verbs(config, VERBS)
    metrics = relabelled.run.manifest("relabel").metrics
    assert metrics["changed"] == 0
    # Nobody has said anything of the others: they neither become right nor leave the queue.
    assert metrics["kept"] == before["kept"]
    assert metrics["referred"] == before["referred"] + changed
    withheld = [
        row for row in table(relabelled.run.path("relabel", "annotations")).values() if row["proposed"]
    ]
    assert len(withheld) == changed > 0
    assert {(row["decision"], row["machine_decision"]) for row in withheld} == {("referred", "referred")}
    assert not len(
        read_proposals(relabelled.run.require("relabel"), ()).unit_id
    )  # there is nothing to certify
    found = rayclean.audit(relabelled.config("relabel.max_harm=0.02"), oracle=True)
    assert found.figures is not None
    metrics = relabelled.run.manifest("relabel").metrics
    assert metrics["audit"]["proposed"] > 0


def test_a_certificate_says_what_holds_and_is_void_after_a_change(relabelled: Relabelled) -> None:
    config, run = relabelled.config(), relabelled.run
    first = rayclean.certify(config)
    assert first.statement["accepted"] == 0
    assert 0 < first.questions <= 50
    form = Path(run.path("audit", "certificate-form.csv"))
    truth = truth_of(relabelled)
    found = rayclean.certify(config, [fill(form, truth)], auditor="anna")
    rounds = 1
    while found.questions:
        found, rounds = rayclean.certify(config, [fill(form, truth)], auditor="anna"), rounds + 1
        assert rounds < 10
    statement = found.statement
    assert statement["accepted"] > 0
    assert statement["auditors"] == ["anna"]
    assert found.certificate["void"] is None
    suspects, true = SuspectRanking.read(run.require("relabel")), table(run.path("load", "truth"))
    proposed = table(run.path("relabel", "annotations"))
    right = [
        true[key]["true_label"] == row["suggested_label"] for key, row in proposed.items() if row["proposed"]
    ]
    assert len(right) == statement["proposals"]
    assert len(suspects.unit_id) >= len(right)
    if statement["accepted"] == statement["proposals"]:
        assert np.mean(right) >= statement["target"]
    changed = relabelled.config("relabel.accept=0.95")
    pipeline.run_verbs(changed, ("relabel",))
    assert read_certificate(config, run)["void"] is not None  # the labels are now those of other rules
    assert read_certificate(changed, run)["void"] == "the calibration or the rules of the decision"


def test_a_certificate_bounds_the_errors_of_all_labels_where_some_of_all_were_audited(
    relabelled: Relabelled,
) -> None:
    config, run, truth = relabelled.config(), relabelled.run, truth_of(relabelled)
    assert rayclean.certify(config).statement["final_error"] is None
    rayclean.audit(config)
    drawn = run.read_json("audit", "draw.json")["random"]
    unsure = next(key for key in drawn if labels(run)[key]["source"] != "changed")
    rayclean.audit(config, [fill(relabelled.form, truth | {unsure: "unsure"})], auditor="anna")
    found = rayclean.certify(config)
    error = found.certificate["final_error"]
    machine = {
        key: names_of(run)[row["suggested_label" if row["machine_decision"] == "changed" else "given_label"]]
        for key, row in table(run.path("relabel", "annotations")).items()
    }
    given = {key: names_of(run)[row["given_label"]] for key, row in labels(run).items()}
    wrong = sum(machine.get(key, given[key]) != truth[key] for key in drawn if key != unsure) + 1
    assert (error["answered"], error["wrong"]) == (len(drawn), wrong)
    assert error["bound"] == error_bound(AuditedPart(len(given), len(drawn), wrong), 0.05)
    final = np.mean([names_of(run)[row["final_label"]] != truth[key] for key, row in labels(run).items()])
    assert final <= error["bound"] < 1


def test_a_certificate_ends_with_the_answers_and_the_rule_it_rests_on(relabelled: Relabelled) -> None:
    config, run, truth = relabelled.config(), relabelled.run, truth_of(relabelled)
    rayclean.certify(config)
    first = fill(Path(run.path("audit", "certificate-form.csv")), truth)
    rayclean.certify(config, [first], auditor="anna")
    assert read_certificate(config, run)["void"] is None
    rayclean.audit(config)  # nothing new is said
    assert read_certificate(config, run)["void"] is None
    suspects = SuspectRanking.read(run.require("relabel"))
    undone = int(suspects.example_id[suspects.decided("changed")][0])
    rayclean.revert(config, example_ids=[undone])
    assert read_certificate(config, run)["void"] == "which changes users have undone"
    rayclean.revert(config, example_ids=[undone], undo=True)
    assert rayclean.certify(config).certificate["void"] is None
    stricter = relabelled.config("relabel.certify={target=0.99, delta=0.05, labels=300}")
    assert read_certificate(stricter, run)["void"] == "relabel.certify"
    rows = list(csv.DictReader(Path(first).read_text().splitlines()))
    second = Path(first).with_name("second.csv")
    with second.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows({**row, "answer": "neither"} for row in rows)
    read = rayclean.audit(config, [str(second)], auditor="anna")  # the command of audits takes both forms
    assert read.reading.answers == len(rows)
    assert read_certificate(config, run)["void"] == "the answers of auditors"
    again = rayclean.certify(config)
    assert again.certificate["void"] is None
    assert again.statement["accepted"] == 0


def test_only_certified_labels_change_where_the_config_says_so(relabelled: Relabelled) -> None:
    config = relabelled.config("relabel.certify={target=0.8, delta=0.1, labels=60}")
    pipeline.run_verbs(config, VERBS)
    assert relabelled.run.manifest("relabel").metrics["changed"] == 0
    found = rayclean.certify(config, oracle=True)
    metrics = relabelled.run.manifest("relabel").metrics
    assert metrics["audit"]["certified"]["accepted"] == found.statement["accepted"] > 0
    annotations = table(relabelled.run.path("relabel", "annotations"))
    machine = sum(row["machine_decision"] == "changed" for row in annotations.values())
    assert machine == found.statement["accepted"]
    assert found.statement["restricts"]


def test_too_few_labels_are_refused_with_the_number_that_would_do(relabelled: Relabelled) -> None:
    with pytest.raises(ConfigError, match=r"58 answers.*labels to at least 59"):
        relabelled.config("relabel.certify.labels=58")
    with pytest.raises(ConfigError, match="accept"):
        relabelled.config("relabel.accept=0.4")


def test_an_oracle_needs_the_truth(relabelled: Relabelled) -> None:
    Folder(relabelled.run.path("load")).remove("truth")
    with pytest.raises(DataError, match="this run knows none"):
        rayclean.audit(relabelled.config(), oracle=True)


def test_the_command_line(
    relabelled: Relabelled,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(relabelled.values))

    def command(*arguments: str) -> Any:
        return run_command(*arguments, capsys=capsys, monkeypatch=monkeypatch)

    drawn = command("audit", str(file))
    assert drawn.code == 0, drawn.stderr
    assert "questions are open" in drawn.stdout
    read = command(
        "audit", str(file), "--answers", fill(relabelled.form, truth_of(relabelled)), "--auditor", "anna"
    )
    assert read.code == 0, read.stderr
    assert "Random-like noise" in read.stdout
    assert "answered by anna" in read.stdout
    assert "rayclean clean" in read.stdout
    certified = command("certify", str(file), "--oracle")
    assert certified.code == 0, certified.stderr
    assert "Certified with 95.0 % certainty" in certified.stdout
    assert ORACLE in certified.stdout
    wrong = command("audit", str(file), "--answers", str(tmp_path / "gone.csv"))
    assert wrong.code == 2
    assert "does not exist" in wrong.stderr
    done = command("clean", str(file))
    assert done.code == 0, done.stderr
    report = Path(relabelled.run.path("report.html")).read_text()
    assert "Random-like noise: detection sees it" in report
    assert "Certified with 95.0 % certainty" in report
    assert report.index("Random-like noise") < report.index('class="cards"')


def test_one_file_may_hold_rows_of_both_forms(relabelled: Relabelled) -> None:
    """Answers of an audit refit the decisions before anything is certified, and those of a certificate do not."""
    config, truth = relabelled.config(), truth_of(relabelled)
    rayclean.audit(config)
    rayclean.certify(config)
    audit = fill(relabelled.form, truth)
    certificate = fill(relabelled.form.with_name("certificate-form.csv"), truth, "both.csv")
    Path(certificate).write_text(Path(certificate).read_text() + Path(audit).read_text().partition("\n")[2])
    rayclean.certify(config, [certificate], auditor="anna")
    answers = read_answers(relabelled.run)
    drawn = relabelled.run.read_json("audit", "draw.json")
    assert {*drawn["suspects"], *drawn["random"]} <= {*answers.settled}
    assert {each.form.partition("-")[0] for each in answers.settled.values()} == {"audit", "certificate"}
    metrics = relabelled.run.manifest("relabel").metrics["audit"]
    assert metrics["audited_suspects"] >= 30
    assert metrics["scale"] is not None
