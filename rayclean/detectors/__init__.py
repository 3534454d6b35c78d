"""Detectors of doubtful labels. To add one, write a subclass of `Detector` in a new file and name it here."""

from typing import TYPE_CHECKING

from rayclean.plugins import Family

if TYPE_CHECKING:
    from rayclean.detectors.base import Detector

DETECTORS: "Family[Detector]" = Family(
    "detector",
    {
        "posterior": "rayclean.detectors.posterior:Posterior",
        "confident_learning": "rayclean.detectors.confident_learning:ConfidentLearning",
        "self_confidence": "rayclean.detectors.pointwise:SelfConfidence",
        "normalized_margin": "rayclean.detectors.pointwise:NormalizedMargin",
        "disagreement": "rayclean.detectors.pointwise:Disagreement",
        "dynamics": "rayclean.detectors.training_dynamics:TrainingDynamics",
        "knn_vote": "rayclean.detectors.knn_vote:KnnVote",
        "conflicting_copies": "rayclean.detectors.conflicting_copies:ConflictingCopies",
    },
)
