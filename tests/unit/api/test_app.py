"""The door: versions, routes, errors, headers, shims, hostile requests."""

from __future__ import annotations

import asyncio

import pytest
from toy import ToyEngine, call

from orlop.aio.http_messages import Peer, Response
from orlop.api.app import App
from orlop.api.request import json_response, no_content, progress_stream
from orlop.api.routes import Route
from orlop.base.errors import InvalidInput, Kind, NotFound, OrlopError

TCP = Peer("tcp", "127.0.0.1:5")


class Conflict(OrlopError):
    kind = Kind.CONFLICT
    code = "conflict"


def app_of(*routes):
    return App(object(), tuple(routes))


def answering(value):
    async def handler(engine, request):
        if isinstance(value, Exception):
            raise value
        return value(request) if callable(value) else json_response(value)

    return handler


ECHO = Route("Echo", "GET", "/x/{name:.*}/json", answering(lambda r: json_response([r.params, r.version])))


def test_every_answer_says_what_we_are():
    status, headers, body = call(app_of(), "GET", "/nope")

    assert (status, body) == (404, {"message": "page not found"})
    assert headers["Api-Version"] == "1.51"
    assert headers["Ostype"] == "linux"
    assert headers["Docker-Experimental"] == "false"
    assert headers["Server"].startswith("Orlop/")


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("v1.10", "client version 1.10 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"),
        ("v1.99", "client version 1.99 is too new. Maximum supported API version is 1.51"),
        ("v999", "client version 999 is too new. Maximum supported API version is 1.51"),
        ("v0", "client version 0 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"),
        ("v1.2.3", "invalid API version '1.2.3'"),
    ],
)  # fmt: skip
def test_version_prefixes_outside_the_range_are_explained(prefix, message):
    assert call(app_of(ECHO), "GET", f"/{prefix}/x/a/json")[::2] == (400, {"message": message})


def test_names_with_slashes_and_escapes_reach_the_handler_decoded_once():
    app = app_of(ECHO)

    assert call(app, "GET", "/v1.30/x/host:5000/a/b:c/json")[2] == [{"name": "host:5000/a/b:c"}, [1, 30]]
    assert call(app, "GET", "/x/a%2Fb%252F/json")[2] == [{"name": "a/b%2F"}, [1, 51]]
    assert call(app, "GET", "http://docker/x/a/json")[2] == [{"name": "a"}, [1, 51]]


@pytest.mark.parametrize("target", ["/x/%00/json", "x", "*", ""])
def test_malformed_paths_are_refused(target):
    assert call(app_of(ECHO), "GET", target)[0] == 400


def test_a_single_segment_does_not_match_slashes():
    app = app_of(Route("C", "GET", "/c/{id}/json", answering(1)))

    assert call(app, "GET", "/c/a/json")[0] == 200
    assert call(app, "GET", "/c/a%2Fb/json")[0] == 404
    assert call(app, "GET", "/c//json")[0] == 404
    assert call(app, "GET", "/c/../../etc/json")[0] == 404


def test_a_wrong_method_is_told_the_right_one():
    status, headers, _ = call(app_of(ECHO), "POST", "/x/a/json")

    assert (status, headers["Allow"]) == (405, "GET")


def test_routes_exist_only_in_their_versions():
    app = app_of(
        Route("New", "GET", "/new", answering(1), since=(1, 30)),
        Route("Old", "GET", "/old", answering(1), until=(1, 40)),
    )

    assert [
        call(app, "GET", path)[0] for path in ("/v1.29/new", "/v1.30/new", "/v1.40/old", "/v1.41/old")
    ] == [404, 200, 200, 404]


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (NotFound("no such container: x"), 404, "no such container: x"),
        (InvalidInput("bad", hint="try this"), 400, "bad (try this)"),
        (Conflict("in use"), 409, "in use"),
        (OrlopError("odd", http_status=418), 418, "odd"),
        (ValueError("secret path"), 500, "internal error: ValueError: secret path"),
        (
            OSError(28, "No space left on device"),
            507,
            "no space left on device (make room with docker system prune, or give the data root a larger disk)",
        ),
    ],
)
def test_errors_become_dockers_json(error, status, message):
    assert call(app_of(Route("E", "GET", "/e", answering(error))), "GET", "/e")[::2] == (
        status,
        {"message": message},
    )


def test_no_answer_holds_a_traceback():
    _, _, body = call(app_of(Route("E", "GET", "/e", answering(RuntimeError()))), "GET", "/e")

    assert "Traceback" not in str(body)
    assert ".py" not in str(body)


def test_not_modified_has_no_body():
    class Same(OrlopError):
        kind = Kind.NOT_MODIFIED

    assert call(
        app_of(
            Route("E", "POST", "/e", answering(Same("already"))),
        ),
        "POST",
        "/e",
    )[::2] == (304, b"")


def test_old_clients_get_the_old_form_of_every_item():
    app = app_of(Route("ImageList", "GET", "/i", answering([{"Size": 5}, {"Size": 6}])))

    assert call(app, "GET", "/v1.43/i")[2] == [{"Size": 5, "VirtualSize": 5}, {"Size": 6, "VirtualSize": 6}]
    assert call(app, "GET", "/v1.44/i")[2] == [{"Size": 5}, {"Size": 6}]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:2375"}, 204),
        ({"host": "localhost"}, 204),
        ({"host": "[::1]:2375"}, 204),
        ({"host": ""}, 204),
        ({"host": "evil.example"}, 403),
        ({"host": "evil.example:2375"}, 403),
        ({"host": "localhost", "origin": "http://evil.example"}, 403),
        ({"host": "localhost:1", "origin": "http://localhost:2"}, 403),
        ({"host": "localhost:1", "origin": "null"}, 403),
        ({"host": "localhost:1", "origin": "http://localhost:1"}, 204),
        ({"host": "localhost", "sec-fetch-site": "cross-site"}, 403),
        ({"host": "localhost", "sec-fetch-site": "same-site"}, 403),
        ({"host": "localhost", "sec-fetch-site": "same-origin"}, 204),
    ],
)
def test_browsers_of_other_sites_are_refused_on_tcp(headers, status):
    app = app_of(Route("N", "POST", "/n", answering(lambda _: no_content())))

    assert call(app, "POST", "/n", headers=headers, peer=TCP)[0] == status
    assert call(app, "POST", "/n", headers=headers)[0] == 204


def test_progress_fails_with_a_status_before_and_with_a_line_after_the_first_value():
    async def values(count):
        for number in range(count):
            yield {"status": str(number)}
        raise NotFound("manifest unknown")

    def route(count):
        async def handler(engine, request):
            return await progress_stream(values(count))

        return app_of(Route("P", "POST", "/p", handler))

    assert call(route(0), "POST", "/p")[::2] == (404, {"message": "manifest unknown"})
    status, _, body = call(route(1), "POST", "/p")
    assert status == 200
    assert (
        body
        == b'{"status":"0"}\r\n{"errorDetail":{"message":"manifest unknown"},"error":"manifest unknown"}\r\n'
    )


def test_a_progress_producer_is_closed_with_its_stream():
    closed = []

    async def values():
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    async def run():
        answer = await progress_stream(values())
        async for _ in answer.chunks:
            break
        await answer.chunks.aclose()

    asyncio.run(run())

    assert closed == [True]


def test_a_handler_may_set_headers_of_its_own():
    app = app_of(Route("H", "HEAD", "/h", answering(lambda _: Response(200, headers=(("X-A", "b"),)))))

    assert call(app, "HEAD", "/h")[1]["X-A"] == "b"


def test_all_routes_can_be_built():
    assert call(App(ToyEngine()), "GET", "/_ping")[0] == 200
