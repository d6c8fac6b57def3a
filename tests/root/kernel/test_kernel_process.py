import os
import signal
import socket

import pytest

from orlop.kernel import capabilities, namespaces, process
from orlop.kernel.clone import clone3

pytestmark = pytest.mark.root


def in_child(work, flags=0):
    """What `work` returns in a cloned child, as text."""
    reader, writer = os.pipe()
    pid, pidfd = clone3(flags)
    if pid == 0:
        try:
            os.write(writer, repr(work()).encode())
        except BaseException as error:
            os.write(writer, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as file:
        words = file.read()
    os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    os.close(pidfd)
    return words


def status(*keys):
    with open("/proc/self/status") as file:
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    return [fields[key].strip() for key in keys]


def test_becoming_a_user_with_dockers_capabilities():
    def work():
        wanted = capabilities.mask_of(["CHOWN", "KILL"])
        capabilities.drop_bounding(wanted)
        process.set_keep_caps(keeps=True)
        process.set_groups([5, 6])
        process.set_res_gid(1001)
        process.set_res_uid(1000)
        capabilities.apply(capabilities.CapabilitySets(wanted, wanted))
        process.set_no_new_privs()
        return status("Uid", "Gid", "Groups", "CapEff", "CapBnd", "CapInh", "CapAmb", "NoNewPrivs")

    ids = "1000\t1000\t1000\t1000"
    expected = (
        [ids, ids.replace("1000", "1001"), "5 6", f"{0x21:016x}", f"{0x21:016x}"] + ["0" * 16] * 2 + ["1"]
    )
    assert in_child(work) == repr(expected)


def test_ambient_is_raised_when_asked():
    def work():
        mask = capabilities.mask_of(["KILL"])
        capabilities.apply(capabilities.CapabilitySets(mask, mask, mask, 0, mask))
        return capabilities.current().ambient == mask

    assert in_child(work) == "True"


def test_host_and_domain_name_of_a_new_namespace():
    def work():
        process.set_host_name("deck")
        process.set_domain_name("ship")
        return os.uname().nodename, open("/proc/sys/kernel/domainname").read().strip()

    assert in_child(work, namespaces.CLONE_NEWUTS) == "('deck', 'ship')"
    assert socket.gethostname() != "deck"


def test_name_dumpable_and_subreaper():
    def work():
        process.set_name("orlop-a-long-name")
        process.set_dumpable(is_dumpable=False)
        process.set_child_subreaper()
        return status("Name"), process.prctl(3, 0, 0, 0, 0)

    assert in_child(work) == "(['orlop-a-long-na'], 0)"


def test_close_range_spares_what_lies_outside():
    def work():
        kept, gone = os.open("/", os.O_PATH), os.open("/", os.O_PATH)
        process.close_range(gone)
        try:
            os.fstat(gone)
        except OSError:
            return os.fstat(kept).st_ino > 0

    reader, writer = os.pipe()
    os.dup2(writer, 3) if writer < 3 else None
    os.close(reader), os.close(writer)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if work() else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_parent_death_signal():
    reader, writer = os.pipe()
    middle = os.fork()
    if middle == 0:
        child = os.fork()
        if child == 0:
            process.set_parent_death_signal(signal.SIGKILL)
            os.write(writer, b"x")
            signal.pause()
        os.read(reader, 1)
        os._exit(0)
    os.close(writer)
    os.waitpid(middle, 0)

    assert os.read(reader, 1) == b""  # the grandchild's end of the pipe is closed: it is dead
    os.close(reader)


def test_signalfd_tells_signal_and_sender():
    def work():
        """In a child, which has one thread: another one that does not block the signal would die of it."""
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        fd, pidfd = process.signalfd([signal.SIGUSR1]), process.pidfd_open(os.getpid())
        process.pidfd_send_signal(pidfd, signal.SIGUSR1)
        return process.parse_siginfo(os.read(fd, 128)) == (signal.SIGUSR1, os.getpid())

    assert in_child(work) == "True"
