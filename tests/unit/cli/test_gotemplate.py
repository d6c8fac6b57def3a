import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orlop.cli.gotemplate import Template, TemplateError

VALUE = {
    "Id": "abc",
    "State": {"Status": "running", "Pid": 7, "Dead": False},
    "Names": ["/a", "/b"],
    "Labels": {"x": "1", "a.b/c": "2"},
    "Empty": None,
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.Id}}", "abc"),
        ("{{ .State.Status }}!{{.State.Pid}}", "running!7"),
        ("{{json .State}}", '{"Status":"running","Pid":7,"Dead":false}'),
        ('{{index .Labels "a.b/c"}}', "2"),
        ("{{index .Names 1}}", "/b"),
        ("{{len .Names}}", "2"),
        ('{{join .Names ","}}', "/a,/b"),
        ('{{.Id | upper | printf "%s!"}}', "ABC!"),
        ("{{range .Names}}<{{.}}>{{end}}", "</a></b>"),
        ("{{range $i, $n := .Names}}{{$i}}{{$n}}{{end}}", "0/a1/b"),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}} {{end}}", "a.b/c=2 x=1 "),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ('{{if .State.Dead}}dead{{else if eq .State.Status "running"}}up{{else}}?{{end}}', "up"),
        ("{{with .State}}{{.Pid}}{{end}}", "7"),
        ("{{$x := .Id}}{{$x}}", "abc"),
        ("a {{- .Id -}} b", "aabcb"),
        ("{{/* nothing */}}{{.State}}", "map[Dead:false Pid:7 Status:running]"),
        ("{{.Nope}}", "<no value>"),
        ("{{(index .Names 0)}}{{if and .Id (not .State.Dead)}}y{{end}}", "/ay"),
    ],
)
def test_what_people_write_gives_what_go_gives(template, text):
    assert Template(template).render(VALUE) == text


@pytest.mark.parametrize(
    "template",
    [
        "{{if .Id}}",
        "{{end}}",
        "{{nope .Id}}",
        "{{.Id.Deeper}}",
        "{{index .Names 9}}",
        "{{(.Id}}",
        "{{}}",
        "{{len}}",
        "{{$y}}",
    ],
)
def test_mistakes_are_template_errors(template):
    with pytest.raises(TemplateError):
        Template(template).render(VALUE)


@given(st.text(alphabet='{}.-|() "abcifrangeend$:=0', max_size=40))
def test_no_text_breaks_the_parser_otherwise(text):
    with contextlib.suppress(TemplateError):
        Template(text).render(VALUE)
