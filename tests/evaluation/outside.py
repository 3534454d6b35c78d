"""A method as another package would bring it: nothing of rayclean names it or its columns."""

import numpy as np
from torch import Tensor

from rayclean.measures import EpochFigure, Histogram, Measures, SubsetColumn
from rayclean.methods.base import Method, State
from rayclean.methods.batch import Output, StepBatch


class Halves(Method):
    """Cross-entropy; after the first epoch the examples are halved by the probability of their labels."""

    def state(self) -> dict[str, tuple[str, float]]:
        return super().state() | {"belief": ("float32", 0.0), "side": ("int8", -1)}

    def seen(
        self, outputs: dict[str, Output], batch: StepBatch, rows: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        p = outputs["main"].logits.detach().softmax(-1)
        belief = p.gather(1, batch.given_label[:, None])[:, 0]
        return super().seen(outputs, batch, rows) | {"belief": belief}

    def partition(self, state: State, epoch: int, turn: int = 0) -> None:
        if epoch > 1:
            state["side"][:] = state["belief"] < np.median(state["belief"])

    def summary(self, state: State) -> dict[str, float]:
        return {"mean_belief": float(state["belief"].mean()), "hidden": 1.0}

    def measures(self) -> Measures:
        belief = Histogram(
            title="Belief <b>", means="Wrong ones on the left.", axis="probability <i>", columns=("belief",)
        )
        return Measures(
            histograms={"belief": belief},
            subsets=SubsetColumn(column="side", values={"well_believed": 0, "doubted": 1}),
            figures={
                "mean_belief": EpochFigure(title="mean belief", format="percent", line=True),
                "hidden": EpochFigure(title="hidden", table=False),
            },
        )


class Careless(Halves):
    """Declares columns that it does not keep."""

    def state(self) -> dict[str, tuple[str, float]]:
        return Method.state(self)
