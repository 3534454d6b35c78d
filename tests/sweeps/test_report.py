import html
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs
from rich.console import Console

from rayclean.cli.sweep_table import print_sweep_table, sweep_table, sweep_values
from rayclean.evaluation.seed_figures import PointFigure
from rayclean.sweeps.page import report
from rayclean.sweeps.page.fields import swept_fields
from rayclean.sweeps.page.plots import COLOURS
from rayclean.sweeps.repeat import trial_command
from rayclean.sweeps.results import Results, Row, best_row, pareto_front
from rayclean.sweeps.spec import Sweep

EVIL = "<script>alert(1)</script>"
LAMBDA, RATE, DETECTORS = "method.lambda_", "dataset.noise.rate", "detect.detectors"


@pytest.fixture
def base(tmp_path: Path) -> str:
    path = tmp_path / "base.toml"
    path.write_text('name = "base"\n[dataset]\npath = "x.csv"\n[method]\nname = "noiseal"\n')
    return str(path)


def results(
    base: str,
    space: dict[str, Any],
    rows: list[tuple[dict[str, Any], dict[str, PointFigure]]],
    reference: int | None = None,
    failed: dict[str, str] | None = None,
    epochs: dict[int, dict[int, list[dict[str, Any]]]] | None = None,
    **more: Any,
) -> Results:
    """Results by hand: points with their figures; `epochs` by place of the point."""
    sweep = Sweep(name=more.pop("name", "s"), base=base, space=space, **more)
    made = [
        Row(
            point, sweep.seeds, figures, place == reference, 0, (epochs or {}).get(place, {}),
        )
        for place, (point, figures) in enumerate(rows)
    ]  # fmt: skip
    metrics = list(dict.fromkeys(name for _, figures in rows for name in figures))
    return Results(
        sweep,
        made,
        metrics,
        best_row(made, sweep.objectives),
        pareto_front(made, sweep.objectives),
        failed or {},
    )


def one(base: str, **more: Any) -> Results:
    """One numeric field, three seeds, a reference, an objective and a figure of the truth."""
    values = [0.1, 0.5, 0.7]
    dev = [
        PointFigure(0.7012, 0.0101, 3, 0.0312, -0.05),
        PointFigure(0.8134, 0.0202, 3, 0.2, 0.06),
        PointFigure(0.7512, 0.0303, 3),
    ]
    test = [
        PointFigure(0.71, 0.01, 3, 0.0004, -0.04),
        PointFigure(0.82, 0.02, 3, 1.0, 0.0),
        PointFigure(0.75, 0.03, 3),
    ]
    rows = [
        ({LAMBDA: value}, {"dev_accuracy": d, "accuracy": t, "tokens": PointFigure(12345.0, 10.4, 3)})
        for value, d, t in zip(values, dev, test, strict=True)
    ]
    return results(
        base, {LAMBDA: {"grid": values}}, rows, **{"reference": 2, "objectives": ("dev_accuracy",), **more}
    )


def grid(base: str, *values: tuple[str, list[Any]], **more: Any) -> Results:
    """Every combination; accuracy is .5 + .001 x the number of the point."""
    points: list[dict[str, Any]] = [{}]
    for path, each in values:
        points = [{**point, path: value} for point in points for value in each]
    rows = [
        (point, {"accuracy": PointFigure(0.5 + 0.001 * i, 0.01 * (i + 1), 3)})
        for i, point in enumerate(points)
    ]
    return results(base, {path: {"grid": each} for path, each in values}, rows, **more)


def page(of: Results) -> str:
    """Without plotly itself, whose code has everything in it."""
    whole = report.render_sweep(of)
    assert whole.count(get_plotlyjs()) == 1
    return whole.replace(get_plotlyjs(), "")


def charts(text: str) -> dict[str, Any]:
    """Figures of a page by title, all of which plotly knows; what the page has no place for is not among them."""
    found = json.loads(re.search(r'id="charts">(.*?)</script>', text, re.DOTALL)[1])
    places = re.findall(
        r'<h3>([^<]*)</h3>(?:\s*<p class="hint">[^<]*</p>)?\s*<div class="chart" data-chart="([^"]+)"', text
    )
    assert sorted(found) == sorted(name for _, name in places)
    for chart in found.values():
        go.Figure(chart)
    return {html.unescape(title): found[name] for title, name in places}


def words(text: str) -> str:
    """What a reader sees."""
    body = re.sub(r"<(script|style)\b.*?</\1>", " ", text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", body)))


def table_rows(text: str) -> list[str]:
    return [words(row) for row in re.findall(r'<tr class="point">(.*?)</tr>', text, re.DOTALL)]


def printed(of: Results) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(sweep_table(of))
    return console.file.getvalue()


def test_table_says_means_deviations_and_how_they_compare(base: str) -> None:
    text = page(one(base))
    first, second, third = table_rows(text)
    assert "0.7012 ± 0.0101 ▼ p=.031" in first
    assert "0.7100 ± 0.0100 ▼ p<.001" in first
    assert "12,345 ± 10" in first
    assert "0.8134 ± 0.0202 ▲ p=.2" in second
    assert "= p=1" in second
    assert "best" in second
    assert "reference" in third
    assert "p=" not in third
    sure = re.findall(r'<span class="mark sure"[^>]*>([^<]*)', text)
    assert sure == ["▼ p=.031", "▼ p&lt;.001"]
    assert 'title="difference -0.0500"' in text
    assert '<th class="group" colspan="1">measured on the truth (never chosen by)</th>' in text
    heads = re.findall(r'<th class="number">(\w+)</th>', text.split('class="points"')[1])
    assert heads == ["seeds", "dev_accuracy", "tokens", "accuracy"]


def test_every_trial_can_be_repeated(base: str) -> None:
    of = one(base)
    blocks = re.findall(r"<details><summary>repeat it</summary><pre>(.*?)</pre>", page(of), re.DOTALL)
    assert [html.unescape(block).splitlines() for block in blocks] == [
        [trial_command(of.sweep, row.point, seed) for seed in row.seeds] for row in of.rows
    ]
    assert "method.lambda_=0.5 seed=2" in blocks[1]


def test_best_point_comes_with_its_config(base: str) -> None:
    text = page(one(base))
    config = html.unescape(re.search(r'<pre class="config">(.*?)</pre>', text, re.DOTALL)[1])
    assert "lambda_ = 0.5" in config
    assert 'name = "s-best"' in config
    assert "dev_accuracy 0.8134 ± 0.0202 over 3 seeds (▲ p=.2 against the reference)" in words(text)


def test_line_has_means_and_deviations(base: str) -> None:
    found = charts(page(one(base)))
    (trace,) = found["dev_accuracy over lambda"]["data"]
    assert trace["x"] == [0.1, 0.5, 0.7]
    assert trace["y"] == [0.7012, 0.8134, 0.7512]
    assert trace["error_y"]["array"] == [0.0101, 0.0202, 0.0303]
    assert "reference" in trace["text"][2]
    assert not found["dev_accuracy over lambda"]["layout"]["showlegend"]
    assert set(found) == {f"{metric} over lambda" for metric in ("dev_accuracy", "accuracy", "tokens")}


def test_one_seed_has_no_deviation_and_says_so(base: str) -> None:
    rows = [({LAMBDA: value}, {"accuracy": PointFigure(value, None, 1)}) for value in (0.25, 0.75)]
    text = page(results(base, {LAMBDA: {"grid": [0.25, 0.75]}}, rows, seeds=(4,)))
    assert "0.2500" in table_rows(text)[0]
    assert "±" not in table_rows(text)[0]
    assert "error_y" not in charts(text)["accuracy over lambda"]["data"][0]
    assert "under one seed" in words(text)
    assert "seed 4: 2 trials finished" in words(text)
    assert "The best point" not in text


def test_one_line_for_each_combination_of_the_others(base: str) -> None:
    of = grid(base, (LAMBDA, [0.1, 0.5, 0.9]), (RATE, [0.2, 0.4]))
    text = page(of)
    lines = charts(text)["accuracy over lambda"]["data"]
    assert [line["name"] for line in lines] == ["rate = 0.2", "rate = 0.4"]
    assert lines[1]["y"] == pytest.approx([0.501, 0.503, 0.505])
    assert "One line per rate." in words(text)
    assert {line["line"]["color"] for line in lines} == set(COLOURS[:2])


def test_a_point_that_lacks_a_field_is_part_of_every_line_that_agrees(base: str) -> None:
    """No noise has no kind: both kinds of each method begin at it, and no line is a lone point."""
    kind, method = "dataset.noise.kind", "method"
    space = {
        RATE: {"grid": [0.0, 0.2, 0.4]},
        kind: {"grid": ["sym", "asym"], "when": {RATE: [0.2, 0.4]}},
        method: {"grid": ["ce", "lane"]},
    }
    values = iter(range(100))
    rows = [
        ({RATE: rate, **({kind: each} if each else {}), method: name}, {"accuracy": PointFigure(next(values), 1.0, 3)})
        for rate in (0.0, 0.2, 0.4)
        for each in (("sym", "asym") if rate else (None,))
        for name in ("ce", "lane")
    ]  # fmt: skip
    text = page(results(base, space, rows))
    lines = charts(text)["accuracy over rate"]["data"]
    assert {line["name"]: (line["x"], line["y"]) for line in lines} == {
        "sym, ce": ([0.0, 0.2, 0.4], [0, 2, 6]),
        "sym, lane": ([0.0, 0.2, 0.4], [1, 3, 7]),
        "asym, ce": ([0.0, 0.2, 0.4], [0, 4, 8]),
        "asym, lane": ([0.0, 0.2, 0.4], [1, 5, 9]),
    }
    assert "A point that lacks one of them is part of all lines that agree in the others." in words(text)


def test_a_field_that_only_some_points_have_tells_no_lines_apart_by_itself(base: str) -> None:
    """K = 0 has no selector, and there is but one."""
    shown, selector = "relabel.demonstrations", "relabel.selector"
    space = {shown: {"grid": [0, 1, 3]}, selector: {"grid": ["nearest"], "when": {shown: [1, 3]}}}
    rows = [
        ({shown: k, **({selector: "nearest"} if k else {})}, {"accuracy": PointFigure(0.1 * k, None, 3)})
        for k in (0, 1, 3)
    ]
    (line,) = charts(page(results(base, space, rows)))["accuracy over demonstrations"]["data"]
    assert line["x"] == [0, 1, 3]


def test_points_of_other_methods_stay_on_lines_of_their_own(base: str) -> None:
    """A threshold that only one method has: the other method lacks it and agrees with none of its lines."""
    fixed = "method.fixed_threshold"
    space = {
        RATE: {"grid": [0.2, 0.4]},
        "method.threshold": {"grid": ["dynamic", "fixed"]},
        fixed: {"grid": [0.5, 0.7], "when": {"method.threshold": "fixed"}},
    }
    kinds = [{"method.threshold": "dynamic"}, *({"method.threshold": "fixed", fixed: x} for x in (0.5, 0.7))]
    rows = [
        ({RATE: rate, **one}, {"accuracy": PointFigure(rate, None, 3)})
        for rate in (0.2, 0.4)
        for one in kinds
    ]
    text = page(results(base, space, rows))
    lines = charts(text)["accuracy over rate"]["data"]
    assert [line["name"] for line in lines] == ["dynamic, –", "fixed, 0.5", "fixed, 0.7"]
    assert all(line["x"] == [0.2, 0.4] for line in lines)
    assert "A point that lacks" not in words(text)


def test_too_many_lines_are_averaged_over(base: str) -> None:
    of = grid(base, (LAMBDA, [0.1, 0.9]), ("train.epochs", list(range(1, 14))), (RATE, [0.2, 0.4]))
    text = page(of)
    lines = charts(text)["accuracy over lambda"]["data"]
    assert [line["name"] for line in lines] == ["rate = 0.2", "rate = 0.4"]
    assert lines[0]["y"] == pytest.approx([0.5 + 0.001 * 12, 0.5 + 0.001 * 38])
    pooled = (sum((0.01 * (2 * i + 1)) ** 2 for i in range(13)) / 13) ** 0.5
    assert lines[0]["error_y"]["array"][0] == pytest.approx(pooled)
    assert "Averaged over epochs; bars pool the deviations over seeds." in words(text)


def test_plug_in_tables_are_categories(base: str) -> None:
    tables = [{"name": "knn", "neighbours": 5}, {"name": "knn", "neighbours": 20}, {"name": "lane"}]
    of = grid(base, ("annotator", tables), (RATE, [0.2, 0.4]), ("train.labels", ["given", "final"]))
    text = page(of)
    found = charts(text)
    assert found["accuracy over rate"]["data"][0]["name"] == "knn(neighbours=5), given"
    assert "One line per annotator and labels, named in this order." in words(text)
    dots = found["accuracy over annotator"]
    assert dots["layout"]["xaxis"]["ticktext"] == ["knn(neighbours=5)", "knn(neighbours=20)", "lane"]
    assert {dot["mode"] for dot in dots["data"]} == {"markers"}
    assert [round(x) for x in dots["data"][0]["x"]] == [0, 1, 2]
    assert dots["data"][0]["y"] == [0.5, 0.504, 0.508]
    assert "One colour per rate and labels, named in this order." in words(text)
    assert "knn(neighbours=20)" in table_rows(text)[4]


def test_missing_figures_and_fields(base: str) -> None:
    space = {
        "train.labels": {"choice": ["given", "final"]},
        LAMBDA: {"uniform": (0.0, 1.0), "when": {"train.labels": "final"}},
    }
    rows = [
        ({"train.labels": "given"}, {"accuracy": PointFigure(0.5, None, 1)}),
        (
            {"train.labels": "final", LAMBDA: 0.3},
            {"accuracy": PointFigure(0.7, 0.1, 2), "harm": PointFigure(0.01, 0.0, 2)},
        ),
        ({"train.labels": "final", LAMBDA: 0.6}, {"harm": PointFigure(0.02, 0.0, 3)}),
    ]
    of = results(base, space, rows, samples=3)
    text = page(of)
    first, second, third = table_rows(text)
    assert "given – 3 0.5000* –" in first
    assert "final 0.3 3 0.7000 ± 0.1000* 0.0100 ± 0.0000*" in second
    assert "final 0.6 3 – 0.0200 ± 0.0000" in third
    assert "not known under every seed" in words(text)
    found = charts(text)
    assert found["accuracy over lambda"]["data"][0]["mode"] == "markers"
    assert found["accuracy over lambda"]["data"][0]["x"] == [0.3]
    assert found["harm over lambda"]["data"][0]["x"] == [0.3, 0.6]
    assert "from 0 to 1; only where train.labels is final" in words(text)


def test_pareto_front_is_marked_joined_and_listed(base: str) -> None:
    figures = [(0.7, 100.0), (0.8, 300.0), (0.75, 400.0), (0.9, 900.0)]
    rows = [
        ({LAMBDA: 0.1 * i}, {"dev_accuracy": PointFigure(a, 0.01, 3), "tokens": PointFigure(t, 1.0, 3)})
        for i, (a, t) in enumerate(figures)
    ]
    of = results(base, {LAMBDA: {"grid": [0.0, 0.1, 0.2, 0.3]}}, rows, objectives=("dev_accuracy", "tokens"))
    text = page(of)
    beaten, kept = charts(text)["dev_accuracy against tokens"]["data"]
    assert (beaten["x"], beaten["y"]) == ([400.0], [0.75])
    assert sorted(zip(kept["x"], kept["y"], strict=True)) == [(100.0, 0.7), (300.0, 0.8), (900.0, 0.9)]
    assert "3 of 4 points" in words(text)
    assert ["front" in row for row in table_rows(text)] == [True, True, False, True]
    stars = [
        line.strip().startswith("*")
        for line in printed(of).splitlines()
        if "±" in line and "mean" not in line
    ]
    assert stars == [True, True, False, True]


def test_every_condition_has_a_front_of_its_own(base: str) -> None:
    rate = "dataset.noise.rate"
    rows = [
        (
            {LAMBDA: x, rate: r},
            {"dev_accuracy": PointFigure(x - r, 0.01, 3), "tokens": PointFigure(100 * x + r, 1.0, 3)},
        )
        for r in (0.2, 0.4)
        for x in (0.5, 0.9)
    ]
    space = {LAMBDA: {"grid": [0.5, 0.9]}, rate: {"grid": [0.2, 0.4]}}
    of = results(base, space, rows, objectives=("dev_accuracy", "tokens"))
    found = charts(page(of))
    for r in (0.2, 0.4):
        beaten, kept = found[f"dev_accuracy against tokens at rate = {r}"]["data"]
        assert beaten["x"] == []
        assert sorted(kept["x"]) == [50 + r, 90 + r]


def test_three_objectives_are_drawn_in_pairs(base: str) -> None:
    rows = [
        (
            {LAMBDA: x},
            {
                "dev_accuracy": PointFigure(x, 0.0, 3),
                "tokens": PointFigure(x, 0.0, 3),
                "cost": PointFigure(1 - x, 0.0, 3),
            },
        )
        for x in (0.25, 0.5)
    ]
    of = results(base, {LAMBDA: {"grid": [0.25, 0.5]}}, rows, objectives=("dev_accuracy", "tokens", "cost"))
    found = charts(page(of))
    assert sorted(found["dev_accuracy against cost"]["data"][1]["y"]) == [0.25, 0.5]
    assert sorted(found["dev_accuracy against tokens"]["data"][1]["x"]) == [0.25, 0.5]


def test_costs_are_shown_with_their_currency(base: str) -> None:
    rows = [
        ({LAMBDA: x}, {"dev_accuracy": PointFigure(x, None, 1), "cost": PointFigure(1 - x, None, 1)})
        for x in (0.25, 0.5)
    ]
    of = replace(
        results(base, {LAMBDA: {"grid": [0.25, 0.5]}}, rows, objectives=("dev_accuracy", "cost")),
        currency="EUR",
    )
    text = page(of)
    assert text.count('<th class="number">cost (EUR)</th>') == 2  # the front, and all points
    assert ">cost (EUR)</option>" in text
    front, over = (charts(text)[title] for title in ("dev_accuracy against cost", "cost over lambda"))
    assert (
        front["layout"]["xaxis"]["title"]["text"] == over["layout"]["yaxis"]["title"]["text"] == "cost (EUR)"
    )
    assert all("cost (EUR) 0." in shown for data in (*front["data"], *over["data"]) for shown in data["text"])
    terminal = Console(file=io.StringIO(), width=200)
    terminal.print(sweep_table(of))
    assert "cost (EUR)" in terminal.file.getvalue()  # type: ignore[attr-defined]


def test_metrics_can_be_switched(base: str) -> None:
    names = ["tokens", "same", *(f"m{i}" for i in range(11)), "annotator_accuracy"]
    rows = [
        ({LAMBDA: x}, {name: PointFigure(1.0 if name == "same" else x, 0.1, 3) for name in names})
        for x in (0.1, 0.2)
    ]
    text = page(results(base, {LAMBDA: {"grid": [0.1, 0.2]}}, rows))
    options = re.findall(r'<option value="(\d+)"[^>]*>([^<]*)', text)
    assert [int(value) for value, _ in options] == list(range(report.MAX_METRICS))
    shown = [name.split()[0] for _, name in options]
    assert shown == ["annotator_accuracy", *(name for name in names[:-1] if name not in ("same", "m10"))]
    assert options[0][1] == "annotator_accuracy (measured on the truth)"
    assert "Only in the table below: same, m10." in words(text)
    views = re.findall(r'<div data-view="(\d+)"( hidden)?>', text)
    assert views == [("0", ""), *((str(i), " hidden") for i in range(1, report.MAX_METRICS))]
    assert len(charts(text)) == report.MAX_METRICS


def test_what_decides_is_seen_first_and_what_never_differs_last(base: str) -> None:
    names = ["tokens", "dev_loss", "changed", "noise_final"]
    rows = [
        ({LAMBDA: x}, {name: PointFigure(1.0 if name == "dev_loss" else x, 0.1, 3) for name in names})
        for x in (0.1, 0.2)
    ]

    def shown(*objectives: str) -> list[str]:
        text = page(results(base, {LAMBDA: {"grid": [0.1, 0.2]}}, rows, objectives=objectives))
        return [name.split()[0] for name in re.findall(r'<option value="\d+"[^>]*>([^<]*)', text)]

    assert shown() == ["noise_final", "tokens", "changed", "dev_loss"]
    assert shown("dev_loss", "changed") == ["dev_loss", "changed", "noise_final", "tokens"]


def test_learning_curves_are_means_over_the_seeds_that_got_there(base: str) -> None:
    def lines(*accuracies: float | None) -> list[dict[str, Any]]:
        return [{"epoch": i, "loss": 1.0, "dev_accuracy": a} for i, a in enumerate(accuracies, 1)]

    of = one(base, epochs={0: {0: lines(0.5, 0.6), 1: lines(0.7)}, 1: {0: lines(None, 0.8)}})
    curves = charts(page(of))["Dev accuracy over epochs"]["data"]
    assert [curve["name"] for curve in curves] == ["lambda = 0.5", "lambda = 0.1"]  # the best first
    assert (curves[1]["x"], curves[1]["y"]) == ([1, 2], [pytest.approx(0.6), 0.6])
    assert (curves[0]["x"], curves[0]["y"]) == ([2], [0.8])


@pytest.mark.parametrize(
    ("chosen", "space", "clean"),
    [
        ({}, {}, False),
        ({"dataset.dev": {"share": 0.1, "clean": True}}, {}, True),
        ({"dataset.dev.clean": True}, {}, True),
        ({}, {"dataset.dev.clean": {"grid": [True, False]}}, False),
    ],
)
def test_the_page_says_which_labels_dev_figures_are_of(
    base: str, chosen: dict[str, Any], space: dict[str, Any], clean: bool
) -> None:
    points: list[Any] = [{"dataset.dev.clean": each} for each in (True, False)] if space else [{LAMBDA: 0.1}]
    rows = [(point, {"dev_accuracy": PointFigure(0.7, 0.1, 3)}) for point in points]
    epochs = {0: {0: [{"epoch": 1, "dev_accuracy": 0.7}]}}
    of = results(
        base,
        space or {LAMBDA: {"grid": [0.1]}},
        rows,
        epochs=epochs,
        objectives=("dev_accuracy",),
        set=chosen,
    )
    text = words(page(of))
    assert ("which are declared clean" in text) is clean
    assert ("with the noise that these have" in text) is not clean
    assert f"Accuracy on the {'clean' if clean else 'given'} labels of the development examples" in text


def test_only_the_best_learning_curves_are_drawn(base: str) -> None:
    values = [i / 100 for i in range(15)]
    rows = [({LAMBDA: x}, {"dev_accuracy": PointFigure(x, 0.0, 3)}) for x in values]
    epochs = {i: {0: [{"epoch": 1, "dev_accuracy": x}]} for i, x in enumerate(values)}
    of = results(base, {LAMBDA: {"grid": values}}, rows, epochs=epochs, objectives=("dev_accuracy",))
    text = page(of)
    assert [curve["y"][0] for curve in charts(text)["Dev accuracy over epochs"]["data"]] == values[:2:-1]
    assert "3 further points are left out: these are the best." in words(text)


def test_timeline_has_a_bar_for_each_trial(base: str) -> None:
    of = one(base)
    assert "When trials ran" not in words(page(of))
    rows = [
        replace(row, spans={0: (10.0 * i, 20.0), 1: (10.0 * i + 5, 20.0)}) for i, row in enumerate(of.rows)
    ]
    text = page(replace(of, rows=rows))
    assert "6 trials by their beginning, 2.7 at once on average" in words(text)
    (bars,) = charts(text)["Trials over time"]["data"]
    assert bars["x"] == [20.0] * 6
    assert (bars["base"], bars["y"]) == ([0.0, 5.0, 10.0, 15.0, 20.0, 25.0], [1, 2, 3, 4, 5, 6])
    assert bars["text"][1] == "lambda = 0.1 seed = 1: 20.0 s"


def test_what_comes_from_data_is_escaped(base: str) -> None:
    values = [EVIL, {"name": EVIL, "x": "%{y} <b>"}, "a"]
    of = grid(
        base, ("dataset.text", values), (LAMBDA, [0.1, 0.5]), ("train.labels", ["given", EVIL]),
        failed={f"{EVIL} seed=1": f"ValueError: {EVIL}"}, set={"encoder.model": EVIL}, reference=0,
        epochs={0: {0: [{"epoch": 1, "dev_accuracy": 0.5}]}},
    )  # fmt: skip
    text = page(of)
    assert len(re.findall(r"<script\b", text)) == 3
    assert all("nonce=" in script for script in re.findall(r"<script\b[^>]*>", text))
    assert f"ValueError: {html.escape(EVIL)}" in text
    assert f"{html.escape(EVIL)} seed=1" in text
    assert EVIL in table_rows(text)[0]  # as text
    found = charts(text)
    assert "Dev accuracy over epochs" in found
    for chart in found.values():
        drawn = json.dumps(chart)
        assert "<script" not in drawn
        assert not set(re.findall(r"<(/?\w+)", drawn)) - {"br", "b", "/b", "extra", "/extra"}
    assert "&lt;script&gt;" in json.dumps(found["accuracy over lambda"])


def test_page_asks_no_network(base: str) -> None:
    text = page(one(base))
    assert not re.findall(r"""(?:src|href)\s*=|url\(|@import|https?:""", text)
    assert "default-src 'none'" in text
    assert "unsafe-eval" not in text


def test_failed_trials_and_nothing_else(base: str) -> None:
    of = results(base, {LAMBDA: {"grid": [0.1]}}, [], failed={"method.lambda_=0.1 seed=0": "out of memory"})
    text = words(page(of))
    assert "0 points" in text
    assert "1 trial failed" in text
    assert "out of memory" in text
    assert "No trial has finished yet" in text
    assert "failed trials: 1" in " ".join(printed(of).split())


def test_head_counts_what_stopped_and_what_is_unfinished(base: str) -> None:
    of = one(base)
    first = of.rows[0]
    of.rows[0] = Row(first.point, (0,), first.figures, False, 1)
    text = words(page(of))
    assert "seeds 0, 1, 2: 7 trials finished, 1 of them stopped early" in text
    assert "1 of 3 points did not finish under every seed" in text
    assert "1 stopped early" in text


def test_conditions_are_not_chosen_between(base: str) -> None:
    space = {RATE: {"grid": [0.2, 0.4]}, LAMBDA: {"grid": [0.1, 0.5]}}
    means = {(0.2, 0.1): 0.9, (0.4, 0.1): 0.2, (0.2, 0.5): 0.8, (0.4, 0.5): 0.7}
    rows = [({RATE: x, LAMBDA: y}, {"dev_accuracy": PointFigure(m, 0.0, 3)}) for (x, y), m in means.items()]
    of = results(base, space, rows, objectives=("dev_accuracy",))
    assert of.best is not None
    assert of.best.point == {RATE: 0.4, LAMBDA: 0.5}
    assert "Conditions (rate) are not chosen between" in words(page(of))
    assert "not chosen between" not in page(one(base))


def test_terminal_table(base: str) -> None:
    of = one(base)
    table = sweep_table(of)
    assert [str(column.header) for column in table.columns] == [
        "lambda",
        "seeds",
        "dev_accuracy",
        "accuracy",
        "tokens",
    ]
    assert [row.style for row in table.rows] == [None, "bold", None]
    text = printed(of)
    assert "0.701 ± 0.010 ▼" in text
    assert "0.813 ± 0.020 " in text
    assert "0.813 ± 0.020 ▲" not in text
    assert "3 ref" in text


def test_terminal_table_is_short_and_takes_no_markup(base: str) -> None:
    names = ["a", "b", "c", "d", "e", "noise_final", "accuracy"]
    rows = [({"dataset.text": "[red]x[/red]"}, {name: PointFigure(0.5, None, 3) for name in names})]
    of = results(base, {"dataset.text": {"grid": ["[red]x[/red]"]}}, rows)
    headers = [str(column.header) for column in sweep_table(of).columns]
    assert headers == ["text", "seeds", "noise_final", "accuracy", "a", "b", "c", "d"]
    assert "[red]x[/red]" in printed(of)


@pytest.mark.parametrize("width", [80, 120])
def test_a_wide_terminal_table_breaks_names_but_no_numbers(base: str, width: int) -> None:
    names = ["dev_accuracy", "accuracy", "accuracy_last", "noise_rate", "noise_final", "tokens"]
    figures = {name: PointFigure(0.1234, 0.0567, 3, 0.01, -0.1) for name in names}
    rows = [
        (
            {"method.name": name, "dataset.noise.rate": 0.4},
            {**figures, "tokens": PointFigure(1234567.0, 10.4, 3)},
        )
        for name in ("cross_entropy", "dividemix")
    ]
    space = {"method.name": {"grid": ["cross_entropy", "dividemix"]}, "dataset.noise.rate": {"grid": [0.4]}}
    console = Console(file=io.StringIO(), width=width)
    print_sweep_table(console, results(base, space, rows))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    text = "\n".join(lines)
    assert max(map(len, lines)) <= width
    assert "…" not in text
    words = text.split()
    assert words.count("1,234,567") == 2
    assert (words.count("0.123"), words.count("0.057")) == (10, 10)
    whole = ["cross_entropy", "accuracy_last"] if width == 120 else ["cross_", "entropy", "accuracy_", "last"]
    assert set(whole) <= set(words)


def test_fields_of_the_same_last_name_are_told_apart(base: str) -> None:
    of = grid(base, ("method.name", ["a", "b"]), ("encoder.name", ["c", "d"]))
    assert [field.name for field in swept_fields(of)] == ["method.name", "encoder.name"]
    assert "method.name" in printed(of)


def test_json_holds_every_figure(base: str) -> None:
    of = one(base, failed={"a trial": "out of memory"})
    values = json.loads(json.dumps(sweep_values(of), allow_nan=False))
    assert (values["name"], values["metrics"]) == ("s", of.metrics)
    assert values["objectives"] == [{"metric": "dev_accuracy", "mode": "max"}]
    assert values["failed"] == {"a trial": "out of memory"}
    assert [each["point"] for each in values["points"]] == [row.point for row in of.rows]
    assert [each["reference"] for each in values["points"]] == [False, False, True]
    assert [each["best"] for each in values["points"]] == [row is of.best for row in of.rows]
    for each, row in zip(values["points"], of.rows, strict=True):
        assert each["seeds"] == [*row.seeds]
        assert each["figures"] == {name: vars(figure) for name, figure in row.figures.items()}
    assert values["best_config"].endswith("/best.toml")
    assert values["report"].endswith("/report.html")
