"""Cache maps as JSON: the documents whose digests BuildKit computes."""

import base64
import hashlib
import json

import pytest

from orlop.build import graph as g
from orlop.build.cachekey import cache_map, chain_id, content_key, output_key
from orlop.build.gojson import dumps
from orlop.oci.platform import Platform

AMD64 = Platform("linux", "amd64")
COPY = g.CopyAction(
    "/src/a",
    "/b",
    follows_links=True,
    copies_contents=True,
    creates_path=True,
    has_wildcard=True,
    may_match_nothing=True,
)


def sha(document):
    data = document if isinstance(document, bytes) else dumps(document)
    return "sha256:" + hashlib.sha256(data).hexdigest()


def encoded(document):
    return base64.b64encode(json.dumps(document, separators=(",", ":")).encode()).decode()


def test_copy_onto_a_base():
    found = cache_map(g.FileOp((g.FileAction(COPY, 0, 1, 0),)), 2, AMD64)

    action = {
        "src": "a",
        "dest": "/b",
        "mode": -1,
        "followSymlink": True,
        "dirCopyContents": True,
        "createDestPath": True,
        "allowWildcard": True,
        "allowEmptyWildcard": True,
        "timestamp": -1,
    }
    assert found.digest == sha({"Type": "buildkit.file.v0", "Actions": [encoded(action)]})
    assert found.dependencies[0].selector == ""
    assert found.dependencies[1].selector == sha(b"/src/a")


def test_unusual_indexes_are_part_of_it():
    plain = cache_map(g.FileOp((g.FileAction(COPY, 0, 1, 0),)), 2, AMD64)
    scratch = cache_map(g.FileOp((g.FileAction(COPY, -1, 0, 0),)), 1, AMD64)

    assert plain.digest != scratch.digest
    assert scratch.dependencies[0].selections[0].path == "/src/a"


def test_selectors_are_joined_in_reverse_order_and_nested_ones_hashed_once():
    actions = (
        g.FileAction(g.CopyAction("/a", "/"), 0, 1, -1),
        g.FileAction(g.CopyAction("/a/b", "/"), 2, 1, 0),
    )

    dependency = cache_map(g.FileOp(actions), 2, AMD64).dependencies[1]

    assert dependency.selector == sha(b"/a/b\0/a")
    assert [selection.path for selection in dependency.selections] == ["/a"]


def test_run():
    operation = g.ExecOp(("/bin/sh", "-c", "echo <&>"), ("A=b",), "/", proxy_env=(("HTTP_PROXY", "x"),))

    found = cache_map(operation, 1, AMD64)

    assert found.digest == sha(
        b'{"Type":"buildkit.exec.v0","Exec":{"meta":{"args":["/bin/sh","-c","echo \\u003c\\u0026\\u003e"],'
        b'"env":["A=b"],"cwd":"/","removeMountStubsRecursive":true}},"OS":"linux","Arch":"amd64"}'
    )


@pytest.mark.parametrize(
    ("change", "matters"),
    [
        ({"args": ("y",)}, True),
        ({"env": ("A=c",)}, True),
        ({"cwd": "/x"}, True),
        ({"user": "u"}, True),
        ({"network": g.NetworkMode.HOST}, True),
        ({"extra_hosts": (("h", "1.2.3.4"),)}, True),
        ({"ulimits": (("nofile", 1, 2),)}, True),
        ({"proxy_env": (("HTTP_PROXY", "p"),)}, False),
    ],
)
def test_what_can_change_the_result_changes_the_key(change, matters):
    plain = {"args": ("x",), "env": ("A=b",), "cwd": "/"}

    before = cache_map(g.ExecOp(**plain), 1, AMD64).digest
    after = cache_map(g.ExecOp(**(plain | change)), 1, AMD64).digest

    assert (before != after) is matters


def test_the_platform_matters_to_run():
    operation = g.ExecOp(("x",), (), "/")

    assert cache_map(operation, 1, AMD64).digest != cache_map(operation, 1, Platform("linux", "arm64")).digest


def test_an_image_is_known_by_its_layers_not_its_name():
    layers = ("sha256:" + "1" * 64, "sha256:" + "2" * 64)
    one = cache_map(g.SourceOp("docker-image://a", layers), 0, AMD64)
    two = cache_map(g.SourceOp("docker-image://b", layers), 0, AMD64)

    assert one == two
    assert one.digest == sha(f"buildkit.source.v0:{chain_id(layers)}".encode())


def test_a_context_is_known_to_nobody_else():
    assert cache_map(g.SourceOp("local://context"), 0, AMD64).is_ephemeral


def test_keys():
    assert output_key("sha256:d", 0) == sha(b"sha256:d@0")
    assert content_key(["sha256:a", "sha256:b"]) == sha(
        f"{sha(b'sha256:a' + bytes(1) + b'sha256:b')}@-1".encode()
    )
    assert chain_id(("sha256:a",)) == "sha256:a"
    assert chain_id(("sha256:a", "sha256:b")) == sha(b"sha256:a sha256:b")
