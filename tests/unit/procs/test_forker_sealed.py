"""A process whose imports are sealed still does all that it has to."""

import subprocess
import sys

SCRIPT = """
from orlop.base import log
from orlop.procs.forker import seal_imports
seal_imports()
log.error("sealed", problem='a "quoted" word\\n')
"""


def test_a_sealed_process_can_log_text_that_needs_quotes():
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stderr
    assert "sealed" in ended.stderr
