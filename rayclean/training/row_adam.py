"""AdamW for a table of which a step reads few rows, in time proportional to these rows.

A step of AdamW writes the whole table: a row without a gradient moves on by its momentum, and decays. That movement is
a function of the row's moments and of the learning rates since it was last read, so it is made up for when the row is
read again. The result is that of AdamW (Loshchilov, Hutter, "Decoupled weight decay regularization", ICLR 2019) but for
rounding: unlike "sparse" or "lazy" variants, which leave such rows where they are.

    optimizer = RowAdamW(table, steps=1000, weight_decay=0.01)
    leaf = optimizer.take(rows)      # compute a loss with it, call backward
    optimizer.step(rate)
    table = optimizer.whole()

After step t0, in which a row got a gradient and has the moments m and v, step t moves it by
rate_t c_t (b1 / sqrt(b2))^(t - t0) m / sqrt(v), with c_t = sqrt(1 - b2^t) / (1 - b1^t). The sum of all factors of
m / sqrt(v), decay included, is the same for all rows last read at t0: `shift[t0]`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class RowAdamW:
    """The table, its moments, and how far each row is.

    Args:
        table: [V, D] initial values, which are copied.
        steps: greatest number of steps.
        weight_decay: decoupled weight decay.
    """

    def __init__(self, table: Tensor, steps: int, weight_decay: float):
        self.values = table.detach().clone()
        self.mean, self.square = torch.zeros_like(self.values), torch.zeros_like(self.values)
        self.weight_decay = weight_decay
        self.done = 0
        """Steps so far."""
        self.last = torch.zeros(len(table), dtype=torch.int64)
        """[V] step in which a row was last read."""
        past = torch.arange(steps + 1, dtype=torch.float64)
        self.powers = (BETAS[0] / BETAS[1] ** 0.5) ** past
        self.shift, self.shrink = torch.zeros_like(past), torch.ones_like(past)
        """[steps + 1] what a row last read in step t0 has moved by since, and its decay."""
        self.taken: tuple[Tensor, nn.Parameter, Tensor, Tensor] | None = None

    def take(self, rows: Tensor) -> nn.Parameter:
        """Values [R, D] of some rows (numbers [R], each once) as of the last step, as a leaf of a graph."""
        values, mean, square = self._current(rows)
        leaf = nn.Parameter(values)
        self.taken = rows, leaf, mean, square
        return leaf

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Apply the gradient of the rows that were taken last, at a learning rate."""
        assert self.taken is not None
        rows, leaf, mean, square = self.taken
        assert leaf.grad is not None
        self.done += 1
        count = torch.tensor(float(self.done))
        torch._fused_adamw_(
            [leaf], [leaf.grad], [mean], [square], [], [count], amsgrad=False, lr=rate, beta1=BETAS[0],
            beta2=BETAS[1], weight_decay=self.weight_decay, eps=EPSILON, maximize=False,
        )  # fmt: skip
        for table, part in ((self.values, leaf), (self.mean, mean), (self.square, square)):
            table.numpy()[rows.numpy()] = (
                part.numpy()
            )  # copies whole rows, in two thirds of `index_copy_`'s time
        self.last[rows] = self.done
        decay = 1 - rate * self.weight_decay
        correction = (1 - BETAS[1] ** self.done) ** 0.5 / (1 - BETAS[0] ** self.done)
        before = slice(0, self.done)
        self.shift[before].mul_(decay).add_(self.powers[1 : self.done + 1].flip(0), alpha=rate * correction)
        self.shrink[before].mul_(decay)
        self.taken = None

    def whole(self) -> Tensor:
        """A copy of the table [V, D] as of the last step; rows that were never read keep their values."""
        rows = self.last.nonzero().squeeze(1)
        return self.values.index_copy(0, rows, self._current(rows)[0])

    def _current(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values and moments [R, D] of some rows as of the last step."""
        last = self.last[rows]
        values, mean, square = (F.embedding(rows, each) for each in (self.values, self.mean, self.square))

        def column(factors: Tensor) -> Tensor:
            return factors.to(values.dtype).unsqueeze(1)

        idle = (self.done - last).double()
        moved = square.add(EPSILON**2).rsqrt_().mul_(mean).mul_(column(self.shift[last]))
        values.mul_(column(self.shrink[last])).sub_(moved)
        return values, mean.mul_(column(BETAS[0] ** idle)), square.mul_(column(BETAS[1] ** idle))
