import ctypes
import errno
import os
import socket

import pytest

from orlop.kernel import capabilities, namespaces, process, seccomp
from orlop.kernel.clone import clone3
from orlop.kernel.syscall_tables import X86_64
from orlop.runtime.defaults import CAPABILITIES
from orlop.runtime.seccomp import compile_profile

pytestmark = pytest.mark.root
libc = ctypes.CDLL(None, use_errno=True)


def confined(work, profile=None, *, has_new_privs=False):
    """What `work` returns in a child under a policy, with Docker's capabilities."""
    program = compile_profile(profile, CAPABILITIES)
    reader, writer = os.pipe()
    pid, pidfd = clone3()
    if pid == 0:
        try:
            if has_new_privs:
                seccomp.load(program)
            mask = capabilities.mask_of(CAPABILITIES)
            capabilities.drop_bounding(mask)
            capabilities.apply(capabilities.CapabilitySets(mask, mask))
            if not has_new_privs:
                process.set_no_new_privs()
                seccomp.load(program)
            os.write(writer, repr(work()).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader) as file:
        words = file.read()
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    os.close(pidfd)
    assert result.si_status == 0, result
    return eval(words)


def error_of(call, *args):
    try:
        call(*args)
    except OSError as error:
        return error.errno
    return 0


def raw(number, *args):
    result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, args))
    return -ctypes.get_errno() if result < 0 else result


@pytest.mark.parametrize("has_new_privs", [False, True])
def test_the_default_policy_in_a_real_process(has_new_privs):
    def work():
        return {
            "unshare": error_of(namespaces.unshare, namespaces.CLONE_NEWUTS),
            "9999": -raw(9999),
            "clone3": error_of(clone3),
            "afalg": error_of(socket.socket, 38, socket.SOCK_SEQPACKET),
            "afalg with high bits": -raw(X86_64["socket"], 38 | 1 << 32, 5, 0),
            "inet": error_of(socket.socket),
            "keyctl": -raw(X86_64["keyctl"], 0),
            "fork": os.waitpid(os.fork() or os._exit(5), 0)[1] >> 8,
            "mode": next(line for line in open("/proc/self/status") if line.startswith("Seccomp:")),
        }

    assert confined(work, has_new_privs=has_new_privs) == {
        "unshare": errno.EPERM,
        "9999": errno.ENOSYS,
        "clone3": errno.ENOSYS,
        "afalg": errno.EPERM,
        "afalg with high bits": errno.EPERM,
        "inet": 0,
        "keyctl": errno.EPERM,
        "fork": 5,
        "mode": "Seccomp:\t2\n",
    }


def test_a_custom_profile():
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EXDEV}],
    }

    assert confined(lambda: error_of(os.mkdir, "/tmp/never"), profile) == errno.EXDEV


def test_loading_needs_no_new_privs_or_sys_admin():
    def work():
        return error_of(seccomp.load, compile_profile(None, CAPABILITIES))

    pid = os.fork()
    if pid == 0:
        capabilities.apply(capabilities.CapabilitySets(0, 0))
        os._exit(work())
    assert os.waitpid(pid, 0)[1] >> 8 == errno.EACCES


def test_a_malformed_program_is_refused():
    with pytest.raises(OSError) as caught:
        seccomp.load(b"\xff" * 8)
    assert caught.value.errno == errno.EINVAL
