"""A runtime in memory: containers are coroutines that know a handful of programs.

It passes the same contract suite as the real one (`runtime_contract.py`).
"""

import asyncio
import contextlib
import socket
import time

from orlop.runtime.contract import StartFailed, Stats, TaskGone, open_attachment
from orlop.runtime.spec import ExitRecord
from orlop.wire.stdstream import frame

PROGRAMS = {"true", "false", "echo", "cat", "sleep"}
START = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: "
    "runc create failed: unable to start container process: error during container init: "
)
EXEC = "OCI runtime exec failed: exec failed: unable to start container process: "


class Program:
    """One process: writes to its attachments, ends with a code."""

    def __init__(self, spec, attachments, prefix):
        if spec.args[0] not in PROGRAMS:
            for item in attachments:
                item.socket.close()
            text = f'{prefix}exec: "{spec.args[0]}": executable file not found in $PATH: unknown'
            raise StartFailed(text, exit_code=127, step="exec")
        self.spec = spec
        self.sockets = []
        self.stdin = asyncio.Queue()
        self.readers = []
        for item in attachments:
            self.attach(item)
        self.resumed = asyncio.Event()
        self.resumed.set()
        self.work = asyncio.ensure_future(self.main())
        self.code = asyncio.get_running_loop().create_future()
        self.work.add_done_callback(lambda _: self.finish(self.work))

    def attach(self, item):
        item.socket.setblocking(False)
        self.sockets.append(item.socket)
        if item.spec.has_stdin and self.spec.has_stdin:
            self.readers.append(asyncio.ensure_future(self.read(item.socket)))

    async def read(self, sock):
        while data := await asyncio.get_running_loop().sock_recv(sock, 65536):
            self.stdin.put_nowait(data)
        self.stdin.put_nowait(b"")

    async def write(self, data):
        for sock in self.sockets:
            with contextlib.suppress(OSError):
                await asyncio.get_running_loop().sock_sendall(sock, frame(1, data))

    async def main(self):
        name, *rest = self.spec.args
        if name == "echo":
            await self.write((" ".join(rest) + "\n").encode())
        if name == "cat" and self.spec.has_stdin:
            while data := await self.stdin.get():
                await self.write(data)
        if name == "sleep":
            await asyncio.sleep(float(rest[0]))
        return 1 if name == "false" else 0

    def finish(self, work):
        for reader in self.readers:
            reader.cancel()
        for sock in self.sockets:
            sock.close()
        if not self.code.done():
            self.code.set_result(work.result())

    def signal(self, number):
        if self.code.done():
            raise TaskGone("not running")
        if number:
            self.code.set_result(128 + number)
            self.work.cancel()


class InMemoryTask:
    def __init__(self, spec, attachments):
        self.id = spec.id
        self.pid = 4242
        self.started_at_ns = time.time_ns()
        self.execs = {}
        self.paused = False
        self.program = Program(spec.process, attachments, START)

    def check(self):
        if self.program.code.done():
            raise TaskGone(f"container {self.id} is not running")

    async def wait(self):
        code = await asyncio.shield(self.program.code)
        for execed in self.execs.values():
            with contextlib.suppress(TaskGone):
                execed.program.signal(9)
        return ExitRecord(code, self.started_at_ns, started_at_ns=self.started_at_ns)

    async def signal(self, number, *, all_processes=False):
        self.program.signal(number)

    async def attach(self, spec):
        self.check()
        ours, theirs = open_attachment(spec)
        self.program.attach(theirs)
        return ours

    async def attach_at(self, spec):
        return await self.attach(spec), 0

    async def resize(self, rows, columns, exec_id=None):
        self.check()

    async def exec(self, spec, attach=None):
        self.check()
        ours, attachments = None, []
        if attach is not None:
            ours, theirs = open_attachment(attach)
            attachments = [theirs]
        try:
            execed = InMemoryExec(spec, attachments, ours)
        except StartFailed:
            if ours is not None:
                ours.close()
            raise
        self.execs[spec.id] = execed
        return execed

    async def find_exec(self, exec_id):
        found = self.execs.get(exec_id)
        return found if found is not None and not found.program.code.done() else None

    async def close_stdin(self):
        self.program.stdin.put_nowait(b"")

    async def pause(self):
        self.check()
        self.paused = True

    async def unpause(self):
        self.check()
        self.paused = False

    async def is_paused(self):
        return self.paused

    async def stats(self):
        self.check()
        return Stats(read_at_ns=time.time_ns(), pids_current=1)

    async def update(self, resources):
        self.check()

    async def top(self):
        self.check()
        return []


class InMemoryExec:
    def __init__(self, spec, attachments, stream: socket.socket | None):
        self.id = spec.id
        self.pid = 4343
        self.stream = stream
        self.program = Program(spec.process, attachments, EXEC)

    async def wait(self):
        return await asyncio.shield(self.program.code)

    async def signal(self, number):
        self.program.signal(number)

    async def resize(self, rows, columns):
        return None


class InMemoryRuntime:
    """Knows its tasks by run dir, as the real one does."""

    def __init__(self):
        self.tasks = {}

    async def start(self, spec, attachments=()):
        task = InMemoryTask(spec, attachments)
        self.tasks[spec.run_dir] = task
        return task

    async def adopt(self, run_dir):
        task = self.tasks.get(run_dir)
        if task is not None and task.program.code.done():
            return await task.wait()
        return task
