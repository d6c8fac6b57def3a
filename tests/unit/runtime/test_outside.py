import json
import os

import pytest

from orlop.procs.channel import channel_pair
from orlop.runtime import cgroupfs, outside
from orlop.runtime.mountopts import parse_options
from orlop.runtime.rootfs import Source, options_of
from orlop.runtime.spec import (
    ContainerSpec,
    IdMapping,
    LogSpec,
    MountSpec,
    ProcessSpec,
    RootSpec,
    UserNamespaceSpec,
    to_json,
)
from orlop.runtime.speccodec import container_spec_from_json

MAPPINGS = (IdMapping(0, 800_000, 1000), IdMapping(1000, 900_000, 10))


@pytest.mark.parametrize(
    ("inside", "on_the_host"),
    [(0, 800_000), (999, 800_999), (1000, 900_000), (1009, 900_009), (1010, 800_000)],
)
def test_an_id_is_looked_up_and_what_has_no_place_is_roots(inside, on_the_host):
    assert outside.host_id(MAPPINGS, inside) == on_the_host


def test_a_map_without_root_or_with_nothing_in_it_is_refused():
    outside.check(UserNamespaceSpec(MAPPINGS, MAPPINGS))
    for uids, gids in ((MAPPINGS, MAPPINGS[1:]), ((), MAPPINGS), ((IdMapping(0, 5, 0),), MAPPINGS)):
        with pytest.raises(ValueError, match="maps no"):
            outside.check(UserNamespaceSpec(uids, gids))


def test_a_spec_with_a_user_namespace_survives_its_json():
    own = UserNamespaceSpec(MAPPINGS, MAPPINGS[:1], "/proc/1/ns/user")
    root = RootSpec(("/l",), "/s/upper", "/s/work", is_mapped=True)
    spec = ContainerSpec("c", "/r", root, ProcessSpec(("true",)), LogSpec("none", ""), user_namespace=own)

    assert container_spec_from_json(json.loads(json.dumps(to_json(spec)))) == spec


def test_what_the_host_side_made_arrives_whole_however_much_it_is(tmp_path):
    ours, theirs = channel_pair()
    opened = []

    def file(name):
        (tmp_path / name).write_text(name)
        opened.append(os.open(tmp_path / name, os.O_RDONLY))
        return opened[-1]

    specs = [MountSpec("bind", f"/m{n}", f"/s{n}", ("rbind", "idmap", "ro")) for n in range(150)]
    tmpfs = MountSpec("tmpfs", "/t", "", ("exec", "size=1m"))
    made = outside.Made(
        root=file("root"),
        null=file("null"),
        sources=[Source(spec, options_of(spec), file(spec.source[1:])) for spec in specs]
        + [Source(tmpfs, options_of(tmpfs))],
        cgroup=cgroupfs.Sources((("cpu", file("cpu")),), (("cpuacct", "cpu"),)),
    )

    outside.send(ours, made)
    ours.close()
    got = outside.receive(outside.Outside(theirs, ()))
    theirs.close()

    def text(fd):
        opened.append(fd)
        return os.pread(fd, 100, 0).decode()

    assert (text(got.root), text(got.null), got.dev, got.shm) == ("root", "null", -1, -1)
    assert [(item.spec, item.options) for item in got.sources] == [(i.spec, i.options) for i in made.sources]
    assert [text(item.fd) for item in got.sources[:-1]] == [spec.source[1:] for spec in specs]
    assert got.sources[-1].fd == -1
    assert got.sources[0].options.is_mapped
    assert got.cgroup.links == (("cpuacct", "cpu"),)
    assert [(name, text(fd)) for name, fd in got.cgroup.mounts] == [("cpu", "cpu")]
    for fd in opened:
        os.close(fd)


def test_a_failure_and_an_early_end_are_told_apart():
    for send, kind in ((True, outside.HostSideFailed), (False, OSError)):
        ours, theirs = channel_pair()
        if send:
            ours.send({"step": "mount sources", "message": "why", "exit_code": 128})
        ours.close()
        with theirs.socket, pytest.raises(kind) as caught:
            outside.receive(outside.Outside(theirs, ()))
        assert ("why" in str(caught.value)) is send


def test_idmap_is_a_word_of_binds():
    assert parse_options(("rbind", "idmap")).is_mapped
    assert not parse_options(("rbind",)).is_mapped
