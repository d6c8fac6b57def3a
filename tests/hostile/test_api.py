"""Bodies, parameters and headers that no client sends: an answer in Docker's words, never a fault of our own.

The fields are those of the request types themselves, so that a new field is tried with every odd value, too.
"""

import dataclasses
import json
import typing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orlop.api.app import build_routes
from orlop.engine import extensions, requests
from orlop.wire.gofields import bare_type, key_of
from support.hostile import DIR, FILE, HARD, LINK, tar_of

pytestmark = pytest.mark.system

ODD = [
    None, True, 0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**64, 1.5, -0.0, 1e300, "", "0", "-1", "x",
    "x" * 70_000, "a\0b", "a\nb\r\n", "../../../etc", "/", "host", "container:", "container:x", "%s{}$(id)",
    "\ud800", "\u202e\U0001f40b", "1e9", "sha256:" + "f" * 64, "always", "json-file", "unconfined", "seccomp=/etc/passwd",
    "/a:/b:ro,rw,z", "/:/:rw", "x:y:z:w", "0-9999999999", "1-0,,", "80/tcp", "-5/sctp", "1-70000/udp",
    [], [None], [[]], [{}], ["" , "a=b"], ["\0"], ["x"] * 500, [1], {}, {"": ""}, {"a": None}, {"a": {}}, {"a": [None]},
    {"x/y/z": [{"HostPort": "99999999"}]}, {"\0": "\0"}, {"a": "b" * 70_000}, {"Name": -1, "Type": [], "Count": "x"},
]  # fmt: skip
BAD_TEXT = (
    "Traceback",
    "internal error",
    'File "',
    "0x7f",
    "object at",
    "NoneType",
    "KeyError",
    "ValueError",
)
REFUSED = {400, 403, 404, 405, 406, 409, 413, 414, 415, 431, 501}


def fields_of(cls, depth=3):
    """(path of keys, whether it is in a list or map) of every field of a request type, those of its parts included."""
    hints = typing.get_type_hints(cls)
    for item in dataclasses.fields(cls):
        path = (key_of(item),)
        yield path
        part = part_of(hints[item.name])
        if part is not None and depth:
            wrap = is_sequence(hints[item.name])
            yield from ((*path, *([0] if wrap else []), *inner) for inner in fields_of(part, depth - 1))


def part_of(hint):
    bare, _ = bare_type(hint)
    if dataclasses.is_dataclass(bare):
        return bare
    found = [part_of(item) for item in typing.get_args(bare) if item is not Ellipsis]
    return next((item for item in found if item is not None), None) if is_sequence(hint) else None


def is_sequence(hint):
    bare, _ = bare_type(hint)
    return typing.get_origin(bare) in (tuple, list)


def set_at(body, path, value):
    """Put a value at a path of keys; 0 = the first element of a list."""
    here = body
    for key, following in zip(path, (*path[1:], None), strict=True):
        if following is None:
            here[key] = value
        elif following == 0:
            here = here.setdefault(key, [{}])
        elif key == 0:
            here = here[0]
        else:
            here = here.setdefault(key, {})
    return body


def check(reply, *, fine=(200, 201, 204, 304)):
    """An answer that a client understands: fine, or refused with a text for people."""
    assert reply.status in fine or reply.status in REFUSED, (reply.status, reply.body[:500])
    text = reply.body.decode(errors="replace")
    if reply.status in REFUSED:
        assert [word for word in BAD_TEXT if word in text] == [], text[:1000]
        assert not reply.body or reply.message, text[:500]
        assert len(text) < 8000, "a refusal repeats what it was sent"


def cleaned(door, reply):
    if reply.status == 201 and b'"Id"' in reply.body and not reply.body.startswith(b'{"Id":"sha256'):
        door.ask("DELETE", f"/containers/{reply.value()['Id']}", force=1, v=1)
    return reply


CREATE = sorted(
    {path for path in fields_of(requests.CreateBody) if path[0] not in ("Image", "NetworkingConfig")}, key=str
)


@pytest.mark.parametrize("part", range(4))
def test_every_field_of_a_create_with_odd_values(door, part):
    """CVE-2018-20699, CVE-2021-21285, CVE-2024-36620: a value of a field ends the engine or shows its insides."""
    assert len(CREATE) > 120
    for number, path in enumerate(CREATE[part::4]):
        for turn in range(0, len(ODD), 11):
            value = ODD[(turn + number) % len(ODD)]
            body = set_at({"Image": "busybox", "Cmd": ["true"]}, path, value)
            check(cleaned(door, door.ask("POST", "/containers/create", body)))


json_values = st.recursive(
    st.sampled_from([item for item in ODD if not isinstance(item, list | dict)])
    | st.integers()
    | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def bodies(cls, **fixed):
    paths = list(fields_of(cls))
    pairs = st.lists(
        st.tuples(st.sampled_from(paths), json_values | st.sampled_from(ODD)), min_size=1, max_size=6
    )

    def build(chosen):
        body = dict(fixed)
        for path, value in chosen:
            try:
                set_at(body, path, value)
            except (TypeError, AttributeError, KeyError, IndexError):
                continue  # another value is in its way
        return body

    return pairs.map(build)


few = settings(
    max_examples=50, deadline=None, database=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)  # fmt: skip


@few
@given(body=bodies(requests.CreateBody, Image="busybox"))
def test_bodies_of_create(door, body):
    """CVE-2018-20699, CVE-2021-21285: likewise, several at once."""
    check(cleaned(door, door.ask("POST", "/containers/create", body)))


@pytest.fixture(scope="module")
def target(engine, door):
    """A running container that nobody may harm."""
    name = door.create("busybox", "sleep", "1000").value()["Id"]
    door.ask("POST", f"/containers/{name}/start")
    yield name
    door.ask("DELETE", f"/containers/{name}", force=1)


@pytest.fixture(autouse=True)
def _stays_alive(engine, door, target):
    """The target of this module outlives its tests; the log is looked at as elsewhere."""
    seen = len(engine.log())
    yield
    assert door.ask("GET", f"/containers/{target}/json").value()["State"]["Running"]
    told = engine.log()[seen:]
    assert [word for word in ("Traceback", "handler failed") if word in told] == [], told[-3000:]


@few
@given(body=bodies(requests.ExecConfig, Cmd=["true"]), start=bodies(requests.ExecStart))
def test_bodies_of_exec(door, target, body, start):
    """CVE-2018-20699 for execs: what is created can be started and ends, whatever it was asked to be."""
    made = door.ask("POST", f"/containers/{target}/exec", body)
    check(made)
    if made.status == 201:
        started = door.ask("POST", f"/exec/{made.value()['Id']}/start", start | {"Detach": True})
        check(started, fine=(200, 500) if b"OCI runtime exec failed" in started.body else (200,))
        assert b"ValueError" not in started.body
        assert b"internal error" not in started.body


@few
@given(body=bodies(extensions.UpdateBody))
def test_bodies_of_update(door, target, body):
    """CVE-2018-20699 for updates: limits that cannot be, on a running container."""
    if isinstance(body.get("Orlop"), dict):
        body["Orlop"]["Restart"] = False
    for name in ("Memory", "MemorySwap", "PidsLimit", "CpuQuota"):  # what would kill the target by right
        body.pop(name, None)
    reply = door.ask("POST", f"/containers/{target}/update", body)
    check(reply, fine=(200, 500) if b"cannot update" in reply.body.lower() else (200,))


@few
@given(body=bodies(requests.VolumeCreateRequest))
def test_bodies_of_volumes(door, body):
    """CVE-2024-9676: names of volumes are names."""
    reply = door.ask("POST", "/volumes/create", body)
    check(reply)
    if reply.status == 201:
        assert "/" not in reply.value()["Name"]
        door.ask("DELETE", f"/volumes/{reply.value()['Name']}", force=1)


IDS = [
    "x",
    "..",
    "%2e%2e%2f%2e%2e%2fetc",
    "a%00b",
    "%ff%fe",
    "*",
    "'",
    "%7B%7D",
    "a" * 5000,
    "%0a",
    "sha256:zz",
    "-",
    ".",
]
PARAMETERS = (
    "all limit size filters since until tail t signal h w path name force v link condition fromImage repo tag "
    "dockerfile cachefrom buildargs platform noOverwriteDirNonDir copyUIDGID follow stdout timestamps ps_args "
    "changes container comment pause stream one-shot details q remote version outputs memory shmsize ulimits"
).split()
WORDS = [
    "",
    "x",
    "-1",
    "9" * 40,
    "1e400",
    "{",
    '{"a":',
    '{"label":["a"],"x":[]}',
    "[" * 900,
    '{"a":{"b":1}}',
    "../..",
    "%zz",
    "a%00b",
    "%ff",
    "nan",
    "true",
]
STREAMS = {"SystemEvents", "ContainerAttachWebsocket", "ContainerAttach", "SystemPing"}
REMOTE = {"ImagePush", "ImageCreate", "DistributionInspect", "SystemAuth"}  # they would ask a registry


def is_tried(route):
    return (
        route.operation not in STREAMS | REMOTE
        and "prune" not in route.path
        and not route.handler.__module__.endswith("remote_images")
    )


@pytest.mark.parametrize("part", range(3))
def test_every_route_with_odd_names_and_parameters(door, target, part):
    """CVE-2014-9357, CVE-2024-36620: ids, paths and parameters of every operation there is."""
    routes = [route for route in build_routes() if is_tried(route)]
    for number, route in enumerate(routes[part::3]):
        for turn, word in enumerate(WORDS):
            own = IDS[(turn + number) % len(IDS)]
            path = (
                route.path.replace("{id}", own)
                .replace("{name}", own)
                .replace("{id:.*}", own)
                .replace("{name:.*}", own)
            )
            query = "&".join(f"{name}={word}" for name in PARAMETERS[turn % 3 :: 3])
            reply = door.ask(
                route.method, f"{path}?{query}", None if route.method in ("GET", "HEAD") else b""
            )
            fine = (200, 201, 204, 304) if b"OCI runtime" not in reply.body else (500,)
            check(reply, fine=(503,) if b"not part of a swarm" in reply.body else fine)


@pytest.mark.parametrize("word", [*WORDS, "0", "65536", "KILL;id", "SIGSIGTERM", "99"])
def test_parameters_of_a_running_container(door, target, word):
    """CVE-2022-31030 and its kind: operations on what runs, with parameters that mean nothing."""
    for method, path, names in (
        ("POST", "resize", "h w"), ("GET", "logs", "tail since until grep"), ("GET", "top", "ps_args"),
        ("HEAD", "archive", "path"), ("GET", "archive", "path"), ("GET", "json", "size"), ("POST", "rename", "name"),
    ):  # fmt: skip
        query = "&".join(f"{name}={word}" for name in names.split())
        check(door.ask(method, f"/containers/{target}/{path}?stdout=1&{query}"), fine=(200, 204))


ARCHIVES = {
    "empty": b"",
    "garbage": b"\xff" * 5000,
    "half": tar_of(("f", FILE, b"x" * 3000))[:1700],
    "huge-size": tar_of(("f", FILE, b"")).replace(b"00000000000", b"77777777777", 1),
    "gzip-of-nothing": b"\x1f\x8b\x08\x00",
    "gzip-cut": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xed\xc1",
    "xz-cut": b"\xfd7zXZ\x00\x00\x04",
    "zstd-window": b"\x28\xb5\x2f\xfd\x00\xff\xff\xff\xff\xff",
    "deep": tar_of(("d/" * 1500 + "f", FILE, b"")),
    "names": tar_of(("a\nb", FILE, b""), ("\x1b[2J", FILE, b""), ("x" * 300, FILE, b"")),
    "loop": tar_of(("a", LINK, "b"), ("b", LINK, "a"), ("a/f", FILE, b"x"), ("c", HARD, "a/f"), ("c", HARD, "c")),
    "over-dir": tar_of(("etc", FILE, b"x"), ("etc/passwd", DIR, "")),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_of_every_kind_and_none(door, target, name):
    """CVE-2021-20291, CVE-2017-14992: truncated, endless and contradicting archives, in every place that takes one."""
    data = ARCHIVES[name]
    head = {"Content-Type": "application/x-tar"}

    check(door.ask("PUT", f"/containers/{target}/archive", data, head, path="/tmp"))
    for path, query in (
        ("/build", {}), ("/build", {"dockerfile": "../../etc/passwd"}), ("/images/load", {}),
        ("/images/create", {"fromSrc": "-", "repo": "hostile-import"}),
    ):  # fmt: skip
        reply = door.ask("POST", path, data, head, **query)
        assert reply.status < 500, reply.body[:500]
        text = reply.body.decode(errors="replace")
        assert [word for word in BAD_TEXT if word in text] == [], text[:1000]
    door.ask("DELETE", "/images/hostile-import", force=1)


HEAD = b"Host: engine\r\nContent-Type: application/json\r\n"
RAW = {
    "headers": b"GET /_ping HTTP/1.1\r\nHost: e\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"y" * 1000) for n in range(2000)) + b"\r\n",
    "one-header": b"GET /_ping HTTP/1.1\r\nHost: e\r\nX: " + b"y" * (4 << 20) + b"\r\n\r\n",
    "target": b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\nHost: e\r\n\r\n",
    "depth": b"POST /containers/create HTTP/1.1\r\n" + HEAD + b"Content-Length: 200000\r\n\r\n" + b"[" * 200_000,
    "depth-inside": b"POST /containers/create HTTP/1.1\r\n" + HEAD + b"Content-Length: 200014\r\n\r\n" + b'{"Labels":' + b"[" * 100_000 + b"]" * 100_000 + b"}   ",
    "keys": b"POST /containers/create HTTP/1.1\r\n" + HEAD + b"Content-Length: 31\r\n\r\n" + b'{"Image":"busybox","image":"x"}',
    "length": b"POST /containers/create HTTP/1.1\r\n" + HEAD + b"Content-Length: 1099511627776\r\n\r\n{",
    "negative": b"POST /containers/create HTTP/1.1\r\n" + HEAD + b"Content-Length: -1\r\n\r\n{}",
    "two-lengths": b"POST /containers/create HTTP/1.1\r\n" + HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
    "both": b"POST /containers/create HTTP/1.1\r\n" + HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunk": b"POST /containers/create HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    "digits": b"POST /containers/create HTTP/1.1\r\n" + HEAD + b"Content-Length: 6012\r\n\r\n" + b'{"Memory":1' + b"0" * 6000 + b"}",
    "nan": b"POST /containers/create HTTP/1.1\r\n" + HEAD + b"Content-Length: 14\r\n\r\n" + b'{"Memory":NaN}',
    "utf-16": b"POST /containers/create HTTP/1.1\r\n" + HEAD + b"Content-Length: 6\r\n\r\n\xff\xfe{\x00}\x00",
    "bom": b"POST /containers/create HTTP/1.1\r\n" + HEAD + b"Content-Length: 5\r\n\r\n\xef\xbb\xbf{}",
    "text": b"POST /containers/create HTTP/1.1\r\nHost: e\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
    "origin": b"POST /containers/create HTTP/1.1\r\n" + HEAD + b"Origin: http://evil\r\nContent-Length: 2\r\n\r\n{}",
    "version": b"GET /v999.1/info HTTP/1.1\r\nHost: e\r\n\r\n",
    "old-version": b"GET /v0.1/info HTTP/1.1\r\nHost: e\r\n\r\n",
    "odd-version": b"GET /v1.../info HTTP/1.1\r\nHost: e\r\n\r\n",
    "no-http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200 + b"\r\n\r\n",
    "auth": b"POST /images/create?fromImage=127.0.0.1:1/x HTTP/1.1\r\nHost: e\r\nX-Registry-Auth: " + b"!" * 3000 + b"\r\nContent-Length: 0\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", RAW)
def test_bytes_that_are_nearly_http(door, name):
    """CVE-2017-11468, CVE-2020-15257, C6: headers, lengths, depths and numbers beyond every measure."""
    answer = door.raw(RAW[name], timeout_s=10)

    if answer:
        status = int(answer.split(b" ", 2)[1])
        assert status in REFUSED or (name in ("bom", "auth") and status < 500), answer[:500]
    assert [word for word in BAD_TEXT if word.encode() in answer] == []
    assert door.ask("GET", "/_ping").body == b"OK"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("GET", "/containers/nope/json", None, 404, "No such container: nope"),
        ("POST", "/containers/nope/start", None, 404, "No such container: nope"),
        ("POST", "/exec/nope/start", {}, 404, "No such exec instance: nope"),
        ("GET", "/images/nope/json", None, 404, "No such image: nope:latest"),
        ("POST", "/containers/create", {"Image": "nope"}, 404, "No such image: nope:latest"),
        ("POST", "/containers/create", {}, 400, "no command specified"),
        ("POST", "/containers/create?name=-", {"Image": "busybox"}, 400, "Invalid container name (-), only"),
        ("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"CapAdd": ["NOPE"]}}, 400, "NOPE"),
        ("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Binds": ["/a:b"]}}, 400, "invalid"),
        ("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Memory": 1}}, 400, "Minimum memory limit allowed is 6MB"),
        ("POST", "/containers/create", {"Image": 1}, 400, "cannot unmarshal number into Go struct field"),
        ("POST", "/containers/create", b"{", 400, "invalid JSON"),
        ("POST", "/containers/TARGET/exec", {}, 400, "No exec command specified"),
        ("POST", "/containers/TARGET/kill?signal=NOPE", None, 400, "invalid signal: NOPE"),
        ("POST", "/containers/TARGET/start", None, 304, ""),
        ("DELETE", "/containers/TARGET", None, 409, "cannot remove container"),
        ("PUT", "/containers/TARGET/archive?path=/nope", b"", 404, "Could not find the file /nope in container"),
        ("GET", "/containers/TARGET/archive?path=/nope", None, 404, "Could not find the file /nope in container"),
        ("GET", "/volumes/nope", None, 404, "get nope: no such volume"),
        ("POST", "/volumes/create", {"Name": "../x"}, 400, "includes invalid characters for a local volume name"),
        ("GET", "/nope", None, 404, "page not found"),
    ],
)  # fmt: skip
def test_refusals_are_in_docker_s_words(door, target, method, path, body, status, text):
    """C6: the status and the text that clients match on."""
    reply = door.ask(method, path.replace("TARGET", target), body)

    assert reply.status == status, reply.body
    assert text in reply.message, reply.message


def test_a_storm_of_unfinished_execs_is_bounded(engine, door, target):
    """CVE-2022-23471, CVE-2022-31030: what is asked for and never used does not pile up."""
    words = ["x" * 1000] * 10
    for _ in range(1100):
        made = door.ask("POST", f"/containers/{target}/exec", {"Cmd": words})
        check(made)

    kept = door.ask("GET", f"/containers/{target}/json").value()["ExecIDs"]
    assert len(kept or ()) <= 1001
    assert json.dumps(kept)
