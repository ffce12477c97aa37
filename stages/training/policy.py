"""The model in training: loaded with what is to be trained, saved as what was trained."""

import logging
from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import PreTrainedModel

from data.errors import ConfigError, one_line
from data.schema import Response
from stages.adapter_files import base_of, is_adapter
from stages.scoring.adapter import import_peft, inject, is_adapted, save_adapter
from stages.scoring.config import Numerics
from stages.scoring.model import load_model
from stages.scoring.scorer import Scorer, scorer_of
from stages.training.config import TrainConfig
from stages.training.lora import LoraSettings

logger = logging.getLogger(__name__)


def load_policy(folder: Path, numerics: Numerics, responses: Iterable[Response], config: TrainConfig) -> Scorer:
    """A scorer for the model in `folder`; what requires gradients of it is what is to be trained.

    Raises:
        ConfigError, EnvironmentProblem: the model cannot be loaded, or not be scored or trained so.
        DataError: a token is beyond its vocabulary.
    """
    model = load_model(folder, numerics.dtype, numerics.quantization)
    if config.lora is not None and not is_adapted(model):
        add_lora(model, config.lora, config.seed)
    if is_adapted(model):
        trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        logger.info("training an adapter of %s parameters; its base stays as it is", f"{trained:,}")
    return scorer_of(model, numerics, responses)


def add_lora(model: PreTrainedModel, settings: LoraSettings, seed: int) -> None:
    """Put a new adapter on the model, which computes what it computed before: B is 0. The base is frozen.

    Raises:
        ConfigError: the model has no such layers, or peft is not installed.
    """
    config = import_peft().LoraConfig(task_type="CAUSAL_LM", **settings.model_dump())
    try:
        inject(model, config, seed)
    except ValueError as error:
        raise ConfigError(
            f"train.lora cannot be put on {type(model).__name__}: {one_line(error)} Set train.lora.target_modules to "
            "`all-linear` or to names of its linear layers."
        ) from error


def save_policy(
    model: PreTrainedModel,
    folder: Path,
    start: Path,
    name: tuple[str, str | None],
    state: dict[str, torch.Tensor] | None,
) -> None:
    """Write what was trained: the whole model, or its adapter alone; `state` has the tensors of a sharded model.

    The adapter is to the base of `start`, or, where that is a whole model, to `start`: the Hub id or folder and
    revision that `name` gives.
    """
    if not is_adapted(model):
        model.save_pretrained(folder, state_dict=state)
        return
    base, revision = base_of(start) if is_adapter(start) else name
    place = str(Path(base).resolve()) if Path(base).is_dir() else base
    save_adapter(model, folder, place, revision, state)
