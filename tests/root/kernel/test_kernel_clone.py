import os
import signal
import threading

import pytest

from orlop.kernel import namespaces
from orlop.kernel.clone import clone3

pytestmark = pytest.mark.root
ALL = (
    namespaces.CLONE_NEWNS
    | namespaces.CLONE_NEWPID
    | namespaces.CLONE_NEWNET
    | namespaces.CLONE_NEWIPC
    | namespaces.CLONE_NEWUTS
    | namespaces.CLONE_NEWCGROUP
)


def run(flags, work, **options):
    """Run `work` in a cloned child; returns (its words, its exit code)."""
    reader, writer = os.pipe()
    pid, pidfd = clone3(flags, **options)
    if pid == 0:
        try:
            os.close(reader)
            os.write(writer, repr(work()).encode())
            os._exit(0)
        finally:
            os._exit(99)
    os.close(writer)
    words = b""
    while chunk := os.read(reader, 4096):
        words += chunk
    os.close(reader)
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    os.close(pidfd)
    return eval(words.decode()), result.si_status


def test_the_child_is_pid_one_in_all_new_namespaces():
    def work():
        return os.getpid(), [tuple(namespaces.namespace_id("self", kind)) for kind in kinds]

    kinds = ["mnt", "net", "ipc", "uts", "cgroup"]
    outside = [namespaces.namespace_id(os.getpid(), kind) for kind in kinds]

    (pid, inside), code = run(ALL, work)

    assert (pid, code) == (1, 0)
    assert not set(outside) & set(inside)


def test_the_child_is_a_usable_interpreter():
    def work():
        done = []
        thread = threading.Thread(target=lambda: done.append(sum(range(1000))))
        thread.start()
        thread.join()
        import wave  # an import that the parent did not make: the import lock is free

        return done, threading.current_thread() is threading.main_thread(), wave.__name__

    assert run(0, work)[0] == ([499500], True, "wave")


def test_fork_handlers_run():
    seen = []
    os.register_at_fork(
        before=lambda: seen.append("before"),
        after_in_child=lambda: seen.append("child"),
        after_in_parent=lambda: seen.append("parent"),
    )

    words, _ = run(0, lambda: list(seen))

    assert words == ["before", "child"]
    assert seen == ["before", "parent"]


def test_pidfd_signals_and_is_close_on_exec():
    pid, pidfd = clone3()
    if pid == 0:
        signal.pause()
        os._exit(0)

    assert not os.get_inheritable(pidfd)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    os.close(pidfd)
    assert (result.si_code, result.si_status) == (os.CLD_KILLED, signal.SIGKILL)


def test_a_refused_clone_leaves_the_interpreter_whole():
    with pytest.raises(OSError):
        clone3(1 << 62)

    assert run(0, lambda: "fine")[0] == "fine"


def test_many_children_in_a_row():
    codes = [run(0, lambda: 1)[1] for _ in range(50)]

    assert codes == [0] * 50
