"""Exit codes, streams and errors of real containers."""

import asyncio
import os
import signal

import pytest
from runtime_harness import ALL, read_all, read_until

from orlop.runtime.contract import StartFailed

pytestmark = pytest.mark.root

START = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: "
    "runc create failed: unable to start container process: error during container init: "
)


def test_output_and_exit_code_of_a_command(containers):
    output = containers(lambda h: h.shell("echo out; echo err >&2; exit 3"))

    assert (output.code, output.stdout, output.stderr) == (3, b"out\n", b"err\n")


def test_true_ends_with_zero(containers):
    assert containers(lambda h: h.run("true")).code == 0


def test_death_by_a_signal_is_128_and_the_signal(containers):
    assert (
        containers(
            lambda h: h.run("sh", "-c", "kill -SEGV $$; sh -c 'kill -SEGV $PPID'; sleep 9", has_init=True)
        ).code
        == 139
    )


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (("foo",), 127, 'exec: "foo": executable file not found in $PATH: unknown'),
        (("/nope",), 127, 'exec: "/nope": stat /nope: no such file or directory: unknown'),
        (("/etc/passwd",), 126, 'exec: "/etc/passwd": permission denied: unknown'),
        (("/etc",), 126, 'exec: "/etc": is a directory: unknown: permission denied'),
    ],
)
def test_a_program_that_cannot_be_executed_is_told_in_dockers_words(containers, args, code, text):
    with pytest.raises(StartFailed) as caught:
        containers(lambda h: h.run(*args))

    assert caught.value.exit_code == code
    assert caught.value.message == f"{START}{text}"


def test_a_file_that_is_no_program_is_126(containers, rootfs):
    script = rootfs / "bin" / "garbage"
    script.write_bytes(b"\x01\x02")
    script.chmod(0o755)

    with pytest.raises(StartFailed) as caught:
        containers(lambda h: h.run("garbage"))

    assert caught.value.exit_code == 126
    assert "exec /bin/garbage: exec format error" in caught.value.message


def test_an_unknown_user_is_told_without_decoration(containers):
    with pytest.raises(StartFailed) as caught:
        containers(lambda h: h.run("true", process={"user": "nobody-here"}))

    assert caught.value.message == "unable to find user nobody-here: no matching entries in passwd file"


def test_a_failed_start_leaves_an_exit_record_and_no_process(containers):
    async def scenario(h):
        spec = h.spec("foo")
        with pytest.raises(StartFailed):
            await h.start_spec(spec)
        return await h.runtime.adopt(spec.run_dir)

    record = containers(scenario)

    assert record.exit_code == 127
    assert "executable file not found" in record.error


def test_stdin_reaches_the_program_and_its_end_too(containers):
    output = containers(lambda h: h.run("sh", "-c", "cat; echo done", stdin=b"hello"))

    assert output.stdout == b"hellodone\n"


def test_large_input_comes_back_whole(containers):
    data = os.urandom(3 << 20)

    output = containers(lambda h: _pipe_through_cat(h, data))

    assert output == data


async def _pipe_through_cat(h, data):
    task, stream = await h.start("cat", process={"has_stdin": True, "stdin_once": True})

    async def feed():
        await asyncio.get_running_loop().sock_sendall(stream, data)
        stream.shutdown(1)

    feeding = asyncio.ensure_future(feed())
    with stream:
        out, _ = await read_all(stream)
    await feeding
    assert (await task.wait()).exit_code == 0
    return out


def test_without_stdin_it_is_the_null_device(containers):
    assert containers(lambda h: h.shell("cat; readlink /proc/self/fd/0")).stdout == b"/dev/null\n"


def test_terminal_is_the_controlling_one_with_its_size(containers):
    process = {"has_tty": True, "tty_size": (33, 111)}

    output = containers(
        lambda h: h.shell("tty; stty size; ls -l /dev/console; echo $((1+1)) >/dev/tty", process=process)
    )

    lines = output.text.split("\r\n")
    assert lines[0] == "/dev/pts/0"
    assert lines[1] == "33 111"
    assert "136,   0" in lines[2]
    assert lines[3] == "2"


def test_typing_into_a_terminal_and_resizing_it(containers):
    async def scenario(h):
        task, stream = await h.start("sh", process={"has_tty": True, "has_stdin": True})
        loop = asyncio.get_running_loop()
        with stream:
            await read_until(stream, b"# ")
            await task.resize(40, 120)
            await loop.sock_sendall(stream, b"stty size; exit 7\n")
            out, _ = await read_all(stream, is_raw=True)
        return out, await task.wait()

    out, record = containers(scenario)

    assert b"40 120" in out
    assert record.exit_code == 7


def test_a_terminal_under_our_init_has_job_control(containers):
    async def scenario(h):
        task, stream = await h.start("sh", process={"has_tty": True, "has_stdin": True}, has_init=True)
        loop = asyncio.get_running_loop()
        with stream:
            await read_until(stream, b"# ")
            await loop.sock_sendall(stream, b"sleep 100\n")
            await asyncio.sleep(0.1)
            await loop.sock_sendall(stream, b"\x03")
            await loop.sock_sendall(stream, b"echo $? $$; exit 4\n")
            out, _ = await read_all(stream, is_raw=True)
        return out, await task.wait()

    out, record = containers(scenario)

    assert b"130 2\r\n" in out
    assert record.exit_code == 4


def test_signals_reach_the_program(containers):
    async def scenario(h):
        task, stream = await h.start(
            "sh", "-c", "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.1; done"
        )
        with stream:
            await read_until(stream, b"ready")
            await task.signal(signal.SIGTERM)
            out, _ = await read_all(stream)
        return out, await task.wait()

    out, record = containers(scenario)

    assert b"got" in out
    assert record.exit_code == 5


def test_kill_ends_with_137(containers):
    async def scenario(h):
        task, stream = await h.start("sleep", "100")
        stream.close()
        await task.signal(signal.SIGKILL)
        return await task.wait()

    record = containers(scenario)

    assert record.exit_code == 137
    assert not record.is_oom_killed


def test_a_second_client_sees_what_comes_after_it_attached(containers):
    async def scenario(h):
        task, first = await h.start("sh", "-c", "echo one; read x; echo two", process={"has_stdin": True})
        await read_until(first, b"one\n")
        second = await task.attach(ALL)
        await asyncio.get_running_loop().sock_sendall(first, b"\n")
        with first, second:
            out = await read_all(second)
        await task.wait()
        return out

    assert containers(scenario)[0] == b"two\n"


def test_log_has_everything_also_without_a_client(containers):
    from orlop.runtime.logs import LogQuery, LogReader

    async def scenario(h):
        spec = h.spec("sh", "-c", "echo out; echo err >&2")
        task = await h.runtime.start(spec)
        await task.wait()
        return spec.log.directory

    directory = containers(scenario)

    with LogReader(directory, LogQuery()) as reader:
        entries = {(entry.stream, entry.data) for entry in reader.read()}
    assert entries == {(1, b"out\n"), (2, b"err\n")}
