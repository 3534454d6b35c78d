import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayclean import schema
from rayclean.detectors.base import DetectorBatch
from rayclean.detectors.confident_learning import ConfidentLearning
from rayclean.detectors.posterior import Posterior
from rayclean.detectors.prediction_shards import PredictionShard
from rayclean.detectors.scoring import Scorer
from rayclean.detectors.suspect_selection import id_fingerprint
from rayclean.errors import ArtifactError, ConfigError, DataError
from rayclean.folder import Folder
from rayclean.functional.posterior import class_probabilities, posterior, rival
from rayclean.functional.scores import normalized_margin, self_confidence
from rayclean.runtime.engines import Engines
from rayclean.schema import Label, LabelSet
from rayclean.tasks.classification import Classification
from rayclean.verbs import detect
from tests.detectors.cases import cut, in_process, noisy_case, take
from tests.verbs.runs import build, config_of, findings_of

BOTH = 'detect.detectors=["confident_learning", "self_confidence"]'
"""Two detectors that suggest what the model does; the default, posterior, knows better."""


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mapper in this process; `test_on_ray` has the real one."""
    monkeypatch.setattr(Engines, "map_items", staticmethod(in_process))


def with_features(batch: DetectorBatch) -> DetectorBatch:
    return replace(batch, features=batch.probabilities.copy())


def with_copies(batch: DetectorBatch, texts: int) -> DetectorBatch:
    """The examples as copies of so many texts, whose features have nothing in common."""
    group = np.random.default_rng(0).integers(0, texts, len(batch.unit_id))
    return replace(batch, group=group * 10**12, features=np.eye(texts, dtype=np.float32)[group])


def run_detect(
    folder: Path,
    batch: DetectorBatch,
    *overrides: str,
    edges: tuple[int, ...] = (),
    dev: Any = None,
    name: str = "test",
):
    run = build(folder, batch, edges, dev, name)
    config = config_of(folder, *overrides)
    detect.validate(config, run)
    out = run.begin("detect", "f")
    return detect.run(config, run, out), out


def test_on_ray(tmp_path: Path, ray_embedded: None) -> None:
    batch = replace(with_features(noisy_case(0, 600, 5, 0.2)), group=np.arange(600) // 2)
    names = ["posterior", "confident_learning", "self_confidence", "knn_vote", "conflicting_copies"]
    detectors = f"detect.detectors={json.dumps(names)}"
    metrics, out = run_detect(tmp_path, batch, detectors, edges=(200, 201, 450))
    found = findings_of(out)
    assert out.shards("findings") == [f"part-{n:05d}.parquet" for n in range(4)]
    assert out.read_table("findings", "part-00000.parquet").schema.equals(schema.findings(names))
    assert (found["example_id"] == np.sort(batch.unit_id)).all()
    assert metrics["examples"] == 600
    assert metrics["suspects"] == found["suspect"].sum() == 60  # 10 % of 600
    assert metrics["estimated_noise_rate"] == pytest.approx(0.16, abs=0.05)
    # nothing but the findings stays
    assert not {"scores", "survey.json", "fitted.json"} & {path.name for path in Path(out.root).iterdir()}


def test_columns_are_what_detectors_say(tmp_path: Path, local: None) -> None:
    batch = noisy_case(1, 500, 4, 0.3)
    metrics, out = run_detect(tmp_path, batch, BOTH, edges=(100,))
    found = findings_of(out)
    ordered = take(batch, np.argsort(batch.unit_id))
    assert (found["given_label"] == ordered.given_label).all()
    assert (
        found["quality_self_confidence"] == self_confidence(ordered.given_label, ordered.probabilities)
    ).all()
    margin = normalized_margin(ordered.given_label, ordered.probabilities)
    assert (found["quality_confident_learning"] == margin).all()
    detector = ConfidentLearning(ConfidentLearning.Config(), 4)
    mask = detector.mask(ordered, detector.fit(cut(batch, []), in_process))
    assert (found["vote_confident_learning"] == mask).all()
    assert metrics["votes"] == {
        "confident_learning": mask.sum(),
        "self_confidence": found["vote_self_confidence"].sum(),
    }
    both, some = mask & found["vote_self_confidence"], mask | found["vote_self_confidence"]
    assert metrics["overlap"] == both.sum() / some.sum()
    # suggested: the predicted label, or the runner-up where the prediction is the given label
    second = np.argsort(-ordered.probabilities, axis=1)[:, 1]
    agree = ordered.predicted_label == ordered.given_label
    assert (found["suggested_label"] == np.where(agree, second, ordered.predicted_label)).all()
    assert (found["suggested_label"] != found["given_label"]).all()
    # no detector knows the answers better than the model: the probabilities are its own
    rows = np.arange(500)
    assert (found["given_probability"] == ordered.probabilities[rows, ordered.given_label]).all()
    assert (found["suggested_probability"] == ordered.probabilities[rows, found["suggested_label"]]).all()


def test_the_default_doubts_and_suggests_by_the_posterior(tmp_path: Path, local: None) -> None:
    """A single quality is kept as it is, and every column follows from it."""
    batch = noisy_case(17, 500, 4, 0.3, 1.5)
    metrics, out = run_detect(tmp_path, batch, edges=(123, 400))
    found = findings_of(out)
    assert out.read_table("findings", "part-00000.parquet").schema.equals(schema.findings(["posterior"]))
    ordered = take(batch, np.argsort(batch.unit_id))
    state = Posterior(Posterior.Config(), 4).fit(cut(batch, []), in_process)
    classes = class_probabilities(ordered.probabilities, state.noise)
    expected = posterior(classes, ordered.given_label, state.noise)
    rows, suggested = np.arange(500), rival(expected, ordered.given_label)
    plain = posterior(ordered.probabilities, ordered.given_label, state.noise)
    quality = plain[rows, ordered.given_label].astype(np.float32)
    for column in ("quality", "quality_posterior"):
        assert (found[column] == quality).all(), column
    assert (found["given_probability"] == expected[rows, ordered.given_label].astype(np.float32)).all()
    assert (found["suggested_label"] == suggested).all()
    assert (found["suggested_probability"] == expected[rows, suggested].astype(np.float32)).all()
    assert (found["vote_posterior"] == (quality < 0.5)).all()
    assert metrics["votes"] == {"posterior": (quality < 0.5).sum()}
    # the model's own runner-up is another one now and then
    by_model = rival(ordered.probabilities, ordered.given_label)
    assert 0 < (suggested != by_model).sum() < 100


def test_the_first_detector_that_knows_the_answers_suggests(tmp_path: Path, local: None) -> None:
    batch = noisy_case(17, 500, 4, 0.3, 1.5)
    alone = findings_of(run_detect(tmp_path / "a", batch)[1])
    detectors = 'detect.detectors=["self_confidence", "posterior", {name="confident_learning"}]'
    found = findings_of(run_detect(tmp_path / "b", batch, detectors, "detect.combine=mean")[1])
    for column in ("suggested_label", "given_probability", "suggested_probability", "quality_posterior"):
        assert (found[column] == alone[column]).all(), column
    assert (found["quality"] != alone["quality"]).any()


def test_copies_suggest_their_majority_and_the_next_detector_what_they_do_not_know(
    tmp_path: Path, local: None
) -> None:
    batch = with_copies(noisy_case(17, 500, 4, 0.3, 1.5), 300)
    first, second = '"conflicting_copies"', '"posterior"'
    alone = findings_of(run_detect(tmp_path / "a", batch, f"detect.detectors=[{second}]")[1])
    metrics, out = run_detect(tmp_path / "b", batch, f"detect.detectors=[{first}, {second}]", edges=(77, 300))
    found = findings_of(out)
    after = findings_of(run_detect(tmp_path / "c", batch, f"detect.detectors=[{second}, {first}]")[1])
    ordered = take(batch, np.argsort(batch.unit_id))
    counts = np.zeros((ordered.group.max() // 10**12 + 1, 4))
    np.add.at(counts, (ordered.group // 10**12, ordered.given_label), 1)
    of_text = counts[ordered.group // 10**12]
    in_conflict = (of_text > 0).sum(axis=1) > 1
    assert metrics["copies_in_conflict"] == in_conflict.sum() > 50
    assert "note" not in metrics
    for column in ("suggested_label", "given_probability", "suggested_probability"):
        assert (found[column] == alone[column])[~in_conflict].all(), column
        assert (after[column] == alone[column]).all(), column
    shares = (of_text + ordered.probabilities) / (of_text.sum(axis=1, keepdims=True) + 1)
    rows, suggested = np.arange(500), rival(shares, ordered.given_label)
    assert (found["suggested_label"] == suggested)[in_conflict].all()
    expected = shares[rows, suggested].astype(np.float32)
    np.testing.assert_allclose(found["suggested_probability"][in_conflict], expected[in_conflict], rtol=1e-6)
    assert (found["suggested_label"] != alone["suggested_label"])[in_conflict].any()


def test_copies_without_conflicts_are_said(tmp_path: Path, local: None) -> None:
    batch = with_copies(noisy_case(17, 60, 4, 0.3), 60)
    batch = replace(batch, given_label=(batch.group // 10**12 % 4).astype(np.int32))
    metrics, _ = run_detect(tmp_path, batch, 'detect.detectors=["posterior", "conflicting_copies"]')
    _, copies = np.unique(batch.group, return_counts=True)
    assert metrics["copy_groups"] == (copies > 1).sum()
    assert metrics["note"].startswith("conflicting_copies says: no copies have different labels (")
    assert f"{(copies > 1).sum()} texts occur more than once" in metrics["note"]


def test_detectors_of_examples_are_refused_before_any_work_where_units_are_parts(tmp_path: Path) -> None:
    run = build(tmp_path, noisy_case(0, 10, 3))
    for detector in ("knn_vote", "conflicting_copies"):
        config = config_of(tmp_path, f'detect.detectors=["{detector}"]', "task.name=multi_label")
        with pytest.raises(
            ConfigError, match=f"'{detector}' compares whole examples, and task 'multi_label' doubts"
        ):
            detect.validate(config, run)


def test_suspects_are_the_lowest(tmp_path: Path, local: None) -> None:
    """Of all examples, those of the lowest quality, whether the model agrees with their label or not."""
    batch = noisy_case(2, 400, 5, 0.1, 2.0)
    metrics, out = run_detect(tmp_path, batch, BOTH, "detect.budget=120")
    found = findings_of(out)
    ordered = take(batch, np.argsort(batch.unit_id))
    assert metrics["eligible"] == 400
    agrees = ordered.predicted_label == ordered.given_label
    assert 0 < (agrees & found["suspect"]).sum() < 120
    candidates = sorted(zip(found["quality"], found["example_id"], strict=True))[:120]
    ranked = found["example_id"][found["suspect"]][np.argsort(found["rank"][found["suspect"]])]
    assert ranked.tolist() == [identity for _, identity in candidates]
    assert sorted(found["rank"][found["suspect"]]) == list(range(120))
    assert (found["rank"][~found["suspect"]] == -1).all()
    voted = found["vote_confident_learning"] & found["vote_self_confidence"] & found["suspect"]
    assert set(found["reason"][voted]) == {"confident_learning, self_confidence"}
    assert set(found["reason"][~found["suspect"]]) == {""}


def test_result_depends_neither_on_shards_nor_on_order(tmp_path: Path, local: None) -> None:
    batch = replace(with_features(noisy_case(3, 300, 4, 0.3, 1.0)), group=np.arange(300) // 3)
    detectors = 'detect.detectors=["conflicting_copies", "posterior", "confident_learning", "disagreement", "knn_vote"]'
    options = (detectors, "detect.budget=0.07")
    _, first = run_detect(tmp_path / "a", batch, *options)
    order = np.random.default_rng(0).permutation(300)
    _, second = run_detect(tmp_path / "b", take(batch, order), *options, edges=(3, 3, 120, 290))
    one, two = findings_of(first), findings_of(second)
    for name, column in one.items():
        assert (column == two[name]).all(), name


@pytest.mark.parametrize("detectors", [BOTH, 'detect.detectors=["posterior"]'])
def test_agreeing_examples_may_be_suspects(tmp_path: Path, local: None, detectors: str) -> None:
    batch = noisy_case(4, 100, 3, 0.0, 20.0)
    assert (batch.predicted_label == batch.given_label).all()
    metrics, out = run_detect(tmp_path, batch, detectors)
    assert metrics["suspects"] == 10
    assert metrics["eligible"] == 100
    assert "note" not in metrics
    assert set(findings_of(out)["reason"]) == {"", "low quality"}


def test_nobody_to_suspect_is_said(tmp_path: Path, local: None) -> None:
    batch, dev = noisy_case(4, 100, 3, 0.3), np.ones(100, dtype=bool)
    metrics, out = run_detect(tmp_path, batch, "dataset.dev.clean=true", dev=dev)
    assert metrics["suspects"] == metrics["eligible"] == 0
    assert "nothing else can be suggested" in metrics["note"]
    assert not findings_of(out)["suspect"].any()


def test_a_budget_too_small_for_one_example_is_said(tmp_path: Path, local: None) -> None:
    metrics, _ = run_detect(tmp_path, noisy_case(5, 20, 3, 0.9), "detect.budget=0.01")
    assert metrics["suspects"] == 0
    assert "raise it" in metrics["note"]


def test_clean_development_examples_are_never_suspects(tmp_path: Path, local: None) -> None:
    batch = noisy_case(6, 200, 3, 0.5)
    dev = np.arange(200) % 4 == 0
    for clean, expected in (("false", True), ("true", False)):
        _, out = run_detect(
            tmp_path / clean, batch, "detect.budget=1.0", f"dataset.dev.clean={clean}", dev=dev
        )
        found = findings_of(out)
        of_dev = np.isin(found["example_id"], batch.unit_id[dev])
        assert found["suspect"][of_dev].any() == expected
        assert found["suspect"][~of_dev].any()


@pytest.mark.parametrize("kind", ["mean", "min", "mean_rank"])
def test_combinations(tmp_path: Path, local: None, kind: str) -> None:
    batch = noisy_case(7, 150, 3, 0.3)
    _, out = run_detect(tmp_path, batch, BOTH, f"detect.combine={kind}", edges=(50,))
    found = findings_of(out)
    parts = np.stack([found["quality_confident_learning"], found["quality_self_confidence"]])
    if kind == "mean_rank":
        from scipy.stats import rankdata

        parts = (rankdata(parts, axis=1) - 1) / 149
    expected = parts.min(axis=0) if kind == "min" else parts.mean(axis=0)
    np.testing.assert_allclose(found["quality"], expected, atol=1e-6)


def test_resumes_without_scoring_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = noisy_case(8, 300, 3, 0.3)
    run = build(tmp_path, batch, (100, 200))
    config = config_of(tmp_path)
    scored: list[str] = []

    def dies_at_the_third(function: Any, items: Any) -> Any:
        for item in items:
            if isinstance(function, Scorer):
                if len(scored) == 2:
                    raise RuntimeError("node lost")
                scored.append(item)
            yield function(item)

    monkeypatch.setattr(Engines, "map_items", staticmethod(dies_at_the_third))
    out = run.begin("detect", "f")
    with pytest.raises(RuntimeError, match="node lost"):
        detect.run(config, run, out)
    assert out.shards("scores") == ["part-00000.parquet", "part-00001.parquet"]
    again: list[str] = []

    def counts(function: Any, items: Any) -> Any:
        for item in items:
            if isinstance(function, Scorer):
                again.append(item)
            yield function(item)

    monkeypatch.setattr(Engines, "map_items", staticmethod(counts))
    metrics = detect.run(config, run, out)
    assert again == ["part-00002.parquet"]
    monkeypatch.setattr(Engines, "map_items", staticmethod(in_process))
    fresh = run.begin("detect", "g")
    assert detect.run(config, run, fresh) == metrics
    for name, column in findings_of(fresh).items():
        assert (column == findings_of(out)[name]).all()
    assert detect.run(config, run, out) == metrics  # once more over what is there


def spoil(batch: DetectorBatch, row: int, values: list[float]) -> DetectorBatch:
    p = batch.probabilities.copy()
    p[row] = values
    return DetectorBatch(batch.unit_id, batch.given_label, batch.predicted_label, p)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([np.nan, 0.5, 0.5], "nan"),
        ([np.inf, 0, 0], "inf"),
        ([0.9, 0.9, 0.1], "1.9"),
        ([1.5, -0.5, 0.0], "-0.5"),
    ],
)
def test_spoiled_probabilities_are_refused(
    tmp_path: Path, local: None, values: list[float], said: str
) -> None:
    batch = noisy_case(9, 30, 3)
    with pytest.raises(DataError) as error:
        run_detect(tmp_path, spoil(batch, 17, values), edges=(10,))
    assert str(batch.unit_id[17]) in error.value.message
    assert said in error.value.message
    assert "rayclean predict CONFIG --again" in error.value.message


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_outside_the_set_are_refused(tmp_path: Path, local: None, label: int) -> None:
    batch = noisy_case(10, 30, 3)
    given_label = batch.given_label.copy()
    given_label[5] = label
    with pytest.raises(DataError, match=rf"{batch.unit_id[5]} has given_label {label}, expected 0 to 2"):
        run_detect(
            tmp_path, DetectorBatch(batch.unit_id, given_label, batch.predicted_label, batch.probabilities)
        )


def test_duplicates_and_foreign_predictions_are_refused(tmp_path: Path, local: None) -> None:
    batch = noisy_case(11, 30, 3)
    ids = batch.unit_id.copy()
    ids[3] = ids[4]
    twice = DetectorBatch(ids, batch.given_label, batch.predicted_label, batch.probabilities)
    with pytest.raises(DataError, match=f"{ids[4]} occurs 2 times"):
        run_detect(tmp_path / "a", twice)
    run = build(tmp_path / "b", batch)
    other = build(tmp_path / "c", take(noisy_case(12, 30, 3), slice(None)))
    run.write_table(
        other.read_table("load", "examples", "part-00000.parquet"), "load", "examples", "part-00000.parquet"
    )
    with pytest.raises(ArtifactError, match="rayclean predict CONFIG --again"):
        detect.run(config_of(tmp_path / "b"), run, run.begin("detect", "f"))


def test_missing_shard_is_refused(tmp_path: Path, local: None) -> None:
    run = build(tmp_path, noisy_case(13, 30, 3), (10,))
    run.remove("predict", "predictions", "part-00001.parquet")
    with pytest.raises(ArtifactError, match="1 shards"):
        detect.run(config_of(tmp_path), run, run.begin("detect", "f"))


def test_missing_features_and_wrong_names(tmp_path: Path, local: None) -> None:
    batch = noisy_case(14, 30, 3)
    with pytest.raises(ConfigError, match="knn_vote"):
        run_detect(tmp_path / "a", batch, 'detect.detectors=["knn_vote"]')
    with pytest.raises(
        ConfigError, match=r"'conflicting_copies' needs folds.*rayclean predict CONFIG --again"
    ):
        run_detect(
            tmp_path / "d", batch, 'detect.detectors=[{name="conflicting_copies", similarity="equal"}]'
        )
    with pytest.raises(ConfigError, match=r"unknown detector 'disagreemnt': did you mean disagreement"):
        run_detect(tmp_path / "b", batch, 'detect.detectors=["disagreemnt"]')
    with pytest.raises(ConfigError, match=r"llm_disagreement asks an annotator.*relabel\.beyond = 200"):
        run_detect(tmp_path / "e", batch, 'detect.detectors=["posterior", "llm_disagreement"]')
    with pytest.raises(ConfigError, match="rule"):
        run_detect(tmp_path / "c", batch, 'detect.detectors=[{name="confident_learning", rule="guess"}]')


def test_a_thousand_classes_and_an_empty_shard(tmp_path: Path, local: None) -> None:
    batch = noisy_case(15, 200, 1000, 0.2, 9.0)
    metrics, out = run_detect(tmp_path, batch, edges=(50, 50))
    assert metrics["examples"] == 200
    assert out.read_table("findings", "part-00001.parquet").num_rows == 0


def test_fingerprint_of_ids_ignores_order_and_cuts() -> None:
    ids = np.random.default_rng(0).integers(-(2**62), 2**62, 1000)
    whole = id_fingerprint(ids)
    assert id_fingerprint(ids[::-1]) == whole
    assert (id_fingerprint(ids[:300]) + id_fingerprint(ids[300:])) % 2**64 == whole
    assert id_fingerprint(ids[1:]) != whole


def test_folder_of_a_url_is_read(tmp_path: Path, local: None) -> None:
    batch = noisy_case(16, 40, 3, 0.4)
    run = build(tmp_path, batch)
    memory = Folder("memory://detect-test")
    for verb in ("load", "predict"):
        for part in ("examples", "predictions"):
            for name in run.shards(verb, part):
                memory.write_table(run.read_table(verb, part, name), verb, part, name)
    task = Classification(Classification.Config(), LabelSet([Label(i, str(i), str(i)) for i in range(3)]))
    shard = PredictionShard(memory.url("predict"), "part-00000.parquet", task).read()
    assert (shard.unit_id == batch.unit_id).all()
    assert (shard.probabilities == batch.probabilities).all()
