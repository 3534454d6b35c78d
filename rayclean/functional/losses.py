"""Losses of logits against labels: one value per example, the caller reduces them.

Shapes: B rows, K classes. Logits in float32 or wider; everything goes through log-softmax, so that no loss or
gradient overflows. p = softmax(z), p_y the probability of the label.

| function | value | reference |
|---|---|---|
| `cross_entropy` | -sum_k g_k log p_k | |
| `reverse_cross_entropy` | -A (1 - p_y), A = log 1e-4 | Wang et al., ICCV 2019, "Symmetric Cross Entropy Learning" |
| `symmetric_cross_entropy` | alpha CE + beta RCE | the same section |
| `generalized_cross_entropy` | (1 - p_y^q) / q | Zhang & Sabuncu, NeurIPS 2018, Eq. 6 |
| `squared_error` | mean_k (p_k - g_k)^2 | Berthelot et al., "MixMatch", NeurIPS 2019, Eq. 4 |
| `negative_entropy` | sum_k p_k log p_k | Pereyra et al., ICLR workshop 2017, "confidence penalty" |
| `prior_divergence` | sum_k (1/K) log((1/K) / pbar_k) | Tanaka et al., CVPR 2018, "Joint Optimization", Eq. 5 |
| `symmetric_kl` | (KL(p, q) + KL(q, p)) / 2 | Liang et al., "R-Drop", NeurIPS 2021, Eq. 1 |

RCE, which is -A / 2 times the mean absolute error (MAE), is a symmetric loss: its sum over all labels is
constant, which makes it tolerant to uniform noise below 1 - 1/K (Ghosh et al., "Robust loss functions under
label noise", AAAI 2017). Its gradient, proportional to p_y (1 - p_y), vanishes where p_y is near 0: it cannot
mend a confident mistake and learns slowly from scratch, so it follows a warm-up with cross-entropy.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

LOG_ZERO = math.log(1e-4)
"""A: the value taken for log 0 of a one-hot label (the authors' code clamps the label at 1e-4)."""


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy: -log p_y of hard labels, -sum_k g_k log p_k of soft ones.

    Args:
        logits: [B, K].
        target: [B] int64 labels, or [B, K] probabilities of the logits' dtype.

    Returns:
        [B].

    >>> z = torch.tensor([[1.0, 2.0, 0.0]])
    >>> cross_entropy(z, torch.tensor([1]))
    tensor([0.4076])
    >>> cross_entropy(z, torch.tensor([[0.24, 0.73, 0.03]]))
    tensor([0.7076])
    """
    return F.cross_entropy(logits, target, reduction="none")


def reverse_cross_entropy(logits: Tensor, labels: Tensor, log_zero: float = LOG_ZERO) -> Tensor:
    """Reverse cross-entropy: -sum_k p_k log q_k with q the one-hot label and log 0 := A, which is -A (1 -
    p_y).

    The authors' code clamps p at 1e-7 besides; that changes the value by less than K 1e-6 and is left out.

    Args:
        logits: [B, K].
        labels: [B] int64.
        log_zero: A < 0.

    Returns:
        [B], in [0, -A].

    >>> reverse_cross_entropy(torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([0]))
    tensor([6.9563])
    """
    return log_zero * torch.expm1(log_probability(logits, labels))


def symmetric_cross_entropy(logits: Tensor, labels: Tensor, alpha: float = 0.1, beta: float = 1.0) -> Tensor:
    """Symmetric cross-entropy: the weighted sum alpha CE + beta RCE.

    Args:
        logits: [B, K].
        labels: [B] int64.
        alpha: weight of CE; 0.1 is the paper's for CIFAR-10 (6 for CIFAR-100).
        beta: weight of RCE; 1 is the paper's for CIFAR-10 (0.1 for CIFAR-100).

    Returns:
        [B], >= 0.
    """
    return alpha * cross_entropy(logits, labels) + beta * reverse_cross_entropy(logits, labels)


def generalized_cross_entropy(logits: Tensor, labels: Tensor, q: float = 0.7) -> Tensor:
    """Generalized cross-entropy: (1 - p_y^q) / q, which is half the MAE at q = 1 and CE in the limit q -> 0.

    Args:
        logits: [B, K].
        labels: [B] int64.
        q: in (0, 1]; 0.7 is the paper's.

    Returns:
        [B], in [0, 1/q].

    Raises:
        ValueError: q is outside (0, 1].

    >>> generalized_cross_entropy(torch.tensor([[0.0, 0.0]]), torch.tensor([0]))  # p_y = .5
    tensor([0.5492])
    """
    if not 0 < q <= 1:
        raise ValueError(f"q must be in (0, 1], got {q}")
    return -torch.expm1(q * log_probability(logits, labels)) / q


def squared_error(logits: Tensor, target: Tensor) -> Tensor:
    """Brier score of soft targets, a mean over classes: bounded, so a wrong target pulls less than by CE.

    Args:
        logits: [B, K].
        target: [B, K] probabilities g.

    Returns:
        [B], in [0, 2 / K].

    >>> squared_error(torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[0.24, 0.73, 0.03]]))
    tensor([0.0026])
    """
    return (logits.softmax(-1) - target).square().mean(-1)


def negative_entropy(logits: Tensor) -> Tensor:
    """Minus the entropy: added to a loss, it keeps predictions from becoming sure of noisy labels.

    Args:
        logits: [B, K].

    Returns:
        [B], in [-log K, 0].

    >>> negative_entropy(torch.tensor([[1.0, 2.0, 0.0]]))
    tensor([-0.8324])
    """
    log_p = logits.log_softmax(-1)
    return (log_p.exp() * log_p).sum(-1)


def prior_divergence(mean_probabilities: Tensor) -> Tensor:
    """KL divergence of a batch's mean prediction from the uniform distribution: it keeps a network from
    putting everything in one class.

    Args:
        mean_probabilities: [..., K] pbar.

    Returns:
        [...], >= 0; finite also where a class has no probability at all.

    >>> prior_divergence(torch.tensor([1.0, 2.0, 0.0]).softmax(-1))
    tensor(0.3090)
    """
    classes = mean_probabilities.shape[-1]
    smallest = torch.finfo(mean_probabilities.dtype).tiny
    return -(classes * mean_probabilities.clamp(min=smallest)).log().mean(-1)


def symmetric_kl(logits: Tensor, others: Tensor) -> Tensor:
    """Symmetric KL divergence of two passes over the same rows.

    (KL(p, q) + KL(q, p)) / 2 = 1/2 sum_k (p_k - q_k) (log p_k - log q_k)

    The factor 1/2 is R-Drop's and that of SelfMix's code, which NoiseAL builds on.

    Args:
        logits: [B, K] logits of p.
        others: [B, K] logits of q.

    Returns:
        [B], >= 0; 0 where the passes agree.
    """
    p, q = logits.log_softmax(-1), others.log_softmax(-1)
    return 0.5 * ((p.exp() - q.exp()) * (p - q)).sum(-1)


def log_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """The log-probability of the label, log p_y [B], of logits [B, K] and labels [B] int64.

    >>> log_probability(torch.tensor([[0.0, 0.0]]), torch.tensor([1])).exp()
    tensor([0.5000])
    """
    return logits.log_softmax(-1).gather(-1, labels[:, None])[:, 0]
