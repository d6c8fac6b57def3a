import pytest
from frontend import LAYER, base_config, lowered

from orlop.build import graph as g
from orlop.build.dockerfile.draft import BaseImage
from orlop.build.dockerfile.errors import DockerfileError
from orlop.build.dockerfile.lower import lower, read_dockerfile
from orlop.build.dockerfile.options import BasesNeeded, FrontendOptions


def ops(result, kind):
    return [vertex.op for vertex in result.definition.ordered() if isinstance(vertex.op, kind)]


def history(result):
    return [line.created_by for line in result.draft.history]


def test_scratch_needs_no_image_and_an_empty_stage_no_vertex():
    result = lowered("FROM scratch")

    assert result.definition.target is None
    assert result.draft.run.working_dir == "/"
    assert result.draft.run.env == ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)


def test_only_images_of_needed_stages_are_asked_for():
    dockerfile = read_dockerfile(
        b"FROM one AS a\nFROM two AS b\nFROM three\nCOPY --from=a /x /\nCOPY --from=four /y /\n"
    )

    with pytest.raises(BasesNeeded) as needed:
        lower(dockerfile, FrontendOptions(), {})

    assert {request.reference for request in needed.value.requests} == {"one", "three", "four"}


def test_unused_stages_are_not_in_the_graph():
    result = lowered("FROM a AS x\nRUN unused\nFROM b\nRUN used")

    assert [op.args[-1] for op in ops(result, g.ExecOp)] == ["used"]
    assert [step.text for step in result.steps] == ["FROM b", "RUN used"]


def test_target_names_the_stage_case_insensitively():
    result = lowered("FROM a AS first\nRUN one\nFROM b\nRUN two", target="FIRST")

    assert history(result) == ["RUN /bin/sh -c one # buildkit"]


def test_missing_target_has_the_text_of_the_classic_builder():
    with pytest.raises(DockerfileError) as caught:
        lowered("FROM a AS first", target="frist")

    assert caught.value.message == "failed to reach build target frist in Dockerfile (did you mean first?)"


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("ARG V=1\nFROM x\nRUN a", {}, None),
        ("ARG V=1\nFROM x\nARG V\nRUN a", {}, "1"),
        ("ARG V=1\nFROM x\nARG V=2\nRUN a", {}, "2"),
        ("ARG V=1\nFROM x\nARG V=2\nRUN a", {"V": "3"}, "3"),
        ("FROM x\nARG V=2\nENV V=4\nRUN a", {"V": "3"}, "4"),
        ("FROM x\nARG W=2 V=$W\nRUN a", {}, "2"),
        ("FROM x\nARG V\nRUN a", {}, None),
        ("FROM x AS b\nARG V=5\nFROM b\nRUN a", {}, "5"),
    ],
)
def test_value_of_an_argument(text, options, expected):
    (run,) = ops(lowered(text, build_args=options), g.ExecOp)

    values = [entry[2:] for entry in run.env if entry.startswith("V=")]

    assert values == ([] if expected is None else [expected])


def test_arguments_of_from_come_from_above_the_first_from():
    result = lowered("ARG TAG=9\nFROM x:$TAG")

    assert result.steps[0].text == "FROM x:9"


def test_history_of_run_names_its_arguments():
    assert (
        history(lowered("FROM x\nARG Z=1 Y\nRUN echo hi"))[-1]
        == "RUN |2 Z=1 Y= /bin/sh -c echo hi # buildkit"
    )


def test_history_texts():
    text = """FROM x
ENV A=b C="d e"
LABEL a="b c"
CMD echo "hi"
ENTRYPOINT ["/x"]
EXPOSE 80 90-91/UDP
VOLUME /v /w
USER u:g
STOPSIGNAL SIGTERM
SHELL ["/bin/bash", "-c"]
WORKDIR sub
MAINTAINER me
HEALTHCHECK --interval=90s CMD true
COPY --chown=1:2 --chmod=0600 a b /d/
"""
    assert history(lowered(text)) == [
        "ENV A=b C=d e",
        "LABEL a=b c",
        'CMD ["/bin/sh" "-c" "echo \\"hi\\""]',
        'ENTRYPOINT ["/x"]',
        "EXPOSE [80/tcp 90/udp 91/udp]",
        "VOLUME [/v /w]",
        "USER u:g",
        "STOPSIGNAL SIGTERM",
        "SHELL [/bin/bash -c]",
        "WORKDIR /sub",
        "MAINTAINER me",
        r"""HEALTHCHECK &{["CMD-SHELL" "true"] "1m30s" "0s" "0s" "0s" '\x00'}""",
        "COPY --chown=1:2 --chmod=0600 a b /d/ # buildkit",
    ]


@pytest.mark.parametrize(
    ("retries", "shown"), [("3", r"'\x03'"), ("10", r"'\n'"), ("34", "'\"'"), ("39", r"'\''"), ("65", "'A'")]
)
def test_a_healthcheck_is_told_as_go_prints_it(retries, shown):
    text = f'FROM scratch\nHEALTHCHECK --retries={retries} CMD ["a", "b c"]\n'

    assert history(lowered(text)) == [f'HEALTHCHECK &{{["CMD" "a" "b c"] "0s" "0s" "0s" "0s" {shown}}}']


def test_no_healthcheck_is_told_too():
    told = history(lowered("FROM scratch\nHEALTHCHECK NONE\n"))

    assert told == [r"""HEALTHCHECK &{["NONE"] "0s" "0s" "0s" "0s" '\x00'}"""]


def test_entrypoint_clears_an_inherited_cmd_only():
    inherited = lowered('FROM x\nENTRYPOINT ["e"]', images={"x": {"Cmd": ["c"]}})
    own = lowered('FROM x\nCMD ["d"]\nENTRYPOINT ["e"]', images={"x": {"Cmd": ["c"]}})

    assert inherited.draft.run.cmd is None
    assert own.draft.run.cmd == ("d",)


def test_environment_of_one_line_is_that_before_the_line():
    result = lowered("FROM x\nENV A=1\nENV A=2 B=$A")

    assert result.draft.run.env[-2:] == ("A=2", "B=1")


def test_workdir_chain_is_relative_and_makes_a_layer():
    result = lowered("FROM x\nWORKDIR a\nWORKDIR b/../c\nWORKDIR /", images={"x": {"WorkingDir": "/w"}})

    assert [op.actions[0].action.path for op in ops(result, g.FileOp)] == ["/w/a", "/w/a/c"]
    assert result.draft.run.working_dir == "/"


def test_triggers_run_right_behind_from_and_are_not_inherited():
    result = lowered("FROM x\nRUN own", images={"x": {"OnBuild": ["RUN trigger", "COPY --from=other /a /b"]}})

    assert [step.text for step in result.steps] == [
        "FROM x",
        "RUN trigger",
        "COPY --from=other /a /b",
        "RUN own",
    ]
    assert result.draft.run.on_build == ()


def test_triggers_of_a_stage_fire_in_the_stage_on_top():
    result = lowered("FROM x AS a\nONBUILD RUN trigger\nFROM a\nRUN own")

    assert [op.args[-1] for op in ops(result, g.ExecOp)] == ["trigger", "own"]
    assert result.draft.run.on_build == ()


def test_a_trigger_of_a_trigger_is_refused():
    with pytest.raises(DockerfileError, match="ONBUILD"):
        lowered("FROM x", images={"x": {"OnBuild": ["ONBUILD RUN x"]}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM x AS a\nCOPY --from=a /x /", "needs to be defined before current stage"),
        ("FROM x AS a\nCOPY --from=b /x /\nFROM x AS b\nFROM a", "needs to be defined before current stage"),
        ("FROM x\nCOPY --from=0 /x /", "needs to be defined before current stage"),
        ("FROM x\nCOPY --from=99999999999 /x /", "invalid stage index"),
        ("FROM x\nCOPY --from=UPPER/Case /x /", "failed to parse stage name"),
        ("FROM x\nCOPY --chmod=99999 a b", "invalid chmod parameter: '99999'"),
        ("FROM x\nCOPY https://example.com/a b", "source can't be a URL for COPY"),
        ("FROM x\nADD --checksum=sha256:aa a b", "checksum requires HTTP(S) or Git sources"),
        ("FROM x\nSTOPSIGNAL SIGNOPE", "invalid signal: SIGNOPE"),
        ("FROM x\nEXPOSE 99999", "invalid containerPort: 99999"),
        ("FROM x\nEXPOSE 80/icmp", "invalid proto: icmp"),
        ("FROM x\nRUN --mount=type=cache,target=/c x", "RUN --mount is not supported yet"),
        ("FROM x\nRUN --network=host x", "network.host is not allowed"),
        ("FROM --platform=foobar x", "failed to parse platform foobar"),
        ("FROM --platform=linux/s390x x", "cannot be built here"),
        ("FROM $U", "base name ($U) should not be blank"),
        ("FROM x\nENV A=" + "b" * 1000 + "\n" + "ENV A=$A$A$A$A$A$A$A$A\n" * 8, "longer than"),
    ],
)
def test_what_cannot_be_built_is_named(text, message):
    with pytest.raises(DockerfileError) as caught:
        lowered(text)

    assert message in caught.value.message


def test_thousands_of_stages_are_refused_at_once():
    with pytest.raises(DockerfileError, match="more than 1000 build stages"):
        lowered("".join(f"FROM s{n - 1} AS s{n}\n" for n in range(1, 3_001)))


def test_equal_stages_are_one_vertex():
    result = lowered(
        "FROM x AS a\nRUN same\nFROM x AS b\nRUN same\nFROM x\nCOPY --from=a /1 /\nCOPY --from=b /2 /"
    )

    assert len(ops(result, g.ExecOp)) == 1


def test_a_script_with_its_interpreter_is_mounted():
    (run,) = ops(lowered("FROM x\nRUN <<EOF\n#!/usr/bin/env python3\nprint(1)\nEOF"), g.ExecOp)

    assert run.args == ("/bin/sh", "-c", "/dev/pipes/EOF")
    assert run.mounts[1] == g.ExecMount("/dev/pipes", input=1, is_read_only=True)


def test_heredoc_bodies_expand_unless_quoted():
    result = lowered("FROM scratch\nARG A=1\nCOPY <<x <<'y' /\n$A '\nx\n$A\ny\n")

    files = [
        op.actions[0].action.data
        for op in ops(result, g.FileOp)
        if isinstance(op.actions[0].action, g.MkfileAction)
    ]

    assert files == [b"1 '\n", b"$A\n"]


def test_labels_of_the_request_come_last_and_leave_no_history():
    result = lowered("FROM scratch\nLABEL a=1", labels={"a": "2"})

    assert result.draft.run.labels == {"a": "2"}
    assert history(result) == ["LABEL a=1"]
    assert result.steps[-1].text == "LABEL a=2"


def test_build_arguments_nobody_asked_for_are_told():
    result = lowered("ARG G\nFROM x\nARG A", build_args={"A": "1", "G": "2", "B": "3", "http_proxy": "4"})

    assert result.unused_args == ("B",)


def test_proxies_reach_run_undeclared():
    (run,) = ops(
        lowered("FROM x\nRUN a", build_args={"HTTP_PROXY": "b", "ftp_proxy": "c", "FTP_PROXY": "d"}), g.ExecOp
    )

    assert dict(run.proxy_env) == {"HTTP_PROXY": "b", "http_proxy": "b", "ftp_proxy": "c", "FTP_PROXY": "d"}
    assert not any("PROXY" in entry.upper() for entry in run.env)


def test_linked_copy_is_merged_onto_the_base():
    result = lowered("FROM x\nCOPY --link a /b")

    assert len(ops(result, g.MergeOp)) == 1


def test_an_image_without_layers_is_scratch():
    config = base_config()
    empty = BaseImage("x", type(config)(config.raw, config.platform, config.run, ()))
    dockerfile = read_dockerfile(b"FROM x")
    with pytest.raises(BasesNeeded) as needed:
        lower(dockerfile, FrontendOptions(), {})

    result = lower(dockerfile, FrontendOptions(), {needed.value.requests[0]: empty})

    assert result.definition.target is None


def test_source_of_an_image_is_its_layers():
    (source,) = ops(lowered("FROM x\nRUN a"), g.SourceOp)

    assert source.layers == (LAYER,)
