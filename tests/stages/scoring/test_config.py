"""Which stacks should score alike."""

import pytest

from stages.scoring.config import same_stack

CPU = {"device": "cpu AVX2", "torch": "2.13", "backend": "segments", "pack_tokens": "2048"}
CUDA = CPU | {"device": "NVIDIA H200", "backend": "varlen"}


def test_the_length_of_packs_counts_on_a_gpu_alone():
    assert same_stack(CPU, CPU | {"pack_tokens": "512"})
    assert same_stack(CUDA, CUDA)
    assert not same_stack(CUDA, CUDA | {"pack_tokens": "512"})


@pytest.mark.parametrize(
    "change", [{"torch": "2.12"}, {"device": "cpu AVX512"}, {"backend": "rows"}, {"reused": "some"}]
)
def test_anything_else_counts(change):
    assert not same_stack(CPU, CPU | change) and not same_stack(CPU | change, CPU)
