"""Build contexts of the tests, and what is asked about their images."""

from __future__ import annotations

_WEB = """\
FROM busybox
LABEL a=b
WORKDIR /app
COPY deps.txt .
RUN mkdir vendor && sed 's/^/installed /' deps.txt > vendor/list
COPY . .
EXPOSE 8000
ENV GREETING=hello
CMD ["sh", "-c", "echo $GREETING; cat vendor/list app.sh"]
"""


def write(directory, files):
    """Make a directory with these files, by name; the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)
    return directory


def write_web(directory):
    """The context of every tutorial: dependencies copied first, then the application."""
    files = {"deps.txt": "one\ntwo\n", "app.sh": "app 1\n", ".dockerignore": "*.log\n", "x.log": "x"}
    return write(directory, {"Dockerfile": _WEB, **files})


def build_web(engine, web, *flags):
    """Build it as `web`; what the client printed."""
    return engine.docker("build", "-t", "web", *flags, ".", cwd=web).stdout


def image_id(engine, name):
    """The id, with its algorithm."""
    return engine.docker("image", "inspect", "-f", "{{.Id}}", name).stdout.strip()
