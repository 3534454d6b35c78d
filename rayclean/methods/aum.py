"""AUM: Pleiss, Zhang, Elenberg, Weinberger, "Identifying Mislabeled Data using the Area Under the Margin
Ranking", NeurIPS 2020.

While a network trains, a right label is pulled by the others of its class, a wrong one against them: the margin of the
label over its strongest rival, averaged over the epochs, is low for wrong labels. How low is too low is learnt from
*threshold samples*, which get a class of their own that does not exist. Two trainings with other threshold samples
judge every example at least once; what both find too low is removed, and a third starts from scratch on the rest.

| paper | here |
|---|---|
| M(x, y) (equation 1) | `functional.margins.margin` |
| AUM | columns `margin_sum_*` / `visits_*`, of each run |
| D_THR, class c + 1 | column `threshold_run` (1, 2; 0 = none); class K |
| alpha, the 99th percentile | `config.percentile`, `functional.area_under_margin.below_threshold` |
| stopped before the learning rate drops | stages `margins_1`, `margins_2` of a constant rate, `config.margin_epochs` |

Differences from the paper:
* Threshold samples are N / (K + 1), as the paper writes; its code draws N / K.
* An example is removed if more than 1 % of the threshold samples have a greater AUM, the rule of the code.
* 3 epochs per run (`margin_epochs`) at the peak learning rate of AdamW, batches as configured: fine-tuning takes no more.
  The paper trains images by SGD for half of its epochs, in batches of 64.
* `fixed_threshold`, as the LANE paper describes its baseline: one run without threshold samples, K outputs.
* A class that would be removed whole keeps the tenth of highest AUM.
"""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from rayclean.functional import area_under_margin, losses
from rayclean.functional.margins import averages, margin, update_average
from rayclean.measures import EpochFigure, Measures, SubsetColumn
from rayclean.methods.base import Method, Stage, State
from rayclean.methods.batch import Output, StepBatch
from rayclean.plugins import Options

logger = logging.getLogger(__name__)

MUCH_REMOVED = 0.6
"""Share of removed examples above which the threshold, rather than the labels, is likely wrong."""


class AUM(Method):
    """Margins of two trainings, removal below the threshold samples, training on the rest."""

    class Config(Options):
        """Options beside `name`."""

        margin_epochs: int = Field(3, ge=1)
        """Epochs of each run that collects margins."""
        percentile: float = Field(99, gt=0, lt=100)
        """Percentile of the threshold samples' AUM up to which labels count as wrong (section 4.2: 99)."""
        fixed_threshold: float | None = None
        """An AUM below this counts as a wrong label's, without threshold samples; None: it is learnt."""

    config: Config
    observes_late = True

    def __init__(self, config: Any, num_classes: int, seed: int = 0):
        super().__init__(config, num_classes, seed)
        self.runs = {"margins_1": 1, "margins_2": 2} if config.fixed_threshold is None else {"margins_1": 1}
        """Number of the run that each of the first stages is."""

    def stages(self) -> tuple[Stage, ...]:
        """The runs that collect margins, with an output for the class K, and the training on the rest."""
        outputs = self.num_classes + 1 if self.config.fixed_threshold is None else None
        collecting = [
            Stage(name, self.config.margin_epochs, outputs, constant_rate=True) for name in self.runs
        ]
        return (*collecting, Stage("train"))

    def state(self) -> dict[str, tuple[str, float]]:
        """26 bytes per example."""
        columns: dict[str, tuple[str, float]] = {"threshold_run": ("int8", 0), "used": ("int8", 1)}
        for run in self.runs.values():
            columns |= {f"margin_sum_{run}": ("float64", 0.0), f"visits_{run}": ("uint32", 0)}
        return columns

    def kept(self, state: State, stage: str) -> npt.NDArray[np.bool_] | None:
        """All examples while margins are collected, then those that no threshold removes."""
        if stage in self.runs:
            if self.config.fixed_threshold is None:
                state["threshold_run"][:] = area_under_margin.threshold_runs(
                    state["example_id"], self.num_classes, len(self.runs), self.seed
                )
            return None
        removed = area_under_margin.spare_every_class(
            state["given_label"], self._too_low(state), self.quality(state)
        )
        if removed.mean() > MUCH_REMOVED:
            logger.warning(
                "AUM: %.0f %% of the examples are removed; lower percentile, or raise margin_epochs so that "
                "right labels are learnt",
                100 * removed.mean(),
            )
        state["used"][:] = ~removed
        return ~removed

    def _too_low(self, state: State) -> npt.NDArray[np.bool_]:
        """[N] whether every run in which an example had its own label found its AUM too low."""
        if self.config.fixed_threshold is not None:
            return np.asarray(self._aum(state, 1) < self.config.fixed_threshold)
        if not state["threshold_run"].any():
            logger.warning(
                "AUM: fewer examples than classes, so there are no threshold samples; none is removed"
            )
        low = np.ones(len(state["threshold_run"]), dtype=np.bool_)
        for run in self.runs.values():
            samples = state["threshold_run"] == run
            low &= samples | area_under_margin.below_threshold(
                self._aum(state, run), samples, self.config.percentile
            )
        return low

    def _aum(self, state: State, run: int) -> npt.NDArray[np.float64]:
        return averages(state[f"margin_sum_{run}"], state[f"visits_{run}"])

    def seen(
        self, outputs: dict[str, Output], batch: StepBatch, rows: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Margins of the labels trained on, of the run's name; nothing in the last stage."""
        if batch.stage not in self.runs:
            return {}
        margins, _ = margin(outputs["main"].logits.detach(), self._labels(batch, rows))
        return {str(self.runs[batch.stage]): margins.double()}

    def observe(
        self, state: State, rows: npt.NDArray[np.int64], seen: dict[str, npt.NDArray[Any]], epoch: int
    ) -> None:
        """Add the margins to the sums of their run."""
        for run, margins in seen.items():
            update_average(state[f"margin_sum_{run}"], state[f"visits_{run}"], rows, margins)

    def loss(
        self, outputs: dict[str, Output], batch: StepBatch, rows: Mapping[str, Tensor], epoch: int
    ) -> dict[str, Tensor]:
        """Cross-entropy; the label of the run's threshold samples is K."""
        values = losses.cross_entropy(outputs["main"].logits, self._labels(batch, rows))
        return {"cross_entropy": batch.mean(values)}

    def _labels(self, batch: StepBatch, rows: Mapping[str, Tensor]) -> Tensor:
        if batch.stage not in self.runs:
            return batch.given_label
        is_sample = rows["threshold_run"] == self.runs[batch.stage]
        return torch.where(is_sample, self.num_classes, batch.given_label)

    def summary(self, state: State) -> dict[str, float]:
        """The percentile of each run's threshold samples so far; 0 where there are none."""
        figures = {}
        for run in self.runs.values() if self.config.fixed_threshold is None else ():
            samples = self._aum(state, run)[state["threshold_run"] == run]
            figures[f"threshold_{run}"] = float(
                np.percentile(samples if len(samples) else 0.0, self.config.percentile)
            )
        return figures

    def measures(self) -> Measures:
        """What is kept and what is removed, and the thresholds."""
        figures = {
            f"threshold_{run}": EpochFigure(title=f"threshold of run {run}", format="decimals")
            for run in (self.runs.values() if self.config.fixed_threshold is None else ())
        }
        return Measures(
            subsets=SubsetColumn(column="used", values={"used": 1, "removed": 0}), figures=figures
        )

    def quality(self, state: State) -> npt.NDArray[np.float64]:
        """AUM over the runs in which an example had its own label."""
        own = [(run, state["threshold_run"] != run) for run in self.runs.values()]
        total = sum(np.where(is_own, state[f"margin_sum_{run}"], 0.0) for run, is_own in own)
        return averages(
            np.asarray(total), np.asarray(sum(state[f"visits_{run}"] * is_own for run, is_own in own))
        )
