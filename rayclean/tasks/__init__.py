"""What a label, a disagreement and two candidates are. Add a task: a file with a subclass of `Task`, a line here."""

TASKS: dict[str, str] = {"classification": "rayclean.tasks.classification:Classification"}
