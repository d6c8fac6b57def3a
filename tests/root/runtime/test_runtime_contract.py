"""The embedded runtime keeps the contract that the one in memory keeps."""

import pytest
from runtime_contract import RuntimeContract

pytestmark = pytest.mark.root


class TestSupervisedRuntime(RuntimeContract):
    @pytest.fixture(autouse=True)
    def _containers(self, containers):
        self.containers = containers

    def scenario(self, work):
        async def whole(h):
            def make_spec(*args, **process):
                return h.spec(*args, process=process)

            return await work(h.runtime, make_spec, h.exec_spec)

        return self.containers(whole)
