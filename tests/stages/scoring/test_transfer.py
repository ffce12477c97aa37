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


@pytest.mark.parametrize("behind", [False, True])
def test_tables_are_read_in_order_at_once_or_one_later(behind):
    reader, read = ReadBehind(behind=behind), []
    for number in range(5):
        reader.read(torch.tensor([number]), lambda table: read.append(int(table[0])))
        assert read == list(range(number + 1 - behind))
        assert reader.is_idle == (not behind)
    reader.finish()
    assert read == list(range(5)) and reader.is_idle


def test_an_error_of_one_reading_leaves_the_table_behind_it():
    reader, read = ReadBehind(behind=True), []

    def fail(_):
        raise ValueError

    reader.read(torch.tensor([0]), fail)
    with pytest.raises(ValueError):
        reader.read(torch.tensor([1]), lambda table: read.append(int(table[0])))
    assert not read
    reader.finish()
    assert read == [1]
