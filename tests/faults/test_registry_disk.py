"""The registry server on a disk that loses its power or is full."""

import contextlib
import http.client
import os
import signal
import threading

import pytest
from fault_disk import Disk

from support.registryd import RegistryServer, digest_of, manifest_of

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


def cut_power(server, disk):
    """A disk as the cut leaves it; the server goes on afterwards."""
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        return disk.after_power_cut()
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


def check_whole(server, acknowledged):
    """Everything acknowledged is there, and whatever is visible is whole."""
    client = server.client()
    for name, tag, manifest in acknowledged:
        assert client.ask("GET", f"/v2/{name}/manifests/{tag}").body == manifest
    for name in client.ask("GET", "/v2/_catalog").json()["repositories"]:
        for tag in client.ask("GET", f"/v2/{name}/tags/list").json()["tags"]:
            document = client.ask("GET", f"/v2/{name}/manifests/{tag}").json()
            for entry in (document["config"], *document["layers"]):
                assert (
                    digest_of(client.ask("GET", f"/v2/{name}/blobs/{entry['digest']}").body)
                    == entry["digest"]
                )


def test_after_a_power_cut_everything_acknowledged_is_there():
    with Disk(size_mb=192) as disk, contextlib.ExitStack() as kept:
        copies, acknowledged, stop = [], [], threading.Event()
        with RegistryServer("--no-access-log", root=disk.path / "r") as server:

            def push():
                client = server.client()
                number = 0
                while not stop.is_set() and number < 200:
                    layer = os.urandom(200_000)
                    _, manifest = client.push_image(f"app{number % 3}", f"t{number}", layer)
                    acknowledged.append((f"app{number % 3}", f"t{number}", manifest))
                    number += 1

            pusher = threading.Thread(target=push)
            pusher.start()
            try:
                for _ in range(6):
                    threading.Event().wait(0.3)
                    known = tuple(acknowledged)  # before the cut, so all of it was answered before
                    copies.append((cut_power(server, disk), known))
                    kept.push(copies[-1][0])  # removed also when the test fails before its turn
            finally:
                stop.set()
                pusher.join()
        assert len(copies[-1][1]) > 3
        for copy, known in copies:
            with copy, RegistryServer(root=copy.path / "r") as server:
                check_whole(server, known)
                assert server.client().push_image("app0", "again", b"layer")


def test_on_a_full_disk_pushes_are_refused_and_all_else_goes_on():
    with (
        Disk(size_mb=96) as disk,
        RegistryServer("--delete", "--gc-interval", "0", root=disk.path / "r") as server,
    ):
        client = server.client()
        layer = os.urandom(3 << 20)
        digest, manifest = client.push_image("app", "x", layer)
        disk.fill()

        refused = []
        for _ in range(3):
            data = os.urandom(2 << 20)
            began = client.ask("POST", "/v2/app/blobs/uploads/")
            if began.status == 202:
                try:
                    began = client.ask("PUT", f"{began.headers['Location']}?digest={digest_of(data)}", data)
                except (ConnectionError, http.client.HTTPException):
                    continue
            refused.append(began.status)
        assert set(refused) == {507}
        assert client.ask("GET", "/v2/app/manifests/x").body == manifest
        assert client.ask("GET", f"/v2/app/blobs/{digest_of(layer)}").body == layer
        assert client.ask("DELETE", "/v2/app/manifests/x").status == 202

        disk.free()
        assert client.put_manifest("app", "x", manifest_of(b"{}", layer)).status == 201
        assert client.push_image("app", "y", os.urandom(1 << 20))
        assert client.ask("HEAD", f"/v2/app/manifests/{digest}").status == 200
