"""LANE's hooks: Example A in two epochs, the order of the updates, views, presets and ablations."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from rayclean.config import Plugin
from rayclean.folder import Folder
from rayclean.functional import contrastive
from rayclean.methods.batch import Output, StepBatch
from rayclean.methods.lane import Lane
from rayclean.methods.lane_literal import LaneLiteral
from rayclean.training.loop import fit
from tests.training.toys import job, spec, write_examples

LABELS = torch.tensor([0, 0, 0, 0, 1])
Z = [
    torch.tensor([[2, 1, 0], [0, 1, 3], [1, 3, 0], [0.5, 1.5, 0], [3, 0, 1]]),
    torch.tensor([[3, 0, 0], [0, 1, 4], [0, 4, 1], [1.5, 1, 0], [4, 0, 1]]),
]
W = [
    torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.2, 0.6], [0.4, 0.5, 0.1], [0.5, 0.4, 0.1], [0.5, 0.25, 0.25]]),
    torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.3, 0.5], [0.3, 0.5, 0.2], [0.6, 0.3, 0.1], [0.8, 0.1, 0.1]]),
]


def method(cls: type[Lane] = Lane, **options: Any) -> Lane:
    return cls(cls.Config(**options), 3)


def columns(one: Lane, count: int = 5) -> dict[str, Any]:
    state = {name: np.full(count, value, dtype=dtype) for name, (dtype, value) in one.state().items()}
    return {"example_id": np.arange(count), "given_label": LABELS.numpy()[:count], **state}


def batch(labels: torch.Tensor = LABELS) -> StepBatch:
    return StepBatch(
        global_id=np.arange(len(labels)), given_label=labels, valid=torch.ones(len(labels), dtype=torch.bool),
        world_size=1, global_count=len(labels), total=lambda n: n,
    )  # fmt: skip


def outputs(epoch: int, features: torch.Tensor | None = None) -> dict[str, Output]:
    features = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)) if features is None else features
    return {"main": Output(features, Z[epoch - 1]), "auxiliary": Output(features, W[epoch - 1].log())}


def two_epochs(one: Lane, rows: list[int] | None = None) -> dict[str, Any]:
    state = columns(one)
    for epoch in (1, 2):
        one.partition(state, epoch)
        seen = {name: value.numpy() for name, value in one.seen(outputs(epoch), batch(), {}).items()}
        for part in ([0, 1, 2, 3, 4],) if rows is None or epoch == 1 else (rows,):
            one.observe(state, np.array(part), {n: v[part] for n, v in seen.items()}, epoch)
    return state


def test_example_a() -> None:
    one = method()
    state = two_epochs(one)
    np.testing.assert_allclose(state["margin_sum"], [4, -13, -12, -2, -11], atol=1e-5)
    np.testing.assert_allclose(one.quality(state), [2, -6.5, -6, -1, -5.5], atol=1e-5)
    np.testing.assert_allclose(state["weight"], [1, 0.727471, 0.850154, 1, 0.943233], atol=1e-5)
    first = [1, 0.889743, 1, 1, 0.453972]
    np.testing.assert_allclose(state["weight_sum"], np.array(first) + state["weight"], atol=1e-5)
    told = one.summary(state)
    assert told["negative_margins"] == 4
    assert told["negative_mean"] == pytest.approx(-4.75, abs=1e-5)
    assert told["negative_deviation"] == pytest.approx(4.8125**0.5, abs=1e-5)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"sigma": "literal"}, [1, 0.936023, 0.966830, 1, 0.987930]),
        ({"mu": 0.0}, [1, 6.69e-10, 1.52e-8, 0.606531, 2.70e-7]),
        ({"mu": -1.0}, [1, 2.70e-7, 3.73e-6, 1, 4.01e-5]),
        ({"weighting": False}, [1, 1, 1, 1, 1]),
    ],
)
def test_example_a_other_readings(options: dict[str, Any], expected: list[float]) -> None:
    np.testing.assert_allclose(two_epochs(method(**options))["weight"], expected, rtol=1e-2, atol=1e-5)


def test_batch_scope_sees_the_batch_alone() -> None:
    state = two_epochs(method(scope="batch"), rows=[1, 2, 4])
    np.testing.assert_allclose(state["weight"][[1, 2, 4]], [0.472367, 1, 1], atol=1e-5)
    whole = two_epochs(method(), rows=[1, 2, 4])
    assert abs(whole["weight"][1] - 0.472367) > 0.05  # global scope has the others' margins, too


def test_a_fixed_mu_waits_for_its_warmup() -> None:
    state = columns(one := method(mu=0.0, mu_warmup=2))
    seen = {name: value.numpy() for name, value in one.seen(outputs(1), batch(), {}).items()}
    one.observe(state, np.arange(5), seen, 2)
    assert (state["weight"] == 1).all()


def test_without_similarity_margins_are_plain() -> None:
    seen = method(similarity=False).seen(outputs(1), batch(), {})
    assert seen["margin"].tolist() == [1, -3, -2, -1, -3]
    with_w = method().seen(outputs(1), batch(), {})["margin"]
    np.testing.assert_allclose(with_w, [1, -5, -4, -2.5, -6], atol=1e-5)
    certain = method()
    sure = {"main": outputs(1)["main"], "auxiliary": Output(torch.zeros(5, 4), torch.full((5, 3), 0.0))}
    thirds = certain.seen(sure, batch(), {})["margin"]  # w = 1/3 everywhere: every lost margin times three
    np.testing.assert_allclose(thirds, [1, -9, -6, -3, -9], atol=1e-5)


def test_loss_is_the_weighted_sum_of_the_example() -> None:
    one = method(contrastive_weight=0)
    weights = torch.tensor([1, 0.727471, 0.850154, 1, 0.943233])
    terms = one.loss(outputs(2), batch(), {"weight": weights}, 2)
    assert float(terms["weighted"]) == pytest.approx(2.189714, abs=1e-5)
    literal = method(LaneLiteral, contrastive_weight=0).loss(outputs(2), batch(), {"weight": weights}, 2)
    assert float(literal["weighted"]) == pytest.approx(10.948569, abs=1e-4)


def test_no_gradient_flows_through_margins_and_weights() -> None:
    """The weights are constants: all that the weighted term moves is the main network's logits, by weight (p - y) / B."""
    one = method()
    main, auxiliary = Z[1].clone().requires_grad_(), W[1].log().requires_grad_()
    said = {"main": Output(torch.zeros(5, 4), main), "auxiliary": Output(torch.zeros(5, 4), auxiliary)}
    seen = one.seen(said, batch(), {})
    assert not any(value.requires_grad for value in seen.values())
    state = columns(one)
    one.observe(state, np.arange(5), {name: value.numpy() for name, value in seen.items()}, 2)
    weights = torch.from_numpy(state["weight"])
    assert weights.min() < 0.9
    term = one.loss(said, batch(), {"weight": weights}, 2)["weighted"]
    moved, none = torch.autograd.grad(term, (main, auxiliary), allow_unused=True)
    assert none is None
    expected = weights[:, None] * (Z[1].softmax(1) - torch.eye(3)[LABELS]) / 5
    torch.testing.assert_close(moved, expected)


@pytest.mark.parametrize("cls", [Lane, LaneLiteral])
def test_the_order_of_a_batch_changes_neither_loss_nor_state(cls: type[Lane]) -> None:
    one, order = method(cls), torch.tensor([3, 0, 4, 2, 1])
    labels, weights = torch.tensor([0, 1, 0, 2, 1]), torch.tensor([1, 0.7, 0.9, 0.2, 0.5])
    generator = torch.Generator().manual_seed(0)
    features, main, auxiliary = (torch.randn(2, 5, 3, generator=generator) for _ in range(3))  # with a view

    def terms(rows: torch.Tensor) -> dict[str, torch.Tensor]:
        said = {
            "main": Output(features[:, rows].flatten(0, 1), main[:, rows].flatten(0, 1)),
            "auxiliary": Output(features[:, rows].flatten(0, 1), auxiliary[:, rows].flatten(0, 1)),
        }
        return one.loss(
            said, replace(batch(labels[rows]), global_id=rows.numpy()), {"weight": weights[rows]}, 1
        )

    torch.testing.assert_close(terms(order), terms(torch.arange(5)))
    state, permuted = two_epochs(one), two_epochs(method(cls), rows=order.tolist())
    for name in one.state():
        np.testing.assert_allclose(permuted[name], state[name], rtol=1e-12, err_msg=name)


def test_contrastive_term_is_example_b() -> None:
    angles = torch.deg2rad(torch.tensor([0.0, 30, 90, 120]))
    features = torch.stack([angles.cos(), angles.sin()], dim=1)
    w = torch.tensor([[0.6, 0.4], [0.7, 0.3], [0.2, 0.8], [0.5, 0.5]])
    labels = torch.tensor([0, 0, 1, 1])
    said = {"main": Output(features, torch.zeros(4, 2)), "auxiliary": Output(features, w.log())}
    for tau, expected in ((1.0, -0.801713), (0.3, -2.540174)):
        terms = method(tau=tau).loss(said, batch(labels), {"weight": torch.ones(4)}, 1)
        assert float(terms["contrastive"]) == pytest.approx(expected, abs=1e-5)
    summed = method(LaneLiteral).loss(said, batch(labels), {"weight": torch.ones(4)}, 1)
    assert float(summed["contrastive"]) == pytest.approx(4 * -0.801713, abs=1e-4)


def test_views_carry_label_and_weight_and_never_the_state() -> None:
    one = method(contrastive_weight=0)
    twice = {
        n: Output(o.features.repeat(2, 1), torch.cat([o.logits, o.logits * 0])) for n, o in outputs(1).items()
    }
    assert (
        one.seen(twice, batch(), {})["margin"].tolist()
        == one.seen(outputs(1), batch(), {})["margin"].tolist()
    )
    weights = torch.tensor([1.0, 0.5, 1, 1, 0])
    terms = one.loss(twice, batch(), {"weight": weights}, 1)
    alone = one.loss(outputs(1), batch(), {"weight": weights}, 1)
    third = float(np.log(3)) * 3.5 / 5  # a view without any opinion
    assert float(terms["weighted"]) == pytest.approx((float(alone["weighted"]) + third) / 2, abs=1e-6)


def test_denominator_and_detached_weights() -> None:
    said = outputs(1)
    auxiliary = said["auxiliary"].logits.clone().requires_grad_(True)
    said["auxiliary"] = Output(said["main"].features, auxiliary)
    rows = {"weight": torch.ones(5)}
    for detached in (True, False):
        one = method(detach_weights=detached)
        term = one.loss(said, batch(), rows, 1)["contrastive"]
        if detached:
            assert not term.requires_grad
        else:
            assert torch.autograd.grad(term, auxiliary)[0].abs().sum() > 0
    pairs = contrastive.pair(said["main"].features, LABELS)
    values, counted = contrastive.lcl(pairs, auxiliary.softmax(-1), w_min=0.05)
    found = method(denominator="all").loss(said, batch(), rows, 1)["contrastive"]
    assert float(found.detach()) == pytest.approx(float(values[counted].mean().detach()), abs=1e-6)


def test_presets() -> None:
    literal = LaneLiteral.Config()
    assert (literal.scope, literal.tau, literal.w_min, literal.reduction) == ("batch", 1.0, 1e-12, "sum")
    assert len(literal.views or ()) == 7
    assert method().views == ("auto",)
    assert method(views=()).views == ()


def test_state_is_small() -> None:
    assert sum(np.dtype(dtype).itemsize for dtype, _ in method().state().values()) == 21


def test_the_clamp_rate_is_of_lost_margins_at_the_last_visit() -> None:
    """Lost in the first epoch: four, to rivals of w .6, .5, .4 and .5; in the second three, to rivals of .5, .5 and .8."""
    one = method(w_min=0.55)
    state = columns(one)
    for epoch, rate in ((1, 3 / 5), (2, 2 / 5)):
        seen = {name: value.numpy() for name, value in one.seen(outputs(epoch), batch(), {}).items()}
        one.observe(state, np.arange(5), seen, epoch)
        assert one.summary(state)["clamp_rate"] == pytest.approx(rate)
    assert two_epochs(method(w_min=1e-3))["clamped"].sum() == 0
    assert two_epochs(method(similarity=False))["clamped"].sum() == 0


@pytest.fixture
def trained(tmp_path: Path) -> Any:
    """A function that trains LANE on the same toy data with the same seed, and returns its columns by epoch."""
    examples = write_examples(tmp_path / "examples", 60, noise=0.3)

    def train(**options: Any) -> list[pd.DataFrame]:
        one = job(examples, tmp_path / str(sorted(options.items())), keep_epochs=True)
        fit(one, spec(method=Plugin(name="lane", **options), epochs=3, learning_rate=0.05))
        names = [f"epoch-{epoch:03d}" for epoch in (1, 2, 3)]
        return [
            Folder(one.output).read_table("epochs", name, "part-00000.parquet").to_pandas() for name in names
        ]

    return train


def test_without_weighting_all_weights_are_one_and_the_training_is_another(trained: Any) -> None:
    *_, last = trained()
    *_, plain = trained(weighting=False)
    assert last["weight"].min() < 0.9
    assert (plain["weight"] == 1).all()
    assert (plain["weight_sum"] == 3).all()
    assert (plain["margin_sum"] != last["margin_sum"]).mean() > 0.9


def test_without_similarity_lost_margins_are_not_amplified(trained: Any) -> None:
    """With all weights 1 both train the same networks, so that the margins are of the same logits."""
    for aware, plain in zip(
        trained(weighting=False), trained(weighting=False, similarity=False), strict=True
    ):
        assert (aware["margin_sum"] <= plain["margin_sum"]).all()
        always_won = aware["margin_sum"] == plain["margin_sum"]
        assert (plain["margin_sum"][always_won] > 0).all()
        assert not always_won.all()
    assert trained(similarity=False)[2]["weight"].min() < 0.9  # inferred from plain margins


@pytest.mark.parametrize("mu", [0.0, -1.0])
def test_a_fixed_mu_weighs_by_its_own_gaussian(trained: Any, mu: float) -> None:
    first, *later = trained(mu=mu)
    assert (first["weight"] == 1).all()  # its warm-up
    for columns in later:
        alm = columns["margin_sum"] / columns["visits"]
        np.testing.assert_allclose(
            columns["weight"], np.exp(-(np.minimum(alm - mu, 0) ** 2) / 2), rtol=1e-5, atol=1e-30
        )
    assert 0 < (later[-1]["weight"] < 0.5).sum() < 60
