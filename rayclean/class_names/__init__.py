"""The value that names a class: when two values of label columns, options or answers mean the same class.

People, spreadsheets and exports write one class in many ways. There are three degrees of sameness, and this package is the only
place that knows them:

* `spelling` is how a name is shown: in the Unicode form NFC, without invisible characters, with single blanks inside and none
  outside. Two values of one spelling are the same class.
* `class_key` is what values are compared by: the spelling, in which 1, 1.0, "1" and "1.0" are one number, and True, "True",
  "true" and "TRUE" one boolean. "007" and "1.5" are names.
* `near_keys` are shared by names that differ only by case, accents, punctuation or letters that look alike. Such names may well
  be two classes ("US" and "us"), so they are made one on request only.

`ClassNames` looks values up in a label set.
"""

from rayclean.class_names.absent import NO_LABELS, PERHAPS_NO_LABELS
from rayclean.class_names.lookup import ClassNames
from rayclean.class_names.near import difference, is_misspelling, near_groups, near_keys
from rayclean.class_names.spelling import class_key, is_number, is_numeric, spelling, visible

__all__ = [
    "NO_LABELS",
    "PERHAPS_NO_LABELS",
    "ClassNames",
    "class_key",
    "difference",
    "is_misspelling",
    "is_number",
    "is_numeric",
    "near_groups",
    "near_keys",
    "spelling",
    "visible",
]
