"""A start that left out a step of the confinement is refused: what runs is read back (I21)."""

import pytest

from orlop.runtime.contract import StartFailed

pytestmark = pytest.mark.root

STEPS = {
    "init.hide": "is not hidden",
    "init.cgroup": "it is in cgroup|the cgroup namespace is the host's",
    "confine.bounding": "CapBnd is ",
    "confine.filter": "no seccomp filter is in force",
    "confine.no-new-privileges": "no-new-privileges is off|seccomp: Permission denied",  # it is needed for the filter
}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_left_out_is_noticed(step, harness, containers):
    harness.environment["ORLOP_FAILPOINTS"] = f"{step}=skip"

    async def scenario(h):
        await h.runtime.start(h.spec("sleep", "60", process={"no_new_privileges": True}))

    with pytest.raises(StartFailed, match=STEPS[step]) as caught:
        containers(scenario)

    assert caught.value.exit_code == 128


@pytest.mark.parametrize("script", ["exit 0", "kill -9 $$", "exec true"])
def test_a_program_that_ends_at_once_is_no_difference(containers, script):
    async def scenario(h):
        return [(await h.shell(script)).code for _ in range(10)]

    assert set(containers(scenario)) <= {0, 137}


def test_an_exec_is_read_back_too(harness, containers):
    harness.environment["ORLOP_FAILPOINTS"] = "confine.no-new-privileges=skip"

    async def scenario(h):
        task, stream = await h.start("sleep", "60")
        stream.close()
        try:
            locked = {"no_new_privileges": True, "has_seccomp": False}
            with pytest.raises(StartFailed, match="no-new-privileges is off") as caught:
                await h.exec(task, "sleep", "60", **locked)
            allowed = await h.exec(task, "echo", "still", "here")
        finally:
            await task.signal(9)
            await task.wait()
        return caught.value, allowed

    failure, allowed = containers(scenario)

    assert failure.step == "confinement"
    assert allowed.text == "still here\n"
