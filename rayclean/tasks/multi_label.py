"""Multi-label classification: a label is the set of those of K classes that apply, possibly none of them."""

from rayclean.tasks.base import Task


class MultiLabel(Task):
    """A set of classes per example. The head has one number per class: whether it applies."""

    label_form = "classes"
