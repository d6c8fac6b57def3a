"""From engine to engine. `ssh` is played by a script that runs the other end's command here."""

import re
import sys

import pytest

from support import images, orlopd
from support.contexts import write

_SSH = """#!/bin/sh
echo "$@" >> {folder}/calls
exec {python} -m orlop.cli.main -H {address} system dial-stdio
"""


@pytest.fixture
def other(engine, tmp_path):
    """Another engine, behind the host `other.test`."""
    with orlopd.Orlopd() as running:
        script = tmp_path / "ssh"
        script.write_text(_SSH.format(folder=tmp_path, python=sys.executable, address=running.address))
        script.chmod(0o755)
        running.by_ssh = {"ORLOP_SSH_COMMAND": str(script)}
        running.calls = tmp_path / "calls"
        yield running


def build(engine, folder, text):
    directory = write(folder, {"Dockerfile": f"FROM busybox\nRUN echo {text} > /text\nCMD cat /text\n"})
    engine.docker("build", "-q", "-t", "sent:1", directory)
    return engine.docker("image", "inspect", "-f", "{{.Id}}", "sent:1").stdout


def missing(shown):
    return tuple(map(int, re.search(r"(\d+) of (\d+) layers are missing there", shown).groups()))


def test_only_layers_that_are_missing_travel(engine, other, tmp_path):
    first = build(engine, tmp_path / "a", "one")
    every = engine.orlop("push", "ssh://me@other.test:2222/sent:1", env=other.by_ssh).stdout
    second = build(engine, tmp_path / "b", "two")
    new = engine.orlop("push", "ssh://other.test/sent:1", env=other.by_ssh).stdout
    none = engine.orlop("push", "ssh://other.test/sent:1", env=other.by_ssh).stdout

    assert first != second
    assert missing(every) == (2, 2)
    assert missing(new) == (1, 2)
    assert missing(none) == (0, 2)
    assert "Loaded image: sent:1" in none
    assert other.docker("image", "inspect", "-f", "{{.Id}}", "sent:1").stdout == second
    assert other.docker("run", "--rm", "sent:1").stdout == "two\n"
    assert "-p 2222 -- me@other.test orlop system dial-stdio" in other.calls.read_text()


def test_the_client_talks_to_engines_behind_ssh(engine, other):
    shown = engine.orlop_by_environment(
        "images", "-q", env={**other.by_ssh, "ORLOP_HOST": "ssh://other.test"}
    )

    assert shown.returncode == 0
    assert other.calls.exists()


def test_an_archive_without_layers_that_are_not_here_is_refused(engine, other):
    layers = engine.api().api._post_json  # docker-py's own way to send JSON
    api = engine.api().api
    known = api._result(layers(f"{api.base_url}/orlop/layers/of", data={"Names": ["busybox"]}), json=True)
    body = {"Names": ["busybox"], "Without": known["Layers"]}
    archive = layers(f"{api.base_url}/orlop/images/export", data=body).content

    done = other.docker("load", input=archive, check=False)

    assert len(archive) < 20_000 < len(images.busybox_archive("busybox"))
    assert done.returncode == 1
    assert b"is neither in the archive nor here" in done.stderr
    assert other.docker("images", "-q").stdout == ""


@pytest.mark.parametrize("url", ["ssh://-oProxyCommand=x/sent:1", "ssh://a b/sent:1", "ssh://host"])
def test_hosts_that_are_none_are_refused(engine, url):
    done = engine.orlop("push", url, check=False)

    assert done.returncode in {1, 125}
    assert "ssh" in done.stderr
