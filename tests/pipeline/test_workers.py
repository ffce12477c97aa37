"""Which share of the work a process takes."""

import pytest

from data.errors import ConfigError
from pipeline.workers import shard_of
from stages.units import ALL, Shard


@pytest.mark.parametrize(
    ("option", "environment", "shard"),
    [
        (None, {}, ALL),
        ("2/4", {}, Shard(2, 4)),
        ("2/4", {"RANK": "0", "WORLD_SIZE": "8"}, Shard(2, 4)),
        (None, {"RANK": "3", "WORLD_SIZE": "8"}, Shard(3, 8)),
        (None, {"RANK": "3"}, ALL),
        (None, {"RANK": "3", "WORLD_SIZE": "few"}, ALL),
        (None, {"RANK": "3", "WORLD_SIZE": "3"}, ALL),
    ],
)
def test_the_option_comes_before_the_environment(option, environment, shard):
    assert shard_of(option, environment) == shard


@pytest.mark.parametrize("option", ["4/4", "1", "1/0", "-1/4", "a/b", "1/4/2", ""])
def test_a_share_that_is_none_is_refused_with_how_to_write_it(option):
    with pytest.raises(ConfigError, match=f"--shard {option}: write it as i/n.*0/4 is the first and 3/4 the last"):
        shard_of(option, {})
