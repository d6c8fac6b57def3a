import asyncio

from fake_runtime import InMemoryRuntime
from runtime_contract import RuntimeContract

from orlop.base.ids import new_hex_id
from orlop.runtime.spec import ContainerSpec, ExecSpec, LogSpec, ProcessSpec, RootSpec


def make_spec(*args, **process):
    container = new_hex_id()
    root = RootSpec(("/nonexistent",), None, None)
    return ContainerSpec(
        container, f"/run/{container}", root, ProcessSpec(args, **process), LogSpec("none", "")
    )


def make_exec(*args):
    return ExecSpec(new_hex_id(), ProcessSpec(args))


class TestInMemoryRuntime(RuntimeContract):
    def scenario(self, work):
        return asyncio.run(asyncio.wait_for(work(InMemoryRuntime(), make_spec, make_exec), 20))
