"""YAML from elsewhere: settings come out as they stand there, and bombs are refused before they are built."""

import pytest
import yaml

from medistill.config.yaml_text import load_settings

ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{name}'] * 9)}]\n" for name, after in zip("abcdefgh", "bcdefghi", strict=True)
)


def test_settings_come_out_as_they_stand_there():
    text = "seed: 3\ndata: &d {size: 32, classes: [A, 'b c'], mask: 1e-1}\nagain: *d\nnone:\nname: 'on'\ntrack: off\n"
    data = {"size": 32, "classes": ["A", "b c"], "mask": 0.1}
    wanted = {"seed": 3, "data": data, "again": data, "none": None, "name": "on", "track": False}
    assert load_settings(text) == wanted == yaml.safe_load(text.replace("1e-1", "0.1"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (ALIASES, "more than 10,000 values"),
        ("data: {classes: &c [A, *c]}", "the alias c stands for nothing before it"),
        ("data: &d {phantom: *d}", "the alias d stands for nothing before it"),
        ("[" * 5000, "nested more than 20 deep"),
        ("x" * 2**19, "524,288 characters"),
        ("seed: 1\nseed: 2", "seed stands there twice"),
        ("data: {size: 1, cohort: a, size: 2}", "size stands there twice"),
        ("seed: " + "9" * 5000, "ValueError"),
        ("seed: 9223372036854775808", "more than 63 bits"),
        ("seed: !!bool x", "KeyError"),
        ("seed: !!python/object/apply:os.system ['echo']", "could not determine a constructor"),
        ("run: !!timestamp 2001-01-01", "a date, which no setting is"),
        ("run: !!binary aGVsbG8=", "a bytes, which no setting is"),
        ("run: !!set {a, b}", "a set, which no setting is"),
        ("1: 2", "'1' is no name of a setting"),
        ("1:", "TypeError"),
        ("a b: 2", "'a b' is no name of a setting"),
        ("a: {'\x1b[2J': 2}", "characters are not allowed"),
    ],
)
def test_what_no_setting_is_is_refused(text, why):
    with pytest.raises(yaml.YAMLError, match=why) as caught:
        load_settings(text)
    assert len(str(caught.value)) < 300
