"""What a label is: one file per task, each with a subclass of `base.Task`, and a line here."""

TASKS: dict[str, str] = {"classification": "rayclean.tasks.classification:Classification"}
