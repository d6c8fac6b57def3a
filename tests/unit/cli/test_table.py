from orlop.cli.table import ellipsis_text, render


def test_columns_are_three_blanks_apart_and_lines_have_no_tail():
    assert (
        render(("A", "LONGER HEADING"), [("some text here", "x")])
        == "A                LONGER HEADING\nsome text here   x\n"
    )


def test_cutting_shows_an_ellipsis():
    assert ellipsis_text("abcdef", 4) == "abc…"
    assert ellipsis_text("abc", 4) == "abc"
