"""Reports with their figures."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def _figures(figures: None) -> None:
    pass
