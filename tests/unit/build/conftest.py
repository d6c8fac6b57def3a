import made_trees
import pytest


@pytest.fixture(autouse=True)
def _close_trees():
    yield
    made_trees.forget_trees()
