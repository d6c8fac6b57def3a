"""What clients see of a registry."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "fakes"))
from fake_registry import FakeRegistry, Reply

from orlop.engine.events import EventBus
from orlop.engine.image_transfers import ImageTransfers
from orlop.registry.client import Registry, RegistryOptions
from orlop.registry.errors import BadRegistry


def inspect(prepare):
    async def main():
        async with FakeRegistry() as fake:
            prepare(fake)
            registry = Registry(RegistryOptions(), user_agent="test")
            try:
                transfers = ImageTransfers(None, None, registry, EventBus())
                return await transfers.inspect_distribution(f"{fake.domain}/app:1")
            finally:
                registry.close()

    return asyncio.run(main())


def test_a_manifest_tells_the_platform_of_its_config():
    found = inspect(lambda fake: fake.add_image("app", "1", [b""], arch="arm64"))

    assert [(item.architecture, item.os) for item in found.platforms] == [("arm64", "linux")]


def test_a_config_that_is_not_the_one_promised_is_never_parsed():
    def prepare(fake):
        fake.add_image("app", "1", [b""])

        async def lie(request):
            if "/blobs/" not in request.path:
                return None
            true = next(data for data in fake.blobs.values() if b"architecture" in data)
            false = true.replace(b"amd64", b"arm64")
            assert len(false) == len(true)
            assert json.loads(false)
            return Reply(200, false)

        fake.hooks.append(lie)

    with pytest.raises(BadRegistry, match="sent sha256:"):
        inspect(prepare)
