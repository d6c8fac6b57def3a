"""Names of runtimes."""

import pytest

from orlop.base.errors import InvalidInput
from orlop.engine.runtimes import configured_runtimes, find_runtimes, parse_runtime
from orlop.runtime.spec import RuntimeSpec


def catalog(*configured, default="", present=()):
    return find_runtimes(configured, default, lambda name: f"/usr/bin/{name}" if name in present else None)


def test_the_embedded_one_is_the_default():
    assert catalog(present=("runc",)).choose("") is None
    assert catalog().choose("orlop") is None
    assert catalog().shown() == (("orlop", ""),)


def test_what_the_host_has_is_found_by_name():
    found = catalog(present=("crun", "runc"))
    assert found.choose("crun") == RuntimeSpec("crun", "/usr/bin/crun")
    assert found.choose("io.containerd.runc.v2") == RuntimeSpec("runc", "/usr/bin/runc")
    assert found.shown() == (("orlop", ""), ("crun", "/usr/bin/crun"), ("runc", "/usr/bin/runc"))


def test_runc_is_the_usual_one_where_there_is_no_runc():
    assert catalog().choose("runc") is None
    assert catalog().choose("io.containerd.runc.v2") is None


def test_a_configured_one_comes_first():
    mine = RuntimeSpec("runc", "/opt/runc", ("--debug",))
    assert catalog(mine, present=("runc",)).choose("runc") == mine
    assert catalog(RuntimeSpec("k", "kata"), present=("kata",)).choose("k").path == "/usr/bin/kata"


@pytest.mark.parametrize("name", ["nosuch", "crun", "io.containerd.kata.v2", "../runc", "x" * 5000])
def test_an_unknown_one_is_refused_in_dockers_words(name):
    with pytest.raises(InvalidInput, match=r"^unknown or invalid runtime name: ") as caught:
        catalog().choose(name)
    assert len(caught.value.message) < 200
    assert "orlop" in caught.value.hint


def test_the_default_must_exist():
    assert catalog(default="crun", present=("crun",)).choose("").name == "crun"
    with pytest.raises(InvalidInput, match="specified default runtime 'crun' does not exist"):
        catalog(default="crun")


def test_flags():
    assert parse_runtime("mine=/opt/x") == RuntimeSpec("mine", "/opt/x")
    for text in ("mine", "mine=", "=x", "orlop=/x", "a b=/x"):
        with pytest.raises(InvalidInput):
            parse_runtime(text)


def test_the_configuration_file():
    assert configured_runtimes({"a": {"path": "/a", "runtimeArgs": ["--x"]}, "b": {"path": "b"}}) == [
        RuntimeSpec("a", "/a", ("--x",)),
        RuntimeSpec("b", "b"),
    ]
    for value in ([], {"a": 1}, {"a": {}}, {"a": {"path": 1}}, {"a": {"path": "/a", "runtimeArgs": "x"}}):
        with pytest.raises(InvalidInput):
            configured_runtimes(value)
    with pytest.raises(InvalidInput, match="runtimeType"):
        configured_runtimes({"a": {"runtimeType": "io.containerd.runsc.v1"}})
