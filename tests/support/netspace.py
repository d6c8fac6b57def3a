"""A network namespace that plays the host: an engine in it makes bridges and rules without touching this one."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from support.orlopd import Orlopd

_READ = (
    "import socket,sys\n"
    "s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3]))\n"
    "s.settimeout(float(sys.argv[3]))\n"
    "sys.stdout.write(s.makefile().read())\n"
)
_RULES = (
    "import sys; sys.path.insert(0, sys.argv[1])\n"
    "from orlop.kernel.nftables import NftSocket\n"
    "from orlop.kernel.rtnetlink import RouteSocket\n"
    "with NftSocket() as nft: print('tables', *sorted(nft.tables()))\n"
    "with RouteSocket() as r: print('links', *sorted(l.name for l in r.links()))\n"
    "with RouteSocket() as r: print('addresses', *sorted(str(a) for _, a in r.addresses()))\n"
)
_LO_UP = (
    "import sys; sys.path.insert(0, sys.argv[1])\n"
    "from orlop.kernel.rtnetlink import RouteSocket, change_link\n"
    "with RouteSocket() as r: r.send([change_link(1, is_up=True)])\n"
)
_FLUSH = (
    "import sys; sys.path.insert(0, sys.argv[1])\n"
    "from orlop.kernel.nftables import NftSocket, delete_table\n"
    "with NftSocket() as nft: nft.commit([delete_table(t) for t in nft.tables()])\n"
)
_SRC = str(Path(__file__).parents[2] / "src")


class NetSpace:
    """The namespace; alive until closed."""

    def __init__(self):
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        own = Path("/proc/self/ns/net").readlink()
        deadline = time.monotonic() + 10
        while Path(f"/proc/{self._holder.pid}/ns/net").readlink() == own:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        self.enter = ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "--"]
        self._python(_LO_UP)

    def close(self):
        self._holder.kill()
        self._holder.wait()

    def run(self, *command, check=True, timeout=30):
        """A program in the namespace."""
        done = subprocess.run(
            [*self.enter, *map(str, command)], capture_output=True, text=True, timeout=timeout, check=False
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def popen(self, *command, **options):
        return subprocess.Popen([*self.enter, *map(str, command)], **options)

    def reach(self, address, port, timeout=5.0):
        """What a server says, or None when it cannot be reached."""
        done = self.run(sys.executable, "-c", _READ, address, port, timeout, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    def facts(self):
        """Tables, links and addresses, as they are."""
        lines = self._python(_RULES).splitlines()
        return {line.split()[0]: line.split()[1:] for line in lines}

    def flush_rules(self):
        """What a careless administrator does."""
        self._python(_FLUSH)

    def _python(self, program):
        return self.run(sys.executable, "-c", program, _SRC).stdout


class BridgedOrlopd(Orlopd):
    """An engine with a default bridge, in a network namespace of its own."""

    def __init__(self, *flags, **options):
        super().__init__(*flags, **options)
        self.space = NetSpace()

    def command(self):
        words = super().command()
        if "none" in words and words[words.index("none") - 1] == "--bridge":
            at = words.index("none") - 1
            words = words[:at] + words[at + 2 :]
        return [*self.space.enter, *words]

    def __exit__(self, kind, error, traceback):
        try:
            super().__exit__(kind, error, traceback)
        finally:
            self.space.close()
