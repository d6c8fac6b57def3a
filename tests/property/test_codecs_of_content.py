"""Round trips of compressed streams and image configs."""

import gzip

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.oci.imageconfig import HistoryEntry, RunConfig, derive_config, parse_image_config
from orlop.oci.platform import Platform
from orlop.store.compress import BadCompression, auto_decompressor

text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
texts = st.lists(text, max_size=3).map(tuple)
runs = st.builds(
    RunConfig,
    user=text,
    exposed_ports=st.lists(text, max_size=3, unique=True).map(tuple),
    env=texts,
    entrypoint=st.none() | texts,
    cmd=st.none() | texts,
    volumes=st.lists(text, max_size=3, unique=True).map(tuple),
    working_dir=text,
    labels=st.dictionaries(text, text, max_size=3),
    stop_signal=text,
    shell=st.none() | texts,
    on_build=texts,
    args_escaped=st.booleans(),
)
steps = st.lists(
    st.builds(HistoryEntry, st.integers(-(10**18), 4 * 10**18), text, text, text, st.just(value=True)),
    min_size=1,
    max_size=3,
)


@settings(max_examples=60, deadline=None)
@given(runs, steps)
def test_a_derived_config_parses_to_what_it_was_made_of(run, history):
    raw = derive_config(None, run=run, history=history, platform=Platform("linux", "amd64"))
    parsed = parse_image_config(raw)

    assert parsed.run == run
    assert parsed.history == tuple(history)
    again = derive_config(parsed, run=run, history=[])
    assert parse_image_config(again).run == run


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.binary(max_size=5000), min_size=1, max_size=4),
    st.integers(1, 3000),
    st.sampled_from([gzip.compress, zstandard.compress]),
    st.integers(0, 10**6),
)
def test_members_concatenate_and_cuts_are_found(parts, size, pack, cut):
    packed = b"".join(pack(part) for part in parts)

    def inflate(data):
        machine = auto_decompressor(1 << 30)
        out = b"".join(
            piece for at in range(0, len(data), size) for piece in machine.feed(data[at : at + size])
        )
        machine.finish()
        return out

    assert inflate(packed) == b"".join(parts)
    last = len(packed) - len(pack(parts[-1]))
    broken = packed[: last + 1 + cut % (len(packed) - last - 1)]
    with pytest.raises(BadCompression):
        inflate(broken)
