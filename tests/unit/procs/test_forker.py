"""What a child of the zygote inherits: nothing that the engine's starter had set."""

import os
import signal
import sys

ASK = (
    "import signal;"
    "from orlop.procs import forker;"
    "{};"
    "print(next(line for line in open('/proc/self/status') if line.startswith('SigIgn')).split()[1])"
)


def ignored(work):
    """The signals that a spawned Python ignores after `work`: posix_spawn leaves 32 and 33 ignored."""
    ours = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    reading, writing = os.pipe()
    command = [sys.executable, "-c", ASK.format(work)]
    defaults = (signal.SIGPIPE, signal.SIGINT)
    actions = [(os.POSIX_SPAWN_DUP2, writing, 1)]
    pid = os.posix_spawn(sys.executable, command, ours, file_actions=actions, setsigdef=defaults)
    os.close(writing)
    with open(reading) as file:
        text = file.read()
    assert os.waitpid(pid, 0)[1] == 0
    return int(text, 16)


def test_no_signal_is_ignored_after_a_reset_not_even_those_of_the_c_library():
    assert ignored("forker.reset_signals()") == 0
