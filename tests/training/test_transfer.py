"""What goes over to a device and comes back, in one piece each."""

import numpy as np
import pytest
import torch

from rayclean.models.base import Inputs
from rayclean.training.batches import OutgoingInputs
from rayclean.training.transfer import Incoming, Outgoing, Packed

TENSORS = [
    torch.arange(6).reshape(2, 3),
    torch.tensor([True, False, True]),
    torch.tensor(0.5, dtype=torch.float64),
    torch.zeros(0, 4),
    torch.arange(5, dtype=torch.float16)[::2],
    torch.randn(3, 7).T,
    torch.tensor([-7], dtype=torch.int8),
]


def test_packed_tensors_are_the_same() -> None:
    packed = Packed.of(TENSORS, pinned=False)
    for found in (packed.tensors(), packed.on(torch.device("cpu"))):
        for tensor, value in zip(TENSORS, found, strict=True):
            assert value.dtype == tensor.dtype
            assert torch.equal(value, tensor)
    starts = {value.data_ptr() for value in packed.tensors()}
    assert {start % 8 for start in starts} == {0}  # of every dtype the place that it needs
    assert packed.buffer.nbytes < 2 * sum(tensor.nbytes for tensor in TENSORS) + 16 * len(TENSORS)


def test_on_a_cpu_nothing_is_copied() -> None:
    found = Outgoing(TENSORS, torch.device("cpu")).arrived()
    assert all(value is tensor for value, tensor in zip(found, TENSORS, strict=True))
    value = torch.ones(3, requires_grad=True)
    (seen,) = Incoming({"seen": value}).numpy().values()
    assert seen.ctypes.data == value.data_ptr()


def test_inputs_that_networks_share_go_once() -> None:
    shared = Inputs({"input_ids": torch.arange(3)}, np.array([1, 1, 1]))
    own = Inputs({"features": torch.ones(3, 2)})
    outgoing = OutgoingInputs({"a": shared, "b": own, "c": shared}, [torch.tensor([5])], torch.device("cpu"))
    found, (other,) = outgoing.arrived()
    assert list(found) == ["a", "b", "c"]
    assert found["a"] is found["c"]
    assert found["a"].lengths is shared.lengths
    assert found["b"].lengths is None
    assert (found["a"]["input_ids"] == torch.arange(3)).all()
    assert other.item() == 5


@pytest.mark.gpu
def test_a_gpu_gets_and_gives_the_same() -> None:
    device = torch.device("cuda")
    arrived = Outgoing(TENSORS, device).arrived()
    assert all(value.is_cuda for value in arrived)
    names = [str(number) for number in range(len(TENSORS))]
    found = Incoming(dict(zip(names, arrived, strict=True))).numpy()
    for tensor, value in zip(TENSORS, found.values(), strict=True):
        np.testing.assert_array_equal(value, tensor.numpy())
