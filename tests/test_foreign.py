"""Text from elsewhere in our sentences: printable, short, and without what an error quotes of a file."""

import pytest

from medistill.foreign import listed, one_line, reason, shown


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Normal", "Normal"),
        ("two\n lines\t", "two lines"),
        ("\x1b[31mred", "?[31mred"),
        ("cut\0off", "cut?off"),
        ("b'\\x00\\udcff'", "b'??'"),
        ("\udcff\N{REPLACEMENT CHARACTER}\u202e", "???"),
        ("Läsion", "Läsion"),
        ("x" * 201, "x" * 197 + "..."),
        (7, "7"),
    ],
)
def test_shown(text, wanted):
    assert shown(text) == wanted


def test_a_reason_quotes_nothing_of_a_file():
    assert reason(ValueError("could not convert 'DOE^JOHN'\nto float")) == "ValueError: could not convert ... to float"
    assert reason(KeyError("DOE^JOHN")) == "KeyError: ..."
    assert reason(TypeError('b"DOE" is; no \x07')) == "TypeError: ... is, no ?"
    assert reason(ValueError()) == "ValueError"
    assert reason(ValueError("the scanner's unit isn't known")) == "ValueError: the scanner's unit isn't known"
    assert len(reason(ValueError("a " * 500))) < 140


def test_a_long_sentence_keeps_its_end():
    text = "data.name is '" + "x\n" * 900 + "'; give a shorter one"
    assert len(one_line(text)) == 600 and one_line(text).startswith("data.name is 'x x")
    assert one_line(text).endswith("x '; give a shorter one") and one_line(text).isprintable()
    assert one_line("a\x07\nb") == "a? b"


def test_of_many_names_the_first_are_listed():
    assert listed(["a", "b\n"]) == "a, b"
    assert listed(range(23)) == ", ".join(map(str, range(20))) + " and 3 more"
    assert listed(["x" * 99]) == "x" * 37 + "..."
