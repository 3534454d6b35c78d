"""Sequence tagging: a label is a tag for each token, which mark spans of C entity classes.

The tags are those of the scheme BIO (Ramshaw & Marcus, "Text Chunking using Transformation-Based Learning", 1995, in the
form of CoNLL-2002): 0 = O, outside of all spans; 1 + 2 c = B-, the first token of a span of entity class c; 2 + 2 c = I-,
a further token of it.
"""

from rayclean.tasks.base import Task


class Tagging(Task):
    """A tag per token. The labels are the entity classes; the head has one number per tag."""

    label_form = "tags"
    per_token = True

    @property
    def outputs(self) -> int:
        """1 + 2 C: O, and B- and I- of each entity class."""
        return 1 + 2 * len(self.labels)
