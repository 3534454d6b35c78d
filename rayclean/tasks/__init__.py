"""What a label is: one file per task, each with a subclass of `base.Task`, and a line here."""

from typing import TYPE_CHECKING

from rayclean.plugins import Family

if TYPE_CHECKING:
    from rayclean.tasks.base import Task

TASKS: "Family[Task]" = Family(
    "task",
    {
        "classification": "rayclean.tasks.classification:Classification",
        "multi_label": "rayclean.tasks.multi_label:MultiLabel",
        "tagging": "rayclean.tasks.tagging:Tagging",
    },
)
