"""The text in which Prometheus reads metrics: families of samples with labels.

Spec: Prometheus exposition formats, text version 0.0.4. Label values and help texts may hold anything: they
are bounded, escaped, and cannot end a line. Names are ours; a wrong one is our bug.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["CONTENT_TYPE", "MAX_LABEL_CHARS", "Family", "Sample", "encode", "label_text"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_LABEL_CHARS = 256
KINDS = ("counter", "gauge", "histogram", "summary", "untyped")

_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
_CONTROLS = {code: "\ufffd" for code in (*range(0x20), 0x7F) if code != 0x0A}
_IN_HELP = str.maketrans({**_CONTROLS, "\\": r"\\", "\n": r"\n"})
_IN_LABEL = str.maketrans({**_CONTROLS, "\\": r"\\", "\n": r"\n", '"': r"\""})


class Sample(NamedTuple):
    """One value. `labels` is a `label_text`, `suffix` what follows the family's name (`_sum`)."""

    value: float
    labels: str = ""
    suffix: str = ""


@dataclass(slots=True)
class Family:
    """All samples of one name. A family without samples is not shown."""

    name: str
    kind: str
    help: str
    samples: list[Sample] = field(default_factory=list)

    def add(self, value: float, labels: str = "", suffix: str = "") -> None:
        """One more sample."""
        self.samples.append(Sample(value, labels, suffix))


def label_text(values: Mapping[str, str]) -> str:
    """`{name="value",...}`; nothing for no labels. Make it once for all samples of a thing."""
    parts = []
    for name, value in values.items():
        if not _LABEL_NAME.match(name):
            raise ValueError(f"{name!r} is not the name of a label")
        parts.append(f'{name}="{value[:MAX_LABEL_CHARS].translate(_IN_LABEL)}"')
    return f"{{{','.join(parts)}}}" if parts else ""


def encode(families: Iterable[Family]) -> bytes:
    """The whole document."""
    lines: list[str] = []
    for family in families:
        if not family.samples:
            continue
        name = family.name
        if not _METRIC_NAME.match(name) or family.kind not in KINDS:
            raise ValueError(f"{name!r} of kind {family.kind!r} is not a metric")
        lines += (f"# HELP {name} {family.help.translate(_IN_HELP)}", f"# TYPE {name} {family.kind}")
        lines += [f"{name}{suffix}{labels} {_number(value)}" for value, labels, suffix in family.samples]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(int(value))
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if math.isnan(value) else repr(value)
