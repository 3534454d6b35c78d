"""LANE by the letter of the paper, where `lane.py` reads it otherwise; see there."""

from typing import Literal

from pydantic import Field

from rayclean.methods.lane import Lane


class LaneLiteral(Lane):
    """The paper by the letter: batch scope, sums, temperature 1, no unit length, hardly a clamp, seven views.

    The seventh view, back-translation, is stood in for by leaving out words; name a function of yours instead
    (`views = [..., "package.module:function"]`) to have it.
    """

    class Config(Lane.Config):
        """Options beside `name`."""

        views: tuple[str, ...] | None = ("synonyms",) * 3 + ("switch_out",) * 3 + ("drop",)
        scope: Literal["global", "batch"] = "batch"
        w_min: float = Field(1e-12, gt=0, le=1)
        tau: float = Field(1.0, gt=0)
        normalize: bool = False
        reduction: Literal["mean", "sum"] = "sum"
