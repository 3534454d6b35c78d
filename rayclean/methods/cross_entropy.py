"""Cross-entropy on the given labels: the baseline (BASE) that every robust method is compared with.

| paper | here |
|---|---|
| cross-entropy -log p[y] | term `cross_entropy` of `methods.base.Method` |

Differences from the paper: none, it is textbook material. The quality is minus the loss of the last epoch.
"""

from rayclean.methods.base import Method


class CrossEntropy(Method):
    """Nothing is overridden: this is what the seam does by itself."""
