"""Which share of the work is this process's: of `--shard i/n`, or of torchrun."""

import os
import re
from collections.abc import Mapping

from data.errors import ConfigError
from stages.units import Shard


def shard_of(option: str | None, environment: Mapping[str, str] = os.environ) -> Shard:
    """The option; without it, RANK of WORLD_SIZE as torchrun sets them; without these, all of it.

    Raises:
        ConfigError: no such share.
    """
    if option is None:
        rank, size = environment.get("RANK", ""), environment.get("WORLD_SIZE", "")
        return Shard(int(rank), int(size)) if rank.isdigit() and size.isdigit() and int(rank) < int(size) else Shard()
    match = re.fullmatch(r"(\d+)/(\d+)", option)
    if match is None or int(match[1]) >= int(match[2]):
        raise ConfigError(
            f"--shard {option}: write it as i/n, the number of this worker (from 0) and how many there are: of four "
            "workers, 0/4 is the first and 3/4 the last."
        )
    return Shard(int(match[1]), int(match[2]))
