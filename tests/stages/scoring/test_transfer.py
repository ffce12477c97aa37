"""Numbers go to a device as they are, and tables come back in their order, some of them later."""

import numpy as np
import pytest
import torch

from stages.scoring.transfer import ReadBehind, on_device

CPU = torch.device("cpu")


def test_numbers_keep_their_kind_unless_another_is_asked_for():
    assert on_device(np.array([3, 5], np.int64), CPU).tolist() == [3, 5]
    assert on_device([1, 2], CPU).dtype == torch.int64 and on_device([0.5], CPU).dtype == torch.float32
    assert on_device([1, 2], CPU, torch.int32).dtype == torch.int32
    assert on_device([0.1], CPU, torch.float64).item() == 0.1


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_tables_are_read_in_order_and_so_much_later(depth):
    reader, read = ReadBehind(depth), []
    for number in range(5):
        reader.read(torch.tensor([number]), lambda table: read.append(int(table[0])))
        assert read == list(range(number + 1 - depth))
        assert reader.is_idle == (depth == 0)
    reader.finish()
    assert read == list(range(5)) and reader.is_idle


def test_an_error_of_one_reading_leaves_the_tables_behind_it():
    reader, read = ReadBehind(2), []

    def fail(_):
        raise ValueError

    reader.read(torch.tensor([0]), fail)
    reader.read(torch.tensor([1]), lambda table: read.append(int(table[0])))
    with pytest.raises(ValueError):
        reader.finish()
    assert not read
    reader.finish()
    assert read == [1]
