"""Specs, clients and a runtime with its own zygote: what the root tests of the runtime share."""

import asyncio
import contextlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from orlop.base.ids import new_hex_id
from orlop.kernel import cgroup
from orlop.procs.zygote import Zygote
from orlop.runtime import contain, defaults
from orlop.runtime.contract import open_attachment
from orlop.runtime.service import SupervisedRuntime
from orlop.runtime.spec import AttachSpec, ContainerSpec, ExecSpec, LogSpec, ProcessSpec, RootSpec
from orlop.wire.stdstream import FrameDecoder

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ALL = AttachSpec(has_stdin=True, has_stdout=True, has_stderr=True)


@dataclass
class Output:
    code: int
    stdout: bytes
    stderr: bytes
    record: object = None

    @property
    def text(self):
        return self.stdout.decode()


async def read_all(stream, *, is_raw=False):
    """(stdout, stderr) up to the end of a stream."""
    loop = asyncio.get_running_loop()
    raw, streams, decoder = b"", {1: b"", 2: b""}, FrameDecoder()
    while data := await asyncio.wait_for(loop.sock_recv(stream, 65536), 20):
        raw += data
        if not is_raw:
            for number, piece in decoder.feed(data):
                streams[number] += piece
    return (raw, b"") if is_raw else (streams[1], streams[2])


async def read_until(stream, text, *, timeout_s=10):
    loop = asyncio.get_running_loop()
    seen = b""
    while text not in seen:
        data = await asyncio.wait_for(loop.sock_recv(stream, 65536), timeout_s)
        assert data, f"ended before {text!r}: {seen!r}"
        seen += data
    return seen


class Harness:
    """Makes specs and runs them."""

    def __init__(self, base: Path, rootfs: Path):
        self.base = base
        self.rootfs = rootfs
        self.zygote = None
        self.runtime = None
        self.specs = []
        self.environment = {}

    def spec(self, *args, process=None, **fields) -> ContainerSpec:
        container = new_hex_id()
        home = self.base / container
        for name in ("run", "upper", "work", "log"):
            (home / name).mkdir(parents=True)
        values = {"args": args, "env": (PATH,), "capabilities": defaults.CAPABILITIES, **(process or {})}
        fields.setdefault("hostname", container[:12])
        fields.setdefault("log", LogSpec("json-file", str(home / "log")))
        fields.setdefault("root", RootSpec((str(self.rootfs),), str(home / "upper"), str(home / "work")))
        spec = ContainerSpec(id=container, run_dir=str(home / "run"), process=ProcessSpec(**values), **fields)
        self.specs.append(spec)
        return spec

    def exec_spec(self, *args, **process) -> ExecSpec:
        values = {"args": args, "env": (PATH,), "capabilities": defaults.CAPABILITIES, **process}
        return ExecSpec(new_hex_id(), ProcessSpec(**values))

    async def start(self, *args, **fields):
        """(task, stream) of a container that a client is attached to from the first byte."""
        return await self.start_spec(self.spec(*args, **fields))

    async def start_spec(self, spec):
        stream, attachment = open_attachment(ALL)
        try:
            return await self.runtime.start(spec, [attachment]), stream
        except BaseException:
            stream.close()
            raise

    async def run(self, *args, stdin=None, **fields) -> Output:
        if stdin is not None:
            fields["process"] = {**fields.get("process", {}), "has_stdin": True, "stdin_once": True}
        task, stream = await self.start(*args, **fields)
        with stream:
            if stdin is not None:
                await asyncio.get_running_loop().sock_sendall(stream, stdin)
                stream.shutdown(socket.SHUT_WR)
            is_raw = fields.get("process", {}).get("has_tty", False)
            stdout, stderr = await read_all(stream, is_raw=is_raw)
        record = await asyncio.wait_for(task.wait(), 30)
        return Output(record.exit_code, stdout, stderr, record)

    async def shell(self, script, **fields) -> Output:
        return await self.run("sh", "-c", script, **fields)

    async def exec(self, task, *args, **process) -> Output:
        execed = await task.exec(self.exec_spec(*args, **process), ALL)
        with execed.stream:
            stdout, stderr = await read_all(execed.stream, is_raw=process.get("has_tty", False))
        return Output(await asyncio.wait_for(execed.wait(), 20), stdout, stderr)

    async def restart_engine(self):
        """What a killed and restarted engine is to the containers: a new zygote, new connections."""
        await self.runtime.aclose()
        os.kill(self.zygote.pid, 9)
        await self.zygote.aclose()
        await self.open()

    async def open(self):
        self.zygote = await Zygote.start(str(self.base), environment=self.environment)
        self.runtime = SupervisedRuntime(self.zygote)

    async def close(self):
        for spec in self.specs:
            with contextlib.suppress(Exception):
                task = await self.runtime.adopt(spec.run_dir)
                if hasattr(task, "signal"):
                    await task.signal(9)
                    await asyncio.wait_for(task.wait(), 10)
        await self.runtime.aclose()
        await self.zygote.aclose()
        host = cgroup.detect()
        for spec in self.specs:  # what is stubborn, an engine would sweep
            contain.destroy(contain.cgroup_of(spec, host))
