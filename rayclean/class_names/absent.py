"""Values that people write where there is no label."""

NO_LABELS = frozenset(
    ["n/a", "#n/a", "nan", "null", "-", "--", "?", "tbd", "todo", "unlabeled", "unlabelled", "no label", "not labeled",
     "not labelled", "missing", "not annotated", "to do"]
)  # fmt: skip
"""Values, in lower case, that mean no label in nearly every data set."""
PERHAPS_NO_LABELS = frozenset(
    ["unknown", "none", "na", "undefined", "unsure", "skip", "other/unknown", "not sure", "unclear"]
)
"""Values, in lower case, that mean no label in some data sets and are a class in others."""
