"""The first screen of the report, in each of its cases."""

import pytest

from rayclean.annotations import SuspectRanking
from rayclean.evaluation.class_figures import class_figures
from rayclean.evaluation.counts import RunCounts
from rayclean.evaluation.verdict import audit_rows, case_sentence, certificate_sentence, run_verdict
from tests.evaluation.test_counts import annotations, columns

CONFIG = {
    "output": "my runs",
    "name": "news",
    "audit": {"suspects": 50, "random": 50},
    "relabel": {"certify": None},
}


def rate(value: float | None, low: float = 0.0, high: float = 1.0) -> dict:
    return {"value": value, "low": low, "high": high}


def audit(**changes: object) -> dict:
    return {
        "auditors": ["anna"], "drawn": 100, "answered": 98, "suspects_answered": 50, "unsure": 1, "conflicts": 1,
        "noise_before": rate(0.2, 0.15, 0.26), "noise_after": rate(0.05, 0.03, 0.1), "among_suspects": rate(0.7),
        "among_rest": rate(0.36, 0.2, 0.5), "expected_rest": 0.012, "found": rate(0.6, 0.4, 0.8), "neither": rate(0.1),
        "annotator_accuracy": None, "changes_wrong": rate(0.08, 0.02, 0.2), "repaired": rate(0.8),
        "harm_among_suspects": rate(None), "unexpected_p_value": 0.2, "systematic": False,
    } | changes  # fmt: skip


def metrics(**changes: object) -> dict:
    counts = {"changed": 105, "examples": 1391, "referred": 8}
    expected = {"value": 12.4, "low": 5.6, "high": 19.2}
    return {"counts": counts, "expected_wrong": expected, "audit": None, "certificate": None} | changes


def statement(**changes: object) -> dict:
    return {
        "target": 0.95, "delta": 0.05, "seed": 0, "proposals": 69, "accepted": 69, "audited": 39, "wrong": 0,
        "ended_by": "all", "auditors": ["anna"], "restricts": False, "void": None,
    } | changes  # fmt: skip


def test_not_audited() -> None:
    found = run_verdict(metrics(), CONFIG)
    assert found.case == "not audited"
    text = " ".join(found.sentences)
    assert "105 of 1,391 labels were changed and 8 are referred" in text
    assert "some 12 (6 to 19) of the changes are wrong" in text
    assert "An audit of 100 labels (rayclean audit 'my runs/news'), some 50 minutes" in text
    # The first nested set of 105 changes is the 60 surest.
    assert found.certificate.startswith("Not certified. 34 answers without a wrong one")
    assert "that 95.0 % of the 60 surest of 105 changes are right; all 105 take at least" in found.certificate


@pytest.mark.parametrize(("proposals", "needed"), [(1000, 68), (20_000, 71), (40, None), (0, None)])
def test_the_answers_that_a_certificate_takes_are_those_of_the_test(
    proposals: int, needed: int | None
) -> None:
    """Under `relabel.certify` nothing has changed yet: the proposals count."""
    said = run_verdict(metrics(proposals=proposals), CONFIG).certificate
    if needed is None:
        assert ("of all 40 changes" if proposals else "nothing to certify") in said
    else:
        assert f"all {proposals:,} take at least {needed}." in said
    assert "59" not in said


def test_random_like_and_systematic() -> None:
    found = run_verdict(metrics(audit=audit()), CONFIG)
    assert (
        found.case,
        "Of all wrong labels, 60.0 % (40.0 % to 80.0 %) were doubted." in found.sentences,
    ) == (
        "random-like",
        True,
    )
    assert "Of the changes, 8.0 % (2.0 % to 20.0 %) are wrong." in found.sentences
    found = run_verdict(metrics(audit=audit(systematic=True)), CONFIG)
    assert found.case == "systematic"
    assert "36.0 % (20.0 % to 50.0 %) are wrong, where detection expects 1.2 %" in " ".join(found.sentences)
    assert "What helps" in " ".join(found.sentences)


@pytest.mark.parametrize(
    "few",
    [
        {"drawn": 100, "answered": 1, "found": rate(None), "among_rest": rate(0.0, 0.0, 0.95)},  # one answer
        {"answered": 50, "found": rate(None), "among_rest": rate(None)},  # audit.random = 0: suspects alone
        {
            "answered": 0,
            "auditors": [],
            "found": rate(None),
            "among_rest": rate(None),
            "noise_before": rate(None),
        },  # all unsure
    ],
)
def test_few_answers_do_not_show_that_detection_sees_the_noise(few: dict) -> None:
    found = run_verdict(metrics(audit=audit(**few)), CONFIG)
    assert found.case == "too few answers"
    assert "Random-like" not in " ".join([found.title, *found.sentences, case_sentence(audit(**few))])
    assert "by ." not in " ".join(found.sentences)


def test_noise_as_expected_is_random_like_even_where_few_labels_are_wrong() -> None:
    clean = audit(found=rate(None), among_rest=rate(0.0, 0.0, 0.08))
    assert run_verdict(metrics(audit=clean), CONFIG).case == "random-like"
    assert case_sentence(clean) == "Random-like noise: detection sees it (98 of 100 answered by anna)"


def test_a_certificate_without_an_audit_is_no_unchecked_run() -> None:
    found = run_verdict(metrics(certificate=statement()), CONFIG)
    text = " ".join([found.title, *found.sentences])
    assert found.case == "certified"
    assert "nobody has checked" not in text
    assert "is not known" not in text
    assert found.title == "Certified: the changes were judged by anna"
    assert run_verdict(metrics(certificate=statement(void="the data")), CONFIG).case == "not audited"


def test_a_certificate_of_some_changes_or_of_none_does_not_look_like_one_of_all() -> None:
    part = run_verdict(metrics(certificate=statement(accepted=60)), CONFIG)
    assert (part.case, part.title) == ("certified", "Certified in part: 60 of 69 changes")
    rule = run_verdict(metrics(certificate=statement(accepted=60, restricts=True)), CONFIG)
    assert rule.title == "Certified: the changes were judged by anna"  # no others changed
    for ended_by in ("answers", "below target"):
        failed = run_verdict(metrics(certificate=statement(accepted=0, ended_by=ended_by)), CONFIG)
        assert failed.case == "not certified"
        assert failed.title.startswith("Not certified: answers about 39 changes")
        assert "nobody has checked" not in " ".join([failed.title, *failed.sentences])


def test_figures_that_are_not_known_are_said_so_or_left_out() -> None:
    rows = {name: value for name, value, _ in audit_rows(audit())}
    assert rows["right suspects made wrong"] == "not known"
    assert not any("annotator" in name for name in rows)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {},
            "at least 95.0 % of all 69 changes are right, as anna judges (39 answers, 0 of them that the change is wrong).",
        ),
        ({"accepted": 60}, "of the 60 surest of 69 changes are right"),
        ({"accepted": 60, "restricts": True}, "The other 9 are referred to a person."),
        ({"accepted": 0, "ended_by": "answers"}, "Not certified yet"),
        ({"accepted": 0, "ended_by": "below target"}, "too many of the surest changes are wrong"),
        ({"accepted": 0, "ended_by": "budget"}, "relabel.certify.labels answers can no longer show it"),
        ({"accepted": 0, "proposals": 0}, "nothing to certify"),
    ],
)
def test_what_a_certificate_says(changes: dict, said: str) -> None:
    assert said in certificate_sentence(statement(**changes))
    assert said in run_verdict(metrics(certificate=statement(**changes)), CONFIG).certificate


@pytest.mark.parametrize("changes", [{}, {"accepted": 0, "proposals": 0}])
def test_a_certificate_speaks_of_all_labels_where_some_drawn_from_all_were_audited(changes: dict) -> None:
    said = "Of all labels at most 13.0 % are wrong in the end, with 95.0 % certainty (50 answers"
    error = {"bound": 0.13, "answered": 50, "wrong": 2}
    assert said in certificate_sentence(statement(final_error=error, **changes))
    assert said in run_verdict(metrics(certificate=statement(final_error=error)), CONFIG).certificate
    assert "Of all labels" not in certificate_sentence(statement(final_error=None))


def test_a_void_certificate_says_what_changed() -> None:
    found = run_verdict(metrics(certificate=statement(void="the data, the model")), CONFIG).certificate
    assert found.startswith("The certificate is void: since then, the data, the model changed.")


def test_every_class_by_hand() -> None:
    rows = [
        (70, 0, 1, 1, 0.9, "changed"), (60, 1, 0, 0, 0.8, "changed"), (50, 0, 1, 1, 0.9, "changed"),
        (40, 0, 1, 1, 0.9, "changed"),
    ]  # fmt: skip
    counts = RunCounts(SuspectRanking.from_tables([annotations(rows)]), ["d"])
    counts.add(columns())
    zero, one = class_figures(counts, ["a", "b", "never"])
    # given 0 0 1 1 0 1 0 1, final 1 0 0 1 0 1 1 1, truth 1 0 1 1 1 1 1 and one unknown
    assert zero == {
        "name": "a", "before": 4, "after": 3, "out": 2, "into": 1, "right": 1, "wrong": 3, "harmed": 0, "repaired": 2,
    }  # fmt: skip
    assert one == {
        "name": "b", "before": 4, "after": 5, "out": 1, "into": 2, "right": 3, "wrong": 0, "harmed": 1, "repaired": 0,
    }  # fmt: skip
