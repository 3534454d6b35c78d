"""NoiseAL's hooks on columns made by hand: Example C, thresholds, whom it asks, which rows each loss moves."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rayclean.functional import mixing
from rayclean.functional.partition import Subset
from rayclean.methods.batch import Output, StepBatch
from rayclean.methods.noiseal import NoiseAL
from rayclean.methods.noiseal_ablations import NoiseALWithAblations
from rayclean.schema import ABSTAINED, UNANSWERED

R, H, P = Subset.CLEAN, Subset.HARD, Subset.PURIFIED
STRONG = torch.tensor(
    [[0.7, 0.2, 0.1], [0.45, 0.35, 0.2], [0.02, 0.97, 0.01], [0.3, 0.4, 0.3], [0.6, 0.2, 0.2]]
)
WEAK = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3], [0.1, 0.8, 0.1]])


def method(num_classes: int = 3, **options: Any) -> NoiseALWithAblations:
    return NoiseALWithAblations(NoiseALWithAblations.Config(**options), num_classes)


def columns(one: NoiseAL, count: int, labels: Any = None) -> dict[str, Any]:
    state = {name: np.full(count, value, dtype=dtype) for name, (dtype, value) in one.state().items()}
    labels = np.zeros(count, dtype=np.int64) if labels is None else np.asarray(labels)
    return {"example_id": np.arange(count), "given_label": labels, **state}


def reviewed(one: NoiseAL) -> dict[str, Any]:
    """Example C: five examples labelled 0, judged by both networks."""
    state = columns(one, 5)
    every = {"strong": STRONG, "weak": WEAK}
    outputs = {name: Output(torch.zeros(5, 1), every[name].log()) for name in one.networks}
    labels = torch.from_numpy(state["given_label"])
    seen = {name: value.numpy() for name, value in one.judged(outputs, labels, {}).items()}
    one.review(state, np.arange(5), seen, 2)
    return state


def test_example_c() -> None:
    one = method(lambda_=0.3)
    state = reviewed(one)
    state["threshold_strong"][:], state["threshold_weak"][:] = 0.5, 0.4
    one.partition(state, 3)
    assert state["subset"].tolist() == [R, H, P, H, H]
    np.testing.assert_allclose(
        state["confidence"], [0.65, 0.475, 0.885, 0.45, 0.5], rtol=2**-11
    )  # half precision
    np.testing.assert_allclose(state["threshold_strong"], [0.56, 0.485, 0.641, 0.47, 0.53], atol=1e-6)
    np.testing.assert_allclose(state["threshold_weak"], [0.46, 0.43, 0.52, 0.43, 0.52], atol=1e-6)


def test_thresholds_may_follow_the_probability_of_the_label() -> None:
    """.3 q + .7 tau: example 2, sure of another class, has a threshold that falls."""
    one = method(lambda_=0.3, ema_of="label")
    state = reviewed(one)
    state["threshold_strong"][:], state["threshold_weak"][:] = 0.5, 0.4
    one.partition(state, 3)
    assert state["subset"].tolist() == [R, H, P, H, H]  # by the thresholds before
    np.testing.assert_allclose(state["threshold_strong"], [0.56, 0.485, 0.356, 0.44, 0.53], atol=1e-6)
    np.testing.assert_allclose(state["threshold_weak"], [0.46, 0.43, 0.31, 0.34, 0.31], atol=1e-6)


def test_thresholds_follow_from_one_over_k_also_while_warming_up() -> None:
    one = method(num_classes=6, lambda_=0.9, warmup_epochs=5)
    state = columns(one, 1)
    assert state["threshold_strong"][0] == pytest.approx(1 / 6)
    for epoch, (confidence, expected) in enumerate(
        ((0.5, 0.466667), (0.8, 0.766667), (0.9, 0.886667)), start=2
    ):
        state["confidence_strong"][:] = confidence
        one.partition(state, epoch)
        assert state["threshold_strong"][0] == pytest.approx(expected, abs=1e-6)
    assert state["subset"][0] == Subset.UNUSED  # nothing is split yet


def test_a_fixed_threshold() -> None:
    one = method(threshold="fixed", fixed_threshold=0.5)
    state = reviewed(one)
    one.partition(state, 3)
    assert state["subset"].tolist() == [R, H, P, H, H]


def test_a_mixture_over_the_losses() -> None:
    """Two heaps of losses per network; the last three rows are in the wrong one of both, of the weak one, of the strong
    one. The probabilities are all below the fixed thresholds and above 1/K: no threshold splits like this.
    """
    one = method(threshold="mixture", fixed_threshold=0.999)
    state = columns(one, 15)
    low, high = np.linspace(0.02, 0.03, 15), np.linspace(0.8, 0.9, 15)
    state["label_probability_strong"][:] = [*high[:12], low[12], high[13], low[14]]
    state["label_probability_weak"][:] = [*high[:12], low[12], low[13], high[14]]
    state["predicted"][12:] = 1
    state["confidence"][:] = 0.9
    one.partition(state, 3)
    assert state["subset"].tolist() == [R] * 12 + [P, H, H]


@pytest.mark.parametrize("name", ["strong", "weak"])
def test_one_network_alone_judges_for_both(name: str) -> None:
    one = method(networks=name)
    assert one.networks == (name,)
    assert list(one.encoders(one.config.weak)) == [name]
    state = reviewed(one)
    state[f"threshold_{name}"][:] = 0.45
    one.partition(state, 3)
    believed = ({"strong": STRONG, "weak": WEAK}[name][:, 0] > 0.45).numpy()
    assert (state["subset"] == R).tolist() == believed.tolist()


def test_agreement() -> None:
    one = method(partition="agreement")
    state = reviewed(one)
    assert (state["agree"] > 0).tolist() == (STRONG.argmax(1) == WEAK.argmax(1)).tolist()
    state["threshold_strong"][:], state["threshold_weak"][:] = 0.5, 0.4
    one.partition(state, 3)
    assert state["subset"].tolist() == [R, H, P, H, H]


def test_where_nothing_is_reliable_the_most_probable_are(caplog: pytest.LogCaptureFixture) -> None:
    one = method(num_classes=2)
    state = columns(one, 20, labels=[0] * 10 + [1] * 10)
    for name in ("strong", "weak"):
        state[f"threshold_{name}"][:] = 0.99
        state[f"label_probability_{name}"][:] = np.linspace(0.1, 0.5, 20)
    with caplog.at_level("WARNING"):
        one.partition(state, 3)
    assert np.flatnonzero(state["subset"] == R).tolist() == [9, 19]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no example is reliable" in caplog.text


def asking(**options: Any) -> tuple[NoiseAL, dict[str, Any]]:
    one = method(**options)
    state = columns(one, 10)
    state["subset"][:] = [P, P, P, P, R, R, R, H, H, H]
    state["confidence"][:4] = [0.6, 0.9, 0.7, 0.8]
    state["predicted"][:4] = [1, 2, 1, 2]
    for name, q in (("strong", [0.3, 0.0, 0.1, 0.2]), ("weak", [0.3, 0.2, 0.1, 0.0])):
        state[f"label_probability_{name}"][:4] = q
    return one, state


def test_whom_it_asks() -> None:
    one, state = asking()
    found = one.queries(state, 3)
    assert found is not None
    assert found.rows.tolist() == [1, 3, 2, 0]  # the least believed first
    assert found.predicted.tolist() == [2, 2, 1, 1]
    np.testing.assert_allclose(found.log_odds, np.log([9, 8, 7, 2]), rtol=2**-10)
    assert np.flatnonzero(found.pool).tolist() == [4, 5, 6]
    one.revise(state, found.rows, np.array([2, UNANSWERED, ABSTAINED, 0]), 3)
    assert state["answer"][:4].tolist() == [0, 2, ABSTAINED, UNANSWERED]
    again = one.queries(state, 4)
    assert again is not None
    assert again.rows.tolist() == [3]  # nobody answered; what abstained would again
    state["answer"][3] = 1
    assert one.queries(state, 5) is None
    assert one.queries(state, 2) is None  # still warming up


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({"budget": 0.5}, [1, 3]),
        ({"max_queries": 3}, [1, 3, 2]),
        ({"budget": 0.0}, None),
        ({"max_queries": 0}, None),
    ],
)
def test_its_budget(options: dict[str, Any], rows: Any) -> None:
    one, state = asking(**options)
    found = one.queries(state, 3)
    assert (found.rows.tolist() if found else None) == rows
    assert (one.expected_queries(one.config) is not None) == (rows is not None)


def test_its_budget_counts_every_question_posed() -> None:
    """4 questions: 2 answered, 1 abstained from and 1 failed leave 5 - 4 = 1, for the one that failed."""
    one, state = asking(max_queries=5)
    state["subset"][9] = P  # asked last
    found = one.queries(state, 3)
    assert found is not None
    one.revise(state, found.rows[:4], np.array([2, UNANSWERED, ABSTAINED, 0]), 3)
    again = one.queries(state, 4)
    assert again is not None
    assert again.rows.tolist() == [3]
    one.revise(state, again.rows, np.array([UNANSWERED]), 4)
    assert one.queries(state, 5) is None  # 9 was never asked about, and 3 twice
    assert state["posed"].tolist() == [1, 1, 1, 2, 0, 0, 0, 0, 0, 0]


def test_it_may_ask_again_in_every_epoch() -> None:
    one, state = asking(requery=True)
    first = one.queries(state, 3)
    assert first is not None
    one.revise(state, first.rows, np.array([2, UNANSWERED, ABSTAINED, 0]), 3)
    again = one.queries(state, 4)
    assert again is not None
    assert again.rows.tolist() == first.rows.tolist()
    one.revise(state, again.rows, np.array([UNANSWERED, 1, 1, 2]), 4)
    assert state["answer"][:4].tolist() == [2, 2, 1, 1]  # the last answers; the first one's still stands


def test_an_annotator_that_only_fails_is_not_asked_for_ever() -> None:
    one, state = asking(max_queries=6)
    posed = 0
    for epoch in range(3, 10):
        if (found := one.queries(state, epoch)) is not None:
            posed += len(found.rows)
            one.revise(state, found.rows, np.full(len(found.rows), UNANSWERED), epoch)
    assert posed == 6


@pytest.mark.parametrize(
    ("options", "purified"),
    [
        ({}, [True, True, False]),
        ({"partition": "agreement"}, [True, True, False]),
        ({"partition": "disc"}, [False, True, False]),  # more than .3 + .5
        ({"partition": "disc", "sigma": 0.2}, [True, True, False]),  # more than .3 + .2
        ({"sigma": 0.6}, [False, False, False]),  # more than .3 + .6
    ],
)
def test_every_partition_has_its_own_sigma(options: dict[str, Any], purified: list[bool]) -> None:
    one = method(**options)
    state = columns(one, 4)
    state["confidence"][:] = [0.6, 0.85, 0.2, 0.2]
    state["predicted"][:] = 1
    for name in one.networks:
        state[f"threshold_{name}"][:] = 0.3
        state[f"label_probability_{name}"][:] = [0.1, 0.1, 0.1, 0.5]
    if "agree" in state:
        state["agree"][:] = 1
    one.partition(state, 3)
    assert (state["subset"][:3] == P).tolist() == purified


def step(
    one: NoiseAL, subsets: list[int], answers: list[int], epoch: int = 3
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Loss terms of a batch, and the logits' gradients."""
    torch.manual_seed(0)
    count = len(subsets)
    heads = {name: torch.nn.Linear(4, 3) for name in one.networks}
    features = {name: torch.randn(count, 4, requires_grad=True) for name in one.networks}
    outputs = {name: Output(features[name], heads[name](features[name])) for name in one.networks}
    batch = StepBatch(
        global_id=np.arange(count), given_label=torch.zeros(count, dtype=torch.long),
        valid=torch.ones(count, dtype=torch.bool), world_size=1, global_count=count, total=lambda n: n,
        classify=lambda name, rows: heads[name](rows),
        again=lambda name, rows: Output(features[name][rows], heads[name](features[name][rows]) * 1.5),
        on_host={
            "subset": np.array(subsets, np.int8), "answer": np.array(answers, np.int16),
            "predicted": np.ones(count, np.int16),
        }.__getitem__,
    )  # fmt: skip
    return one.loss(outputs, batch, {}, epoch), features


IDS, LABELS = torch.arange(20, 25), torch.tensor([0, 1, 0, 2, 1])
FEATURES = {
    "strong": STRONG.log(),
    "weak": torch.tensor([[1.0, 0.5], [-1.0, 0.0], [0.3, 2.0], [0.0, -1.5], [2.0, 1.0]]),
}


def classify(name: str, rows: Tensor) -> Tensor:
    return rows if name == "strong" else rows @ torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.5, 1.0]])


def probabilities(name: str) -> Tensor:
    return classify(name, FEATURES[name]).softmax(1)


def by_hand(one: NoiseAL, subsets: list[int], answers: list[int]) -> dict[str, Any]:
    """Loss terms of five examples labelled 0, 1, 0, 2, 1, with ids from 20 on.

    The strong network's features are its logits, log STRONG; the weak one's have two numbers, of which `classify` makes
    logits. A second pass of either gives 1.5 times the logits.
    """
    outputs = {name: Output(FEATURES[name], classify(name, FEATURES[name])) for name in one.networks}
    batch = StepBatch(
        global_id=IDS.numpy(), given_label=LABELS, valid=torch.ones(5, dtype=torch.bool), world_size=1, global_count=5,
        total=lambda n: n, classify=classify,
        again=lambda name, rows: Output(FEATURES[name][rows], 1.5 * outputs[name].logits[rows]),
        on_host={"subset": np.array(subsets), "answer": np.array(answers)}.__getitem__,
    )  # fmt: skip
    return one.loss(outputs, batch, {}, 3)


def test_losses_of_labels_and_of_answers_are_sums_over_the_batch_size() -> None:
    """The strong network gives its rows' labels .7, .35, .02, .3, .2 and the answers 1 and 2 of rows 2 and 3 .97, .3."""
    terms = by_hand(method(), [R, H, P, P, R], [-1, -1, 1, 2, -1])
    assert terms["clean_strong"].item() == pytest.approx(-(np.log(0.7) + np.log(0.2)) / 5, rel=1e-5)
    assert terms["purified_strong"].item() == pytest.approx(9.2103 * (0.03 + 0.7) / 5, rel=1e-5)
    p = probabilities("weak").double().numpy()
    assert terms["clean_weak"].item() == pytest.approx(-(np.log(p[0, 0]) + np.log(p[4, 1])) / 5, rel=1e-5)
    reverse = 9.2103 * (2 - p[2, 1] - p[3, 2]) / 5
    assert terms["purified_weak"].item() == pytest.approx(reverse, rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"alpha": 4.0}])
def test_the_hard_term_is_embmix(options: dict[str, float]) -> None:
    """METHODS 13.4, step by step: of rows 1, 2 and 4 the first is mixed with the second, that with the third, that with
    the first.
    """
    one = NoiseAL(NoiseAL.Config(kl_weight=0, **options), 3, seed=9)
    terms = by_hand(one, [R, H, H, P, H], [-1, -1, -1, 0, -1])
    hard = np.array([False, True, True, False, True])
    partner = mixing.partners(IDS.numpy(), torch.from_numpy(hard), seed=9, epoch=3)
    assert partner[hard].tolist() == [2, 4, 1]
    share = torch.from_numpy(mixing.mix_weights(IDS.numpy(), 9, 3, options.get("alpha", 0.75))).float()
    share = torch.maximum(share, 1 - share)[:, None]
    joint = (probabilities("strong") + probabilities("weak")) / 2
    trust = joint[torch.arange(5), LABELS][:, None]
    refined = trust * torch.eye(3)[LABELS] + (1 - trust) * joint
    powers = refined ** (1 / options.get("temperature", 0.5))
    target = powers / powers.sum(1, keepdim=True)
    target = share * target + (1 - share) * target[partner]
    for name, features in FEATURES.items():
        mixed = share * features + (1 - share) * features[partner]
        values = -(target * classify(name, mixed).log_softmax(1)).sum(1)
        assert terms[f"hard_{name}"].item() == pytest.approx(values[hard].sum().item() / 5, rel=1e-5)


def test_two_passes_over_the_hard_rows_are_held_together() -> None:
    batch = [R, H, H, P, H], [-1, -1, -1, 0, -1]
    alone, both = by_hand(method(kl_weight=0), *batch), by_hand(method(), *batch)
    for name in FEATURES:
        p = probabilities(name)[[1, 2, 4]].double()
        q = (1.5 * p.log()).softmax(1)
        apart = ((p * (p / q).log()).sum() + (q * (q / p).log()).sum()) / 2
        assert apart > 0.01
        found = both[f"hard_{name}"] - alone[f"hard_{name}"]
        assert found.item() == pytest.approx(0.3 * apart.item() / 5, rel=1e-4)


@pytest.mark.parametrize("part", ["clean", "purified", "hard"])
def test_a_weight_scales_its_term_and_no_other(part: str) -> None:
    batch = [R, P, P, H, H], [-1, 2, 1, -1, -1]
    plain = by_hand(method(), *batch)
    for weight in (0.0, 2.0):
        found = by_hand(method(**{f"{part}_weight": weight}), *batch)
        for name, term in plain.items():
            assert term.item() > 0
            factor = weight if name.startswith(part) else 1
            assert float(found.get(name, 0)) == pytest.approx(factor * term.item(), rel=1e-6)
        if not weight and part != "clean":
            assert not any(name.startswith(part) for name in found)


def moved(term: torch.Tensor, features: torch.Tensor) -> list[int]:
    (gradient,) = torch.autograd.grad(term, features, retain_graph=True)
    return np.flatnonzero(gradient.abs().sum(1)).tolist()


def test_each_loss_moves_its_own_subset() -> None:
    terms, features = step(method(), [R, P, P, H, H, R], [-1, 2, -1, -1, -1, -1])
    assert set(terms) == {
        f"{part}_{name}" for part in ("clean", "purified", "hard") for name in ("strong", "weak")
    }
    assert moved(terms["clean_strong"], features["strong"]) == [0, 5]
    assert moved(terms["purified_strong"], features["strong"]) == [1]
    assert moved(terms["hard_strong"], features["strong"]) == [
        2,
        3,
        4,
    ]  # 2 has no answer: it trains as a hard one
    assert not terms["hard_weak"].isnan()


def test_what_becomes_of_purified_examples_without_an_answer() -> None:
    terms, features = step(method(without_answer="predicted"), [R, P, P, H], [-1, 2, -2, -1])
    assert moved(terms["purified_strong"], features["strong"]) == [1, 2]
    terms, features = step(method(without_answer="drop"), [R, P, P, H], [-1, 2, -2, -1])
    assert moved(terms["purified_strong"], features["strong"]) == [1]
    assert moved(terms["hard_strong"], features["strong"]) == [3]


@pytest.mark.parametrize(
    ("without_answer", "purified", "hard"), [("hard", [], [2, 4]), ("predicted", [2], [4]), ("drop", [], [4])]
)
def test_adopted_answers_are_reliable_and_the_others_train_as_without_answer_says(
    without_answer: str, purified: list[int], hard: list[int]
) -> None:
    one = method(adopt=True, without_answer=without_answer)
    terms, features = step(one, [R, P, P, H, H], [-1, 2, -2, 1, -1])
    assert moved(terms["clean_strong"], features["strong"]) == [0, 1, 3]
    assert moved(terms["purified_strong"], features["strong"]) == purified
    assert moved(terms["hard_strong"], features["strong"]) == hard


def test_an_adopted_partner_brings_its_answer_into_the_mixture(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    target = mixing.co_refined_target
    monkeypatch.setattr(
        mixing,
        "co_refined_target",
        lambda labels, *rest: (used.append(labels.tolist()), target(labels, *rest))[1],
    )
    options = {"mix_pool": "clean_and_hard", "kl_weight": 0}
    adopted, _ = step(method(adopt=True, **options), [P, P, P, H], [2, 2, 2, -1])
    rejected, _ = step(method(adopt=False, **options), [R, R, R, H], [-1] * 4)
    assert used == [[2, 2, 2, 0], [0] * 4]
    assert adopted["hard_strong"].item() != rejected["hard_strong"].item()


@pytest.mark.parametrize("loss", ["cross_entropy", "generalized_cross_entropy", "symmetric_cross_entropy"])
def test_other_losses_on_answers(loss: str) -> None:
    plain, _ = step(method(), [P, R], [1, -1])
    other, _ = step(method(purified_loss=loss), [P, R], [1, -1])
    assert plain["purified_strong"].item() != other["purified_strong"].item()
    assert plain["clean_strong"].item() == other["clean_strong"].item()


def test_subsets_weigh_their_share_of_the_batch() -> None:
    scaled, _ = step(method(), [R, R, H, H], [-1] * 4)
    plain, _ = step(method(subset_scale=False), [R, R, H, H], [-1] * 4)
    assert plain["clean_strong"].item() == pytest.approx(2 * scaled["clean_strong"].item(), rel=1e-6)


def test_empty_subsets_are_zero_with_a_zero_gradient() -> None:
    for subsets, answers, there in (
        ([H, H], [-1, -1], "hard"),
        ([R, R], [-1, -1], "clean"),
        ([P, P], [2, 1], "purified"),
    ):
        terms, features = step(method(), subsets, answers)
        for part in ("clean", "purified", "hard"):
            for name in ("strong", "weak"):
                term = terms[f"{part}_{name}"]
                (gradient,) = torch.autograd.grad(term, features[name], retain_graph=True)
                if part == there:
                    assert term.item() > 0
                    assert gradient.abs().sum() > 0
                else:
                    assert term.item() == 0
                    assert (gradient == 0).all()  # NaN is not


def test_one_hard_row_is_mixed_with_itself() -> None:
    terms, features = step(method(kl_weight=0), [R, H], [-1, -1])
    assert moved(terms["hard_strong"], features["strong"]) == [1]


def test_state_is_small() -> None:
    per_example = sum(np.dtype(dtype).itemsize for dtype, _ in method().state().values())
    assert per_example == 31
    assert set(method(max_queries=9).state()) - set(method().state()) == {"posed"}
    assert method(num_classes=40_000).state()["answer"][0] == "int32"
