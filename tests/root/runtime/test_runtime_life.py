"""Execs, pause, limits, numbers; and what outlives engine, zygote and supervisor."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest
from runtime_harness import ALL, read_all, read_until

from orlop.kernel.cgroup import Cgroup, detect
from orlop.kernel.filesystems import mount_table
from orlop.runtime import rundir
from orlop.runtime.contract import StartFailed, TaskGone
from orlop.runtime.logs import LogReader
from orlop.runtime.spec import ExitRecord, LogSpec, ResourceSpec

pytestmark = pytest.mark.root


@contextlib.asynccontextmanager
async def sleeping(h, *, script="sleep 1000", **fields):
    task, stream = await h.start("sh", "-c", script, **fields)
    stream.close()
    try:
        yield task
    finally:
        with contextlib.suppress(TaskGone):
            await task.signal(9)
        await asyncio.wait_for(task.wait(), 20)


# --- exec ---


def test_exec_runs_in_the_containers_namespaces_with_the_same_confinement(containers):
    async def scenario(h):
        async with sleeping(h, hostname="ship") as task:
            namespaces = [os.readlink(f"/proc/{task.pid}/ns/{name}") for name in ("mnt", "pid")]
            return namespaces, await h.exec(
                task,
                "sh",
                "-c",
                "hostname; id -u; readlink /proc/self/ns/mnt; readlink /proc/self/ns/pid; cat /proc/self/cgroup; grep -E 'Cap|Seccomp:' /proc/self/status; exit 4",
                user="1000",
            )

    namespaces, output = containers(scenario)

    lines = output.text.splitlines()
    assert output.code == 4
    assert lines[:2] == ["ship", "1000"]
    assert lines[2:4] == namespaces
    assert {line.split(":")[2] for line in lines[4:12]} == {"/"}
    assert "CapBnd:\t00000000a80425fb" in lines
    assert "CapEff:\t0000000000000000" in lines
    assert "Seccomp:\t2" in lines


def test_exec_of_a_missing_program_says_dockers_words(containers):
    async def scenario(h):
        async with sleeping(h) as task:
            with pytest.raises(StartFailed) as caught:
                await h.exec(task, "x")
            return caught.value

    error = containers(scenario)

    assert error.exit_code == 127
    assert error.message == (
        "OCI runtime exec failed: exec failed: unable to start container process: "
        'exec: "x": executable file not found in $PATH: unknown'
    )


def test_exec_in_a_missing_directory_fails_and_does_not_make_it(containers):
    async def scenario(h):
        async with sleeping(h) as task:
            with pytest.raises(
                StartFailed, match=r'chdir to cwd \("/nope"\) set in config.json failed: no such file'
            ):
                await h.exec(task, "true", cwd="/nope")

    containers(scenario)


def test_exec_with_a_terminal_and_input(containers):
    async def scenario(h):
        async with sleeping(h) as task:
            spec = h.exec_spec("sh", has_tty=True, has_stdin=True, tty_size=(10, 20))
            execed = await task.exec(spec, ALL)
            with execed.stream:
                await read_until(execed.stream, b"# ")
                await execed.resize(50, 60)
                await asyncio.get_running_loop().sock_sendall(execed.stream, b"tty; stty size; exit 6\n")
                out, _ = await read_all(execed.stream, is_raw=True)
            return out, await execed.wait()

    out, code = containers(scenario)

    assert b"/dev/pts/0" in out
    assert b"50 60" in out
    assert code == 6


def test_stdin_of_an_exec_ends_with_its_client(containers):
    async def scenario(h):
        async with sleeping(h) as task:
            execed = await task.exec(h.exec_spec("cat", has_stdin=True), ALL)
            await asyncio.get_running_loop().sock_sendall(execed.stream, b"data")
            execed.stream.shutdown(1)
            with execed.stream:
                out, _ = await read_all(execed.stream)
            return out, await execed.wait()

    assert containers(scenario) == (b"data", 0)


def test_exec_in_an_ended_container_is_gone(containers):
    async def scenario(h):
        task, stream = await h.start("true")
        stream.close()
        await task.wait()
        with pytest.raises(TaskGone):
            await h.exec(task, "true")

    containers(scenario)


def test_an_exec_is_killed_with_its_container(containers):
    async def scenario(h):
        async with sleeping(h) as task:
            execed = await task.exec(h.exec_spec("sleep", "1000"))
            await task.signal(9)
            return await execed.wait()

    assert containers(scenario) == 137


def test_many_execs_at_once(containers):
    async def scenario(h):
        async with sleeping(h) as task:
            return await asyncio.gather(*(h.exec(task, "sh", "-c", f"echo {n}; exit {n}") for n in range(12)))

    outputs = containers(scenario)

    assert [(o.code, o.text) for o in outputs] == [(n, f"{n}\n") for n in range(12)]


# --- control ---


def test_a_paused_container_stands_still_and_can_be_killed(containers):
    async def scenario(h):
        async with sleeping(h, script="while :; do :; done") as task:
            await task.pause()
            assert await task.is_paused()
            before = (await task.stats()).cpu_total_ns
            await asyncio.sleep(0.1)
            assert (await task.stats()).cpu_total_ns == before
            await task.unpause()
            assert not await task.is_paused()
            await task.pause()
            await task.signal(9)
            return await asyncio.wait_for(task.wait(), 10)

    assert containers(scenario).exit_code == 137


def test_stats_and_top(containers):
    async def scenario(h):
        async with sleeping(
            h, script="sleep 1000; true", resources=ResourceSpec(memory_limit_bytes=64 << 20)
        ) as task:
            while (processes := await task.top())[-1].args != "sleep 1000":
                await asyncio.sleep(0.01)
            return await task.stats(), processes, task.pid

    stats, processes, pid = containers(scenario)

    assert stats.memory_limit_bytes == 64 << 20
    assert stats.memory_usage_bytes > 0
    assert stats.pids_current == 2
    assert stats.cpu_system_ns > stats.cpu_total_ns > 0
    assert processes[0].pid == pid
    assert processes[-1].args == "sleep 1000"
    assert processes[-1].ppid == pid


def test_limits_can_be_changed_while_running(containers):
    async def scenario(h):
        async with sleeping(h, resources=ResourceSpec(memory_limit_bytes=64 << 20)) as task:
            await task.update(ResourceSpec(memory_limit_bytes=96 << 20, memory_swap_bytes=-1))
            return (await task.stats()).memory_limit_bytes

    assert containers(scenario) == 96 << 20


def test_signal_to_all_processes(containers):
    async def scenario(h):
        async with sleeping(h, script="sleep 1000 & sleep 1000 & wait; exit 3") as task:
            while len(await task.top()) < 3:
                await asyncio.sleep(0.01)
            for process in (await task.top())[1:]:
                os.kill(process.pid, 0)
            await task.signal(signal.SIGKILL, all_processes=True)
            return await task.wait()

    assert containers(scenario).exit_code == 137


# --- survival ---


def test_engine_and_zygote_killed_then_adopted(containers):
    async def scenario(h):
        spec = h.spec("sh", "-c", "echo before; read x; echo after $x; exit 6", process={"has_stdin": True})
        task = await h.runtime.start(spec)
        await h.restart_engine()
        again = await h.runtime.adopt(spec.run_dir)
        assert (again.pid, again.started_at_ns) == (task.pid, task.started_at_ns)
        stream = await again.attach(ALL)
        with stream:
            await asyncio.get_running_loop().sock_sendall(stream, b"it\n")
            await read_until(stream, b"after it\n")
        record = await again.wait()
        with LogReader(spec.log.directory) as log:
            return record, b"".join(entry.data for entry in log)

    record, log = containers(scenario)

    assert record.exit_code == 6
    assert log == b"before\nafter it\n"


def test_an_end_while_no_engine_is_there_is_found_later(containers):
    async def scenario(h):
        spec = h.spec("sh", "-c", "sleep 0.3; echo last words; exit 8")
        await h.runtime.start(spec)
        os.kill(h.zygote.pid, 9)
        await h.runtime.aclose()
        while rundir.read_exit(spec.run_dir) is None:
            await asyncio.sleep(0.05)
        await h.restart_engine()
        record = await h.runtime.adopt(spec.run_dir)
        with LogReader(spec.log.directory) as log:
            return record, [entry.data for entry in log]

    record, log = containers(scenario)

    assert isinstance(record, ExitRecord)
    assert (record.exit_code, log) == (8, [b"last words\n"])


def test_zygote_killed_is_replaced(containers):
    async def scenario(h):
        os.kill(h.zygote.pid, 9)
        return await h.shell("echo alive")

    assert containers(scenario).text == "alive\n"


def test_death_of_the_supervisor_ends_the_container(containers):
    async def scenario(h):
        spec = h.spec("sleep", "1000")
        task = await h.runtime.start(spec)
        record = rundir.read_record(spec.run_dir)
        waiting = asyncio.ensure_future(task.wait())
        await asyncio.sleep(0)
        os.kill(record.supervisor_pid, 9)
        ended = await asyncio.wait_for(waiting, 10)
        return ended, record, await h.runtime.adopt(spec.run_dir)

    ended, record, adopted = containers(scenario)

    assert (ended.exit_code, ended.error) == (137, "supervisor-lost")
    assert adopted == ended
    assert not rundir.is_alive(record.init_pid, record.init_ticks)
    assert not Cgroup(record.cgroup, detect()).exists()


def test_adopting_nothing(containers, tmp_path):
    assert containers(lambda h: h.runtime.adopt(str(tmp_path))) is None


def test_a_run_dir_with_a_long_path(containers, tmp_path):
    from dataclasses import replace

    async def scenario(h):
        deep = tmp_path / ("d" * 100) / ("e" * 100)
        deep.mkdir(parents=True)
        spec = replace(h.spec("sleep", "1000"), run_dir=str(deep))
        await h.runtime.start(spec)
        await h.restart_engine()
        task = await h.runtime.adopt(str(deep))
        await task.signal(9)
        return await task.wait()

    assert containers(scenario).exit_code == 137


def test_a_slow_client_holds_the_container_back_and_gets_everything(containers):
    async def scenario(h):
        task, stream = await h.start("sh", "-c", "head -c 3000000 /dev/zero; echo; echo end")
        await asyncio.sleep(0.2)
        assert rundir.read_exit(h.specs[-1].run_dir) is None  # held back, not dropped
        with stream:
            out, _ = await read_all(stream)
        return out, await task.wait()

    out, record = containers(scenario)

    assert len(out) == 3000005
    assert record.exit_code == 0


def test_a_client_that_goes_away_does_not_stop_the_container(containers):
    async def scenario(h):
        spec = h.spec("sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end")
        task, stream = await h.start_spec(spec)
        await asyncio.sleep(0.05)
        stream.close()
        record = await asyncio.wait_for(task.wait(), 10)
        with LogReader(spec.log.directory) as log:
            return record, sum(len(entry.data) for entry in log)

    record, size = containers(scenario)

    assert (record.exit_code, size) == (0, 3000005)


def test_log_driver_none_keeps_nothing(containers):
    async def scenario(h):
        spec = h.spec("echo", "x", log=LogSpec("none", ""))
        task = await h.runtime.start(spec)
        return await task.wait()

    assert containers(scenario).exit_code == 0


async def idle(h):
    """The number of mounts below our directory, once no supervisor but the spare is left."""
    for _ in range(200):
        children = Path(f"/proc/{h.zygote.pid}/task/{h.zygote.pid}/children").read_text().split()
        titles = [
            Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children if os.path.exists(f"/proc/{pid}")
        ]
        if not [title for title in titles if title.startswith(b"orlop-supervisor ")]:
            return len([entry for entry in mount_table() if os.fsencode(h.base) in entry.target])
        await asyncio.sleep(0.02)
    raise AssertionError(f"still there: {titles}")


def test_fifty_cycles_leave_nothing(containers):
    async def scenario(h):
        await h.shell("true")
        before = await idle(h)
        fds = len(os.listdir("/proc/self/fd"))
        for _ in range(50):
            output = await h.shell("echo x")
            assert output.code == 0
        ids = [spec.id for spec in h.specs]
        left = [
            point
            for point in detect().hierarchies()
            for name in ids
            if os.path.exists(f"{point}/orlop/{name}")
        ]
        return before, await idle(h), fds, len(os.listdir("/proc/self/fd")), left

    before, after, fds_before, fds_after, left = containers(scenario)

    assert after == before == 0
    assert left == []
    assert fds_after <= fds_before
