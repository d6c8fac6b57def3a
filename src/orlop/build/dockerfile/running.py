"""Lowering of RUN: an ExecOp, its heredocs, its history."""

from __future__ import annotations

from orlop.build import graph as g
from orlop.build.dockerfile import instructions as ins
from orlop.build.dockerfile.draft import shell_words
from orlop.build.dockerfile.errors import DockerfileError
from orlop.build.dockerfile.lines import Heredoc, find_heredoc
from orlop.build.dockerfile.options import FrontendOptions
from orlop.build.dockerfile.scope import Scope, proxy_variables
from orlop.oci.imageconfig import RunConfig

__all__ = ["lower_run"]

_SCRIPTS = "/dev/pipes/"


def lower_run(
    run: ins.Run,
    scope: Scope,
    config: RunConfig,
    options: FrontendOptions,
    vertices: dict[g.VertexId, g.Vertex],
    *,
    has_base: bool,
) -> tuple[g.ExecOp, tuple[g.Edge, ...], str]:
    """The operation, its inputs behind the root, and the command as the history names it.

    Raises:
        DockerfileError: a flag that this builder does not have, or may not grant.
    """
    _check(run, options)
    mounts = [g.ExecMount("/", input=0 if has_base else g.SCRATCH, output=0)]
    extra: list[g.Edge] = []
    words = run.command.words
    if run.command.heredocs:
        words, script = _with_heredocs(run)
        if script is not None:
            extra.append(_script_vertex(script, run, vertices))
            mounts.append(g.ExecMount(_SCRIPTS.rstrip("/"), input=int(has_base), is_read_only=True))
    if run.command.is_shell:
        words = shell_words(config, words)
    if options.shm_size_bytes > 0:
        mounts.append(
            g.ExecMount("/dev/shm", kind=g.MountKind.TMPFS, tmpfs_size_bytes=options.shm_size_bytes)
        )
    network = options.network if run.network == "default" else g.NetworkMode[run.network.upper()]
    operation = g.ExecOp(
        args=words,
        env=tuple(f"{key}={value}" for key, value in scope.env.items()),
        cwd=config.working_dir or "/",
        user=config.user,
        hostname=options.hostname,
        extra_hosts=options.extra_hosts,
        mounts=tuple(sorted(mounts, key=lambda mount: mount.target)),
        network=network,
        proxy_env=proxy_variables(options.build_args),
        ulimits=options.ulimits,
        cgroup_parent=options.cgroup_parent,
    )
    return operation, tuple(extra), " ".join([*scope.run_prefix(), *words])


def _check(run: ins.Run, options: FrontendOptions) -> None:
    if run.mounts:
        raise DockerfileError(
            "RUN --mount is not supported yet",
            run.line,
            is_syntax=False,
            hint="COPY what the step needs, or use a build stage of its own",
            mark="--mount",
        )
    if run.network == "host" and options.network is not g.NetworkMode.HOST:
        raise DockerfileError(
            "network.host is not allowed",
            run.line,
            is_syntax=False,
            hint="ask for it with the build: --network=host",
            mark="--network",
        )


def _with_heredocs(run: ins.Run) -> tuple[tuple[str, ...], Heredoc | None]:
    """The words to run; and the script to put in place, when the body brings its interpreter."""
    (text,) = run.command.words
    first = run.command.heredocs[0]
    if find_heredoc(text) is None:  # more than the operator: a shell that knows heredocs gets all of it
        bodies = "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in run.command.heredocs)
        return (text + bodies,), None
    if first.text.startswith("#!"):
        return (_SCRIPTS + first.name,), first
    return (first.text,), None


def _script_vertex(script: Heredoc, run: ins.Run, vertices: dict[g.VertexId, g.Vertex]) -> g.Edge:
    action = g.MkfileAction(f"/{script.name}", 0o755, script.text.encode())
    operation = g.FileOp((g.FileAction(action, g.SCRATCH, output=0),))
    return g.add_vertex(vertices, operation, (), name="preparing inline document", line=run.line)
