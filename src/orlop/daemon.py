"""`orlopd`: the engine as a process.

Start: settings -> directories and locks -> mount namespace -> zygote and database -> recovery ->
sockets, last. SIGTERM and SIGINT end it; its containers go on (`--live-restore=false` stops
them first). SIGHUP reads the configuration file again, SIGUSR1 logs what the loop is doing.
`kill -9` is a supported way to stop it, too: every start is a recovery.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from orlop.base import failpoints, log
from orlop.base.errors import InvalidInput, OrlopError
from orlop.daemon_flags import DEFAULT_CONFIG_FILE, Settings, ShowHelp, parse_file, parse_flags, resolve

__all__ = ["load_settings", "main"]

_FAILPOINT_VARIABLES = ("ORLOP_FAILPOINTS", "ORLOP_FAILPOINTS_RECORD")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the engine until it is told to end; the process's exit code."""
    try:
        settings, task = load_settings(sys.argv[1:] if argv is None else argv)
        _set_up_log(settings)
        failpoints.configure(os.environ.get("ORLOP_FAILPOINTS", ""))
        if record := os.environ.get("ORLOP_FAILPOINTS_RECORD"):
            failpoints.record_hits(record)
        match task:
            case "validate":
                sys.stderr.write("configuration OK\n")
                return 0
            case "fsck":
                return _check_store(settings)
            case _:
                return _run(settings)
    except ShowHelp as shown:
        sys.stdout.write(str(shown))
        return 0
    except (OrlopError, ValueError) as error:
        log.error(str(error))
        sys.stderr.flush()
        return 1


def load_settings(argv: Sequence[str]) -> tuple[Settings, str]:
    """Settings of a command line and its configuration file; and what to do: "", "validate" or "fsck".

    Raises:
        InvalidInput, ShowHelp: see `daemon_flags`.
    """
    flags = parse_flags(argv)
    path = flags.pop("config-file", "")
    task = next((name for name in ("validate", "fsck") if flags.pop(name, False)), "")
    text = ""
    try:
        with open(path or DEFAULT_CONFIG_FILE, encoding="utf-8") as file:
            text = file.read(1 << 20)
    except FileNotFoundError as error:
        if path:
            raise InvalidInput(
                f"unable to configure the Docker daemon with file {path}: no such file"
            ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"unable to configure the Docker daemon with file {path}: {error}") from error
    shown = path or DEFAULT_CONFIG_FILE
    return resolve(flags, parse_file(text, shown), shown), task


def _run(settings: Settings) -> int:
    from orlop import daemon_host as host

    for note in settings.notes:
        log.info(note)
    host.prepare_roots(settings)
    locks = host.lock_roots(settings)
    host.write_pidfile(settings.pidfile)
    try:
        outside = host.enter_mount_namespace(settings.exec_root, host.live_supervisors(settings.exec_root))
        asyncio.run(_serve(settings, outside))
    finally:
        host.remove_pidfile(settings.pidfile)
        for fd in locks:
            os.close(fd)
    return 0


def _check_store(settings: Settings) -> int:
    """`orlopd --fsck`: print what is wrong in the data root; 1 if anything is that no start sweeps."""
    from orlop import daemon_host as host
    from orlop.store import fsck

    if not os.path.isdir(settings.data_root):
        raise InvalidInput(f'data root "{settings.data_root}" does not exist')
    lock = host.lock_root(settings.data_root)
    try:
        findings = fsck.check(settings.data_root)
    finally:
        os.close(lock)
    for finding in findings:
        sys.stdout.write(f"{finding}{' (harmless)' if finding.is_harmless else ''}\n")
    return int(not all(finding.is_harmless for finding in findings))


async def _serve(settings: Settings, outside: int) -> None:
    from orlop.procs.zygote import Zygote

    stop = asyncio.Event()
    _handle_signals(stop)
    points = {name: os.environ[name] for name in _FAILPOINT_VARIABLES if name in os.environ}
    points["ORLOP_LOG_FORMAT"] = settings.log_format
    starting = asyncio.create_task(  # noqa: TID251 - awaited in build_plant
        Zygote.start(settings.exec_root, environment=points)
    )
    await asyncio.sleep(0)  # it has been executed now, and imports while we do

    from orlop import daemon_host as host
    from orlop.aio.http_server import HttpServer
    from orlop.api.app import App
    from orlop.daemon_tracing import start_tracing
    from orlop.daemon_wiring import build_plant

    plant = await build_plant(settings, starting, outside)
    reload = partial(_reload, plant.engine.system.reloaded)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
    counting = plant.metrics.meters.answered if plant.metrics is not None else None
    app = App(plant.engine, is_experimental=settings.is_experimental, on_answer=counting)
    server = HttpServer(app.handle)
    exporter = None
    try:
        await plant.recover()
        failpoints.hit("daemon.recovered")
        for sock, uses_tls in host.open_listeners(settings, os.environ):
            await server.start(sock, host.tls_context(settings) if uses_tls else None)
        exporter = start_tracing(os.environ, plant.services.background)
        if plant.metrics is not None:
            await plant.metrics.start()
        host.notify("READY=1", os.environ)
        log.info("engine is ready", data_root=settings.data_root, containers=len(plant.services.catalog))
        plant.reconciler.apply_policies()
        plant.tidy()
        await stop.wait()
        host.notify("STOPPING=1", os.environ)
        log.info("engine ends")
    finally:
        plant.runner.prepare_shutdown()
        if stop.is_set() and not settings.keeps_containers:
            await _stop_containers(plant.stopper.stop_all(), settings.shutdown_timeout_s)
        await server.close(grace_s=1.0)
        if exporter is not None:
            await exporter.aclose()
        await plant.close()
        host.remove_sockets(settings)


async def _stop_containers(stopping: Coroutine[Any, Any, None], timeout_s: int) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s if timeout_s >= 0 else None):
            await stopping


def _handle_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, _reload)
    loop.add_signal_handler(signal.SIGUSR1, _dump)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def _reload(told: Callable[..., object] | None = None) -> None:
    """Take over from the configuration file what can change while we run: level and format of the log."""
    try:
        settings, _ = load_settings(sys.argv[1:])
        _set_up_log(settings)
    except (OrlopError, ValueError) as error:
        log.error("cannot reload the configuration", error=error)
    else:
        log.info("configuration reloaded", level=settings.log_level, format=settings.log_format)
        if told is not None:
            told(is_debug=settings.log_level == "debug")


def _set_up_log(settings: Settings) -> None:
    log.set_level("error" if settings.log_level == "fatal" else settings.log_level)
    log.set_format(settings.log_format)


def _dump() -> None:
    """Log what every task waits for."""
    for task in asyncio.all_tasks():
        frames = task.get_stack(limit=3)
        where = " < ".join(
            f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}" for frame in frames
        )
        log.info("task", name=task.get_name(), at=where)


if __name__ == "__main__":
    sys.exit(main())
