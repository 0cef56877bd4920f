"""Names of class folders: safe and different on every file system, whatever the classes are called."""

import string
import unicodedata

import pytest

from medistill.release.folders import LONGEST, class_folders


@pytest.mark.parametrize(
    ("classes", "folders"),
    [
        (("COVID", "lung opacity", "non-COVID"), ("COVID", "lung opacity", "non-COVID")),
        (("Lungenentzündung", "肺炎", "निमोनिया"), ("Lungenentzündung", "肺炎", "निमोनिया")),
        (("../../etc", "a/b", "a\\b"), ("etc", "a_b", "a_b 2")),
        (("..", ".", ""), ("class_", "class_ 2", "class_ 3")),
        (("-rf", "__init__", ".hidden"), ("rf", "init__", "hidden")),
        (("CON", "nul", "com1", "console"), ("CON_", "nul_", "com1_", "console")),
        (("covid", "COVID", "Covid"), ("covid", "COVID 2", "Covid 3")),
        (("a", "a 2", "A"), ("a", "a 2", "A 3")),
        (("stra\u00dfe", "STRASSE"), ("stra\u00dfe", "STRASSE 2")),
        (("e\u0301", "\u00e9"), ("\u00e9", "\u00e9 2")),
        (("a\u2028b", "a\nb", "a\x00b", "a\u202eb"), ("a_b", "a_b 2", "a_b 3", "a_b 4")),
        (("v1.0", "metadata.jsonl", " x "), ("v1_0", "metadata_jsonl", "x")),
        (("<b>|*?\"':;", "a+b=c"), ("b________", "a_b_c")),
    ],
)
def test_what_becomes_of_a_name(classes: tuple[str, ...], folders: tuple[str, ...]) -> None:
    assert class_folders(classes) == folders


def test_a_long_name_is_cut_and_stays_unique() -> None:
    folders = class_folders(("x" * 500, "x" * 499, "\U00020000" * 300))
    assert folders[:2] == ("x" * LONGEST, f"{'x' * LONGEST} 2") and len(folders[2].encode()) == 4 * LONGEST


def test_no_name_of_any_sign_is_dangerous() -> None:
    signs = [*string.printable, *(chr(code) for code in range(0x80, 0x2100, 5))]
    folders = class_folders([f"{sign}a{sign}" for sign in signs])
    assert len({unicodedata.normalize("NFC", name.casefold()) for name in folders}) == len(folders)
    for name in folders:
        assert name == name.strip() and name[0] not in "._-~" and not name.endswith(".")
        assert not set(name) & set('/\\:*?"<>|\n\r\t\0')
        assert len(f"{name}\n".splitlines()) == 1
