"""The image tests' world; what it is made of lies in image_world.py."""

import pytest
from image_world import World


@pytest.fixture
def world(tmp_path):
    opened = World(tmp_path)
    yield opened
    opened.db.close()
