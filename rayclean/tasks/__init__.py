"""What a label, a disagreement and two candidates are. Add a task: a file with a subclass of `Task`, a line here."""

from typing import TYPE_CHECKING

from rayclean.plugins import Family

if TYPE_CHECKING:
    from rayclean.tasks.base import Task

TASKS: "Family[Task]" = Family(
    "task",
    {
        "classification": "rayclean.tasks.classification:Classification",
    },
)
