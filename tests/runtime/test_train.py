"""The loop on Ray Train: the same results, through lost workers; errors come out as they went in."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayclean.artifacts import Folder
from rayclean.config import ClusterConfig, Plugin, TrainingConfig
from rayclean.errors import RaycleanError
from rayclean.runtime.train import fit_jobs
from rayclean.training.job import FitJob, FitSpec, Selection
from rayclean.training.loop import fit
from tests.training.toys import ACCUMULATING, NAN, SELF_KILLING, TOY, job, spec, write_examples

ONE = ClusterConfig(workers=1)
TWO = ClusterConfig(workers=2)


def dynamics(one: FitJob) -> Any:
    return Folder(one.output).read_table("dynamics", "part-00000.parquet").to_pandas()


def test_jobs_share_a_group_and_are_done_once(tmp_path: Path, ray_embedded: None) -> None:
    examples = write_examples(tmp_path / "examples", 60)
    jobs = [
        job(examples, tmp_path / f"{f}", name=f"fold {f}", select=Selection("fold", f, 2)) for f in range(2)
    ]
    lines: list[Any] = []
    results = fit_jobs(jobs, spec(epochs=2), ONE, str(tmp_path / "work"), lines.append)
    assert [(line["job"], line["epoch"]) for line in lines] == [
        ("fold 0", 1),
        ("fold 0", 2),
        ("fold 1", 1),
        ("fold 1", 2),
    ]
    assert not list((tmp_path / "work").iterdir())
    here = fit(
        job(examples, tmp_path / "here", name="fold 1", select=Selection("fold", 1, 2)), spec(epochs=2)
    )
    assert results["fold 1"].loss == pytest.approx(here.loss, abs=1e-6)

    start = time.monotonic()
    assert fit_jobs(jobs, spec(epochs=2), ONE, str(tmp_path / "work"), lines.append) == results
    assert time.monotonic() - start < 1  # nothing was started
    assert len(lines) == 4

    # Ray Train resumes a run of the same name whatever its hyper-parameters; here they are part of every name.
    other = fit_jobs(jobs[:1], spec(epochs=2, learning_rate=0.5), ONE, str(tmp_path / "work"), lines.append)
    assert [line["epoch"] for line in lines[4:]] == [1, 2]
    assert other["fold 0"].loss != results["fold 0"].loss


def test_a_killed_worker_changes_nothing(tmp_path: Path, ray_embedded: None) -> None:
    examples = write_examples(tmp_path / "examples", 37, dev=10)
    marker = tmp_path / "marker"
    lines: list[Any] = []

    def how(method: str, **options: Any) -> FitSpec:
        training = TrainingConfig(batch_size=8, epochs=4)
        return FitSpec(Plugin(name=TOY), Plugin(name=method, **options), training, ("a", "b", "c"))

    killed, calm = job(examples, tmp_path / "killed"), job(examples, tmp_path / "calm")
    results = fit_jobs(
        [killed], how(SELF_KILLING, marker=str(marker)), TWO, str(tmp_path / "work"), lines.append
    )
    assert marker.exists()
    assert [line["epoch"] for line in lines].count(1) == 1  # it went on, it did not begin again
    assert results["toy"].workers == 2
    alone = fit(calm, how(ACCUMULATING))
    assert results["toy"].loss == pytest.approx(alone.loss, abs=1e-6)
    assert results["toy"].best_epoch == alone.best_epoch
    left, right = dynamics(killed), dynamics(calm)
    assert (left["visits"] == 4).all()
    for column in left:
        np.testing.assert_allclose(left[column], right[column], rtol=0, atol=1e-5, err_msg=column)


def test_an_error_of_a_worker_comes_out_as_it_was(tmp_path: Path, ray_embedded: None) -> None:
    examples = write_examples(tmp_path / "examples", 20)
    with pytest.raises(RaycleanError, match="epoch 1, step 1") as caught:
        fit_jobs([job(examples, tmp_path / "out")], spec(encoder=NAN), ONE, str(tmp_path / "work"))
    assert type(caught.value) is RaycleanError


@pytest.mark.slow
def test_an_error_on_two_workers_ends_the_run(tmp_path: Path, ray_embedded: None) -> None:
    examples = write_examples(tmp_path / "examples", 20)
    with pytest.raises(RaycleanError, match="epoch 1, step 1"):
        fit_jobs([job(examples, tmp_path / "out")], spec(encoder=NAN), TWO, str(tmp_path / "work"))
