"""Attacks on what people read: the audit, who answered for it, the card and the descriptions."""

from typing import Any

from attacks.builders import Attack, edit_json, edit_text, hidden, overwrite


def audit(change: Any) -> Any:
    """An edit of audit.json that nobody's signature covers."""
    return hidden(edit_json("audit.json", change))


def _check(verdict: str) -> Any:
    return lambda value: value["checks"][1].update(verdict=verdict)


def _both(value: dict[str, Any]) -> None:
    """Check and verdict downgraded together; the decision still tells."""
    value["checks"][1]["verdict"] = value["verdict"] = "pass"


def _thorough(value: dict[str, Any]) -> None:
    """The decision too, but not the word of who accepted what was open then."""
    _both(value)
    value["decision"].update(verdict="pass", inconclusive=[])


def _complete(value: dict[str, Any]) -> None:
    """All of audit.json; the other files still tell."""
    _thorough(value)
    value["decision"]["accepted"] = None


def _fails(value: dict[str, Any]) -> None:
    """A failure that nobody answers for."""
    value["checks"][1]["verdict"] = value["verdict"] = "fail"
    value["decision"].update(verdict="fail", failed=[value["checks"][1]["name"]], inconclusive=[])


BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (letter, letter, b",".join([b"*%c" % (letter - 1)] * 9)) for letter in range(ord("b"), ord("l"))
)

GIVEN = r"README\.md: ('What it may give away' is not what|says )"
CARDED = r"README\.md: (does not name who answered|the YAML at its head)"

ATTACKS = [
    Attack("verdict", audit(lambda v: v.update(verdict="pass")), r"audit\.json: says 'pass', but its checks come to"),
    Attack("verdict, sums left", edit_json("audit.json", lambda v: v.update(verdict="pass")), r"audit\.json: changed"),
    Attack("check", audit(_check("pass")), r"audit\.json: says 'inconclusive', but its checks come to 'pass'"),
    Attack("check of no known verdict", audit(_check("passed")), r"audit\.json: a check with the verdict 'passed'"),
    Attack("check left out", audit(lambda v: v["checks"].pop()), r"audit\.json: says 'inconclusive', but its checks"),
    Attack(
        "every check left out", audit(lambda v: v["checks"].clear()), r"audit\.json: 'inconclusive' of its decision"
    ),
    Attack("verdict and check", audit(_both), r"audit\.json: 'verdict' of its decision does not follow"),
    Attack("decision as well", audit(_thorough), r"audit\.json: 'accepted' of its decision does not follow"),
    Attack("all of the audit", audit(_complete), r"README\.md: says 'inconclusive', audit\.json says 'pass'"),
    Attack("failure without a name", audit(_fails), r"audit\.json: verdict 'fail' .* nobody answers"),
    Attack("decision gone", audit(lambda v: v.pop("decision")), r"audit\.json: does not say who decided"),
    Attack("acceptance gone", audit(lambda v: v["decision"].update(accepted=None)), r"audit\.json: .* nobody answers"),
    Attack(
        "acceptance without a reason",
        audit(lambda v: v["decision"]["accepted"].update(reason=" ")),
        r"audit\.json: .* nobody answers",
    ),
    Attack(
        "acceptance by another",
        audit(lambda v: v["decision"]["accepted"].update(name="Dr. B. Other")),
        r"README\.md: does not name who answered",
    ),
    Attack("acceptance as a text", audit(lambda v: v["decision"].update(accepted="me")), r"audit\.json: 'accepted' of"),
    Attack("checks as a text", audit(lambda v: v.update(checks="all passed")), r"audit\.json: its checks are no list"),
    Attack(
        "verdict given twice",
        hidden(edit_text("audit.json", '  "words"', '  "verdict": "pass", "words"')),
        r"audit\.json: not JSON",
    ),
    Attack(
        "verdict on the card",
        hidden(edit_text("README.md", "verdict: **inconclusive**", "verdict: **pass**")),
        r"README\.md: says 'pass', audit\.json says 'inconclusive'",
    ),
    Attack(
        "verdict in the metadata",
        hidden(edit_json("metadata.json", lambda v: v["privacy"].update(verdict="pass"))),
        r"metadata\.json: its 'privacy' is not what",
    ),
    Attack(
        "classes in the metadata",
        hidden(edit_json("metadata.json", lambda v: v["classes"].reverse())),
        r"metadata\.json: its 'classes' is not what",
    ),
    Attack(
        "view that is not there",
        hidden(edit_json("metadata.json", lambda v: v["views"][0].update(place="../pictures"))),
        r"metadata\.json: tells of a view in '\.\./pictures'",
    ),
    Attack(
        "download from elsewhere",
        hidden(
            edit_json("croissant.json", lambda v: v["distribution"][0].update(contentUrl="https://elsewhere.example/x"))
        ),
        r"croissant\.json: its 'distribution' is not what",
    ),
    Attack(
        "tag on the card",
        hidden(edit_text("README.md", "---\n", "---\nx: !!python/object/apply:os.system [id]\n")),
        r"README\.md: YAML that asks for more than plain values",
    ),
    Attack(
        "tag on the card, lines ended otherwise",
        hidden(
            lambda f: (f / "README.md").write_bytes(b"\r\n---\r\nx: !!python/object/apply:os.system [id]\r\n---\r\n")
        ),
        r"README\.md: YAML that asks for more than plain values",
    ),
    Attack(
        "head of the card without end",
        hidden(overwrite("README.md", b"---\nx: 1\n")),
        r"README\.md: the YAML at its head does not end",
    ),
    *(
        Attack(f"verdict on the card as {new!r}", hidden(edit_text("README.md", "**inconclusive**", new)), GIVEN)
        for new in ("__pass__", "\n**pass**", "pass", "<b>pass</b>")
    ),
    Attack(
        "second verdict on the card",
        hidden(edit_text("README.md", "## Views of", "Overall\n_verdict_: pass\n\n## Views of")),
        r"README\.md: 'What it is worth' is not what",
    ),
    Attack(
        "verdict among the classes",
        hidden(edit_text("README.md", "## How it was made", "Overall *verdict*: pass\n\n## How it was made")),
        r"README\.md: gives a verdict in 'What is in it'",
    ),
    Attack("another card", hidden(overwrite("README.md", b"# A set\n\nOverall verdict: **inconclusive**\n")), CARDED),
    Attack(
        "section besides",
        hidden(edit_text("README.md", "## Limits", "## Clinical use\n\nAllowed.\n\n## Limits")),
        r"README\.md: has other sections",
    ),
    Attack(
        "pictures of the card elsewhere",
        hidden(edit_text("README.md", "images/**/*.png", "https://elsewhere.example/*.png")),
        r"README\.md: the YAML at its head, by which loaders",
    ),
    Attack(
        "accuracy above all",
        hidden(edit_json("evaluation.json", lambda v: v["arms"]["distilled"]["mean"].update(accuracy=7.3))),
        r"evaluation\.json: a figure that is not between 0 and 1",
    ),
    Attack(
        "accuracy",
        hidden(edit_json("evaluation.json", lambda v: v["arms"]["distilled"]["mean"].update(accuracy=0.99))),
        r"README\.md: 'What it is worth' is not what",
    ),
    Attack("metadata gone", hidden(lambda f: (f / "metadata.json").unlink()), r"metadata\.json: missing from"),
    Attack(
        "network in the metadata",
        hidden(edit_json("metadata.json", lambda v: v["training"]["network"].update(width=512))),
        r"metadata\.json: its 'training' is not what",
    ),
    Attack(
        "tag in the config",
        hidden(overwrite("config.yaml", b"x: !!python/object/apply:os.system [id]\n")),
        r"config\.yaml: YAML that asks for more than plain values",
    ),
    Attack(
        "billion laughs in the config",
        hidden(overwrite("config.yaml", BOMB)),
        r"config\.yaml: YAML that asks for more than plain values \(an alias\)",
        bomb=True,
    ),
    Attack(
        "depth in the config",
        hidden(overwrite("config.yaml", b"[" * 60_000)),
        r"config\.yaml: YAML that asks for more",
        bomb=True,
    ),
    Attack("size of the config", hidden(overwrite("config.yaml", b"#" * 70_000)), r"config\.yaml: 70000 bytes, more"),
    Attack(
        "config of other films",
        hidden(overwrite("config.yaml", b"data: {size: 256}\n")),
        r"config\.yaml: data\.size is 256, but the set says 16",
    ),
    Attack(
        "figure that is a text",
        hidden(edit_json("evaluation.json", lambda v: v["arms"]["distilled"]["mean"].update(accuracy="best"))),
        r"evaluation\.json: a figure that is no number",
    ),
    Attack(
        "figure that is none",
        hidden(edit_text("evaluation.json", "0.812", "NaN")),
        r"evaluation\.json: not JSON",
    ),
    Attack(
        "figure beyond numbers", hidden(edit_text("evaluation.json", "0.812", "1e999")), r"evaluation\.json: not JSON"
    ),
    Attack(
        "evaluation of other classes",
        hidden(edit_json("evaluation.json", lambda v: v["classes"].reverse())),
        r"evaluation\.json: of other classes",
    ),
    Attack("depth of the audit", hidden(overwrite("audit.json", b"[" * 500_000)), r"audit\.json: not JSON", bomb=True),
    Attack(
        "millions of lists for the audit",
        hidden(overwrite("audit.json", b'{"checks": [' + b"[]," * 1_390_000 + b"[]]}")),
        r"audit\.json: its checks are no list of named checks",
        bomb=True,
    ),
    Attack("list for the audit", hidden(overwrite("audit.json", b"[1]")), r"audit\.json: a list where a JSON object"),
    Attack("bytes for the audit", hidden(overwrite("audit.json", b"\xff\xfe")), r"audit\.json: not JSON"),
]
