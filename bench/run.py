"""Measure the budgets of the design beside an installed peer, in one run, and write docs/benchmarks.md.

python bench/run.py [--only WORD] [--no-peer] [--no-write]
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import images
from harness import Engine, peer_available, running
from logs import LOG_ROWS
from rows import CONTAINER_ROWS, MILLI, NotComparable, Row
from supervision import SUPERVISION_ROWS

REPORT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
HEADER = """# Benchmarks

Made by `make bench`; nothing here is typed by hand. Both engines run the same calls on the same machine in
the same run, one after the other. Ratio: how many times better than the peer.

{facts}

| what a user waits for | Orlop | peer | ratio | budget | within |
|---|---|---|---|---|---|
"""


def _facts(peer: bool) -> str:
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    lines = [
        f"- machine: {os.cpu_count()} cores ({model}), {os.sysconf('SC_PHYS_PAGES') * 4096 >> 30} GiB",
        f"- kernel {platform.release()}, Python {platform.python_version()}",
    ]
    if peer:
        version = subprocess.run(
            ["dockerd", "--version"], check=True, capture_output=True, text=True
        ).stdout.strip()
        lines.append(f"- peer: {version}")
    return "\n".join(lines)


def measure(name: str, rows: tuple[Row, ...]) -> dict[str, float | str]:
    """Run every row on a fresh engine; a row that fails says so and the others go on."""
    results: dict[str, float | str] = {}
    flags = ("--insecure-registry", "127.0.0.0/8")
    with running(name, *flags) as engine:
        results["engine start to first answer"] = engine.started_s / MILLI
        images.load(engine, images.busybox_archive())
        for row in rows:
            results[row.name] = _measure_row(engine, row)
            print(f"{name:8} {row.name:48} {results[row.name]}", file=sys.stderr)
    return results


def _measure_row(engine: Engine, row: Row) -> float | str:
    try:
        return row.measure(engine)
    except NotComparable as error:
        return str(error)
    except Exception as error:
        detail = getattr(error, "stderr", b"") or str(error)
        print(f"{engine.name}: {row.name}: {detail!r}", file=sys.stderr)
        return "failed"


def _line(row: Row, ours: float | str, theirs: float | str | None) -> str:
    show = lambda value: f"{value:,.1f} {row.unit}" if isinstance(value, float) else (value or "-")
    ratio, within = "-", "-"
    if isinstance(ours, float) and isinstance(theirs, float) and ours and theirs:
        ratio = f"{ours / theirs if row.is_more_better else theirs / ours:.1f}x"
    if isinstance(ours, float) and row.budget is not None:
        within = "yes" if (ours >= row.budget if row.is_more_better else ours <= row.budget) else "no"
    budget = f"{row.budget:g} {row.unit}" if row.budget is not None else "-"
    return f"| {row.name} | {show(ours)} | {show(theirs)} | {ratio} | {budget} | {within} |"


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="rows whose name has this word")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--no-write", action="store_true")
    options = parser.parse_args()
    peer = peer_available() and not options.no_peer
    with images.registry() as host:
        known = CONTAINER_ROWS + LOG_ROWS + SUPERVISION_ROWS + images.image_rows(host)
        rows = tuple(row for row in known if options.only in row.name)
        ours = measure("orlop", rows)
        theirs = measure("dockerd", rows) if peer else {}
    start = Row("engine start to first answer", "ms", 400, lambda engine: engine.started_s)
    table = "\n".join(_line(row, ours[row.name], theirs.get(row.name)) for row in (start, *rows))
    text = HEADER.format(facts=_facts(peer)) + table + "\n"
    print(text)
    if not options.no_write and not options.only:
        REPORT.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
