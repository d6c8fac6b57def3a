"""The image tests' world; what it is made of lies in image_world.py."""

import pytest
from image_world import World


@pytest.fixture(params=["memory", "files"])
def world(tmp_path, request):
    opened = World(tmp_path, is_real=request.param == "files")
    yield opened
    opened.db.close()
