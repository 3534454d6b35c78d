"""Cross-entropy on the given labels: the baseline (BASE) that every robust method is compared with.

| paper | here |
|---|---|
| cross-entropy -log p[y] | term `cross_entropy` of `methods.base.Method` |

Differences from the paper: none, it is textbook material. Where several classes may apply it is the binary one,
averaged over the classes; where every token has a tag, the mean over the tokens. The quality is minus the loss of
the last epoch.
"""

from rayclean.methods.base import Method


class CrossEntropy(Method):
    """What the seam does by itself, on labels of every form."""

    label_forms = ("class", "classes", "tags")
    observes_late = True
