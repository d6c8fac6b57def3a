"""What every runtime promises. A subclass gives `scenario(work)`: run `await work(runtime, make_spec, make_exec)`."""

import asyncio

import pytest

from orlop.runtime.contract import StartFailed, TaskGone, open_attachment
from orlop.runtime.spec import AttachSpec, ExitRecord
from orlop.wire.stdstream import FrameDecoder

ALL = AttachSpec(has_stdin=True, has_stdout=True, has_stderr=True)


async def output_of(stream):
    decoder, data = FrameDecoder(), b""
    with stream:
        while piece := await asyncio.wait_for(asyncio.get_running_loop().sock_recv(stream, 65536), 10):
            data += b"".join(part for _, part in decoder.feed(piece))
    return data


class RuntimeContract:
    def scenario(self, work):
        raise NotImplementedError

    def test_output_comes_before_the_end_and_the_code_is_kept(self):
        async def work(runtime, make_spec, make_exec):
            stream, attachment = open_attachment(ALL)
            task = await runtime.start(make_spec("echo", "a", "b"), [attachment])
            return await output_of(stream), await task.wait(), await task.wait()

        output, first, second = self.scenario(work)

        assert output == b"a b\n"
        assert first == second
        assert (first.exit_code, first.error) == (0, "")
        assert first.started_at_ns > 0

    def test_a_failing_program_has_its_code(self):
        async def work(runtime, make_spec, make_exec):
            return await (await runtime.start(make_spec("false"))).wait()

        assert self.scenario(work).exit_code == 1

    def test_a_missing_program_is_a_failed_start_and_closes_the_streams(self):
        async def work(runtime, make_spec, make_exec):
            stream, attachment = open_attachment(ALL)
            with pytest.raises(StartFailed) as caught:
                await runtime.start(make_spec("no-such-program"), [attachment])
            return caught.value, await output_of(stream)

        error, output = self.scenario(work)

        assert error.exit_code == 127
        assert error.message.endswith('exec: "no-such-program": executable file not found in $PATH: unknown')
        assert output == b""

    def test_input_reaches_the_program(self):
        async def work(runtime, make_spec, make_exec):
            stream, attachment = open_attachment(ALL)
            task = await runtime.start(make_spec("cat", has_stdin=True, stdin_once=True), [attachment])
            await asyncio.get_running_loop().sock_sendall(stream, b"typed")
            stream.shutdown(1)
            return await output_of(stream), await task.wait()

        output, record = self.scenario(work)

        assert output == b"typed"
        assert record.exit_code == 0

    def test_a_killed_container_has_128_and_the_signal(self):
        async def work(runtime, make_spec, make_exec):
            task = await runtime.start(make_spec("sleep", "100"))
            await task.signal(9)
            record = await task.wait()
            with pytest.raises(TaskGone):
                await task.signal(9)
            return record

        assert self.scenario(work).exit_code == 137

    def test_adopt_finds_running_ended_and_nothing(self):
        async def work(runtime, make_spec, make_exec):
            spec = make_spec("sleep", "100")
            task = await runtime.start(spec)
            running = await runtime.adopt(spec.run_dir)
            assert (running.id, running.pid) == (task.id, task.pid)
            await running.signal(9)
            record = await task.wait()
            return record, await runtime.adopt(spec.run_dir), await runtime.adopt("/nonexistent/run/dir")

        record, ended, nothing = self.scenario(work)

        assert isinstance(ended, ExitRecord)
        assert ended == record
        assert nothing is None

    def test_execs_run_beside_the_program(self):
        async def work(runtime, make_spec, make_exec):
            task = await runtime.start(make_spec("sleep", "100"))
            execed = await task.exec(make_exec("echo", "hi"), ALL)
            output, code = await output_of(execed.stream), await execed.wait()
            with pytest.raises(StartFailed) as caught:
                await task.exec(make_exec("no-such-program"), ALL)
            sleeping = await task.exec(make_exec("sleep", "100"))
            found = await task.find_exec(sleeping.id)
            await task.signal(9)
            await task.wait()
            with pytest.raises(TaskGone):
                await task.exec(make_exec("true"))
            return output, code, caught.value, found, sleeping, await sleeping.wait()

        output, code, error, found, sleeping, killed = self.scenario(work)

        assert (output, code, killed) == (b"hi\n", 0, 137)
        assert error.exit_code == 127
        assert error.message.startswith("OCI runtime exec failed: exec failed: ")
        assert (found.id, found.pid) == (sleeping.id, sleeping.pid)

    def test_pause_is_seen_and_undone(self):
        async def work(runtime, make_spec, make_exec):
            task = await runtime.start(make_spec("sleep", "100"))
            await task.pause()
            paused = await task.is_paused()
            await task.unpause()
            after = await task.is_paused()
            stats = await task.stats()
            await task.signal(9)
            await task.wait()
            with pytest.raises(TaskGone):
                await task.stats()
            return paused, after, stats

        paused, after, stats = self.scenario(work)

        assert (paused, after) == (True, False)
        assert stats.pids_current == 1
