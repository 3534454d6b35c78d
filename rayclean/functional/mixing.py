"""EmbMix: interpolation of sentence embeddings and of soft targets (SelfMix, NoiseAL's L_H, DivideMix).

B rows, K classes, D features. With c the confidence in the given label, pbar the networks' mean
probabilities, and lambda' and the partner pi(i) of every row drawn by its id:

    r_i = c_i onehot(y_i) + (1 - c_i) pbar_i             co-refined target
    g_i = r_i^(1/T) / sum                                sharpened
    h~ = lambda'_i h_i + (1 - lambda'_i) h_pi(i)         and g~ likewise
    L_H = mean CE(classify(h~), g~)

Reference: Qiao et al., SelfMix, COLING 2022, with alpha = .75 and T = .5. NoiseAL's targets are not public;
here they are SelfMix's, with the mean of the two networks. lambda' is drawn per row rather than per batch,
and from (seed, epoch, id) rather than from a generator, so that it depends neither on ranks nor on the order
of the rows.
"""

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import betaincinv
from torch import Tensor

from rayclean.functional.hashing import mix, uniform

ALPHA = 0.75
"""Parameter of the Beta distribution of lambda."""
TEMPERATURE = 0.5
"""T of sharpening."""


def sharpen(probabilities: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """p_k^(1/T) / sum_k p_k^(1/T).

    Args:
        probabilities: [B, K], rows with a positive sum.
        temperature: T > 0; 1 changes nothing, towards 0 the rows become one-hot.

    Returns:
        [B, K], rows sum to 1, argmax as before.

    Raises:
        ValueError: T is not positive.

    >>> import torch
    >>> sharpen(torch.tensor([[0.6, 0.3, 0.1]]))
    tensor([[0.7826, 0.1957, 0.0217]])
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    scaled = probabilities / probabilities.amax(-1, keepdim=True)  # so that no row underflows to all zeros
    powers = scaled ** (1 / temperature)
    return powers / powers.sum(-1, keepdim=True)


def co_refined_target(
    labels: Tensor, label_confidence: Tensor, probabilities: Tensor, temperature: float = TEMPERATURE
) -> Tensor:
    """Soft targets g = sharpen(c onehot(y) + (1 - c) pbar), detached.

    Args:
        labels: [B] int64 given labels.
        label_confidence: [B] c in [0, 1]; the mean of the networks' q for NoiseAL, the posterior for
            DivideMix.
        probabilities: [B, K] pbar.
        temperature: T.

    Returns:
        [B, K], rows sum to 1.
    """
    trust = label_confidence.detach()[:, None].to(probabilities.dtype)
    given = torch.zeros_like(probabilities).scatter_(1, labels[:, None], 1.0)
    return sharpen(trust * given + (1 - trust) * probabilities.detach(), temperature)


def mix_weights(
    ids: npt.NDArray[np.int64], seed: int, epoch: int, alpha: float = ALPHA
) -> npt.NDArray[np.float64]:
    """Shares lambda' = max(lambda, 1 - lambda), with lambda ~ Beta(alpha, alpha), per id.

    Args:
        ids: [B] example ids.
        seed: the run's seed.
        epoch: other epochs give other values.
        alpha: > 0.

    Returns:
        [B] in [0.5, 1].

    Raises:
        ValueError: alpha is not positive.
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be positive, got {alpha}")
    drawn = betaincinv(alpha, alpha, uniform(ids, seed, f"mix weight {epoch}"))
    return np.asarray(np.maximum(drawn, 1 - drawn), dtype=np.float64)


def copy_keys(ids: npt.NDArray[np.int64], copies: int) -> npt.NDArray[np.int64]:
    """Keys of the copies (views) of examples, by which they are mixed: the ids, then hashes of id and copy.

    Args:
        ids: [B] example ids.
        copies: number of rows of each, at least one.

    Returns:
        [copies x B], one copy of all examples after the other.

    >>> copy_keys(np.array([7, 8]), 2)
    array([                  7,                   8, 5032620395684262002,
           6941822196665671562])
    """
    others = [mix(ids, copy, "copy").view(np.int64) for copy in range(1, copies)]
    return np.concatenate([ids, *others])


def partners(ids: npt.NDArray[np.int64], members: Tensor, seed: int, epoch: int) -> Tensor:
    """The permutation pi of the members among themselves, by the hashes of their ids.

    It depends on which ids are members and on nothing else, so it has to be taken over the global batch. The host, which
    knows the ids, does not wait for the device, which knows the members.

    Args:
        ids: [G] ids of the global batch, or `copy_keys` of them; unique among members.
        members: [G] bool, whether each row is mixed (NoiseAL: H, or R and H); padding is no member.
        seed: the run's seed.
        epoch: other epochs give other partners.

    Returns:
        [G] int64 on the device of `members`: position of every row's partner; rows that are no members, and a single member,
        are their own.

    >>> import torch
    >>> partners(np.array([7, 8, 9]), torch.tensor([False, True, False]), seed=0, epoch=1)
    tensor([0, 1, 2])
    """
    hashes = mix(ids, seed, f"mix partner {epoch}")
    orders = np.stack([np.argsort(keys, kind="stable") for keys in (ids, hashes)])
    by_id, by_hash = torch.from_numpy(orders).to(members.device, non_blocking=True)
    # Members to the front of either order; where they end, a device would have to be asked.
    by_id, by_hash = (
        order[(~members[order]).to(torch.int8).argsort(stable=True)] for order in (by_id, by_hash)
    )
    own = torch.arange(len(ids), device=members.device)
    return torch.where(members, own.scatter(0, by_id, by_hash), own)


def interpolate(rows: Tensor, partner_rows: Tensor, weights: Tensor) -> Tensor:
    """Mixed rows lambda' x_i + (1 - lambda') x_pi(i).

    Args:
        rows: [B, ...] features or targets.
        partner_rows: [B, ...] those of the partners.
        weights: [B] lambda'.

    Returns:
        [B, ...] of the dtype of `rows`.

    >>> import torch
    >>> interpolate(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]]), torch.tensor([0.7]))
    tensor([[0.7000, 0.6000]])
    """
    shares = weights.to(rows.dtype).reshape(-1, *[1] * (rows.ndim - 1))
    return shares * rows + (1 - shares) * partner_rows


def ramp_up(progress: float, start: float, length: float) -> float:
    """Share of a weight that rises linearly: clip((progress - start) / length, 0, 1).

    Args:
        progress: epochs done, with their fraction.
        start: epochs before the rise.
        length: epochs of the rise; 0: there is none.

    >>> [ramp_up(progress, 2, 4) for progress in (1.5, 3, 9)]
    [0.0, 0.25, 1.0]
    """
    done = progress - start
    if done < 0:
        return 0.0
    return 1.0 if done >= length else done / length
