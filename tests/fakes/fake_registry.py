"""A registry for tests: a complete one by default, as hostile as a test wants through hooks.

A hook is `async (request) -> Reply | bytes | None`; None lets the next one, and in the end the
well-behaved registry, answer. Bytes are written raw and the connection is then dropped.
"""

import asyncio
import contextlib
import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
CONFIG = "application/vnd.docker.container.image.v1+json"


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class Request:
    method: str
    target: str
    headers: dict
    reader: object
    writer: object
    body: bytes = b""

    @property
    def path(self):
        return urlsplit(self.target).path

    @property
    def query(self):
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}

    @property
    def authorization(self):
        return self.headers.get("authorization", "")


@dataclass
class Reply:
    status: int = 200
    body: bytes = b""
    headers: dict = field(default_factory=dict)
    cut_after: int | None = None  # bytes of the body after which the connection is reset

    def encode(self, method):
        fields = {"Content-Length": str(len(self.body)), **self.headers}
        head = f"HTTP/1.1 {self.status} X\r\n" + "".join(f"{n}: {v}\r\n" for n, v in fields.items()) + "\r\n"
        body = b"" if method == "HEAD" else self.body[: self.cut_after]
        return head.encode("latin-1") + body


def error(status, code, message, **headers):
    return Reply(status, json.dumps({"errors": [{"code": code, "message": message}]}).encode(), headers)


class FakeRegistry:
    def __init__(self, ssl=None):
        self.blobs, self.manifests, self.uploads = {}, {}, {}
        self.hooks, self.log = [], []
        self.sent_bytes = 0
        self._ssl = ssl
        self._tasks = set()
        self._upload_count = 0

    async def __aenter__(self):
        self._server = await asyncio.start_server(
            self._connection, "127.0.0.1", 0, ssl=self._ssl, limit=1 << 20
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self.domain = f"127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *exc):
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    def calls(self, method, part=""):
        return [request for request in self.log if request.method == method and part in request.target]

    def add_blob(self, data):
        self.blobs[sha256(data)] = data
        return sha256(data)

    def add_manifest(self, repository, tag, document, media_type=MANIFEST):
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.manifests[repository, tag] = self.manifests[repository, sha256(data)] = media_type, data
        return {"mediaType": media_type, "digest": sha256(data), "size": len(data)}

    def add_image(self, repository, tag, layers, arch="amd64", layer_type=LAYER, pack=None, **config):
        """Layers are plain tars; returns the manifest's descriptor."""
        pack = pack or (lambda tar: gzip.compress(tar, mtime=0))
        packed = [pack(tar) for tar in layers]
        rootfs = {"type": "layers", "diff_ids": [sha256(tar) for tar in layers]}
        document = {"architecture": arch, "os": "linux", "config": {}, "rootfs": rootfs, **config}
        raw = json.dumps(document).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "size": len(raw), "digest": self.add_blob(raw)},
            "layers": [
                {"mediaType": layer_type, "size": len(data), "digest": self.add_blob(data)} for data in packed
            ],
        }
        return self.add_manifest(repository, tag, manifest)

    async def _connection(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                while await self._exchange(reader, writer):
                    pass
        except asyncio.CancelledError:
            pass
        finally:
            writer.transport.abort()

    async def _exchange(self, reader, writer):
        first = await reader.readexactly(1)
        if first == b"\x16":
            return False  # a TLS hello
        head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        fields = {n.lower(): v for n, _, v in (line.partition(": ") for line in head[1:] if line)}
        request = Request(method, target, fields, reader, writer)
        self.log.append(request)
        answer = None
        for hook in self.hooks:
            answer = await hook(request)
            if answer is not None:
                break
        if answer is None:
            request.body = await read_body(request)
            answer = self.behave(request)
        elif isinstance(answer, Reply) and method != "PATCH" and not request.body:
            request.body = await read_body(request)
        if isinstance(answer, bytes):
            writer.write(answer)
            await writer.drain()
            return False
        data = answer.encode(method)
        self.sent_bytes += len(data)
        for start in range(0, len(data), 1 << 16):
            writer.write(data[start : start + (1 << 16)])
            await writer.drain()
        return answer.cut_after is None

    def behave(self, request):
        path, method = unquote(request.path), request.method
        if path == "/v2/":
            return Reply(200, b"{}")
        name, _, rest = path.removeprefix("/v2/").partition("/manifests/")
        if rest:
            return self._manifest(method, name, rest, request)
        name, _, rest = path.removeprefix("/v2/").partition("/blobs/uploads/")
        if "/blobs/uploads/" in path:
            return self._upload(method, name, rest, request)
        name, _, rest = path.removeprefix("/v2/").partition("/blobs/")
        if rest:
            return self._blob(method, rest, request)
        if path.endswith("/tags/list"):
            name = path.removeprefix("/v2/").removesuffix("/tags/list")
            tags = sorted(tag for repository, tag in self.manifests if repository == name and ":" not in tag)
            return Reply(200, json.dumps({"name": name, "tags": tags}).encode())
        return error(404, "UNSUPPORTED", "what")

    def _manifest(self, method, name, which, request):
        if method == "PUT":
            self.add_manifest(name, which, request.body, request.headers["content-type"])
            return Reply(201, b"", {"Docker-Content-Digest": sha256(request.body)})
        if (name, which) not in self.manifests:
            return error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        media_type, data = self.manifests[name, which]
        return Reply(200, data, {"Content-Type": media_type, "Docker-Content-Digest": sha256(data)})

    def _blob(self, method, digest, request):
        if digest not in self.blobs:
            return error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        data = self.blobs[digest]
        if "range" not in request.headers:
            return Reply(200, data)
        start = int(request.headers["range"].removeprefix("bytes=").partition("-")[0])
        return Reply(206, data[start:], {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"})

    def _upload(self, method, name, rest, request):
        if method == "POST":
            digest = request.query.get("mount")
            if digest in self.blobs:
                return Reply(201)
            self._upload_count += 1
            key = str(self._upload_count)
            self.uploads[key] = bytearray()
            return Reply(202, b"", {"Location": f"/v2/{name}/blobs/uploads/{key}?_state=x", "Range": "0-0"})
        if rest not in self.uploads:
            return error(404, "BLOB_UPLOAD_UNKNOWN", "upload unknown")
        upload = self.uploads[rest]
        where = {
            "Location": f"/v2/{name}/blobs/uploads/{rest}?_state=y",
            "Range": f"0-{max(0, len(upload) - 1)}",
        }
        if method == "PATCH":
            upload += request.body
            return Reply(202, b"", where)
        if method == "GET":
            return Reply(204, b"", where)
        if method == "DELETE":
            del self.uploads[rest]
            return Reply(204)
        if sha256(bytes(upload)) != request.query["digest"]:
            return error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        self.add_blob(bytes(upload))
        return Reply(201, b"", {"Docker-Content-Digest": request.query["digest"]})


async def read_body(request):
    if request.headers.get("transfer-encoding") != "chunked":
        return await request.reader.readexactly(int(request.headers.get("content-length", 0)))
    body = b""
    while size := int(await request.reader.readline(), 16):
        body += (await request.reader.readexactly(size + 2))[:-2]
    await request.reader.readline()
    return body


def tar_of(**files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return stream.getvalue()
