"""How to train in spite of label noise. Add a method: a file with a subclass of `Method`. A config names it as
`package.module:Class`; a line here, or an entry point of its package, gives it a short name.
"""

from typing import TYPE_CHECKING

from rayclean.plugins import Family

if TYPE_CHECKING:
    from rayclean.methods.base import Method

METHODS: "Family[Method]" = Family(
    "method",
    {
        "aum": "rayclean.methods.aum:AUM",
        "cross_entropy": "rayclean.methods.cross_entropy:CrossEntropy",
        "dividemix": "rayclean.methods.dividemix:DivideMix",
        "generalized_cross_entropy": "rayclean.methods.generalized_cross_entropy:GeneralizedCrossEntropy",
        "lane": "rayclean.methods.lane:Lane",
        "lane_literal": "rayclean.methods.lane_literal:LaneLiteral",
        "noiseal": "rayclean.methods.noiseal_ablations:NoiseALWithAblations",
        "reverse_cross_entropy": "rayclean.methods.reverse_cross_entropy:ReverseCrossEntropy",
        "symmetric_cross_entropy": "rayclean.methods.symmetric_cross_entropy:SymmetricCrossEntropy",
    },
)
