"""The gradient of a step is the same, however many processes share it, each with all of the model or with a part."""

import pytest
import torch
from safetensors.torch import load_file

from stages.processes import ALONE
from tests.families import relative_difference
from tests.processes import CASES, step_of
from tests.torchrun import finish, start


@pytest.fixture(scope="module")
def of_several(tmp_path_factory, commands):
    """What two and four processes found, by their number."""
    found = {}
    for n in (2, 4):
        file = tmp_path_factory.mktemp("gradients") / "found.safetensors"
        code, _, err = finish(start(commands, n, "gradients", str(file)))
        assert code == 0, err
        found[n] = load_file(file)
    return found


@pytest.mark.parametrize("sharded", [False, True], ids=["ddp", "fsdp"])
@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_those_of_one_process(of_several, case, sharded):
    result, gradients = step_of(case, ALONE, sharded=False)
    for n, found in of_several.items():
        own = {
            name.rpartition("/")[2]: tensor for name, tensor in found.items() if name.startswith(f"{sharded}/{case}/")
        }
        losses = own.pop("losses")
        coarse = case == "bfloat16"  # a batch's gradient is rounded, and batches are other ones
        assert torch.allclose(losses, torch.tensor(result.losses, dtype=torch.float64), atol=1e-2 if coarse else 1e-6)
        assert own.keys() == gradients.keys()
        whole, ours = (torch.cat([g[name].flatten() for name in sorted(own)]) for g in (gradients, own))
        assert relative_difference(ours, whole) < (1e-2 if coarse else 1e-5), n
