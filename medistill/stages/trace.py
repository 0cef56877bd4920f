"""TRACE: how a release came about, told from its digest and the MLflow record alone."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medistill.config.trace import Trace
from medistill.errors import ReleaseError, UserError
from medistill.files import write_json
from medistill.foreign import shown
from medistill.release.merge import PARTS
from medistill.release.verify import Verified, verify
from medistill.stages.traced import differing, disagreements
from medistill.track.reading import Attempt, open_record
from medistill.track.store import AFTERWARDS, RELEASE
from medistill.track.walk import Step, Walk, walk

MOST = 12
"""Most settings of a stage that are named; the JSON has all."""

PACKAGES = ("torch", "torchvision", "monai", "numpy", "mlflow")


def trace(settings: Trace, say: Callable[[str], None]) -> None:
    """`medistill trace`: verify a release, then tell what the tracking store knows of it.

    Raises:
        UserError: there is no such folder or store, or the store knows no such release.
        ReleaseError: the folder is not what it claims to be, or the store tells otherwise; all was told before.
    """
    found = verify(Path(settings.folder))
    _require_own_record(found)
    record = open_record(settings.tracking or None)
    way = walk(record, found.digest)
    wrong = disagreements(found, way, record)
    for line in told(found, way, record.shown):
        say(line)
    if settings.json:
        write_json(Path(settings.json), _as_json(found, way, wrong))
    if not wrong:
        say("traced: the folder and the record agree")
        return
    say("")
    for line in wrong:
        say(f"does not match: {shown(line, 600)}")
    count = "1 thing above does" if len(wrong) == 1 else f"{len(wrong)} things above do"
    raise ReleaseError(
        f"{shown(found.folder.name)}: {count} not match between the release and its record; ask the house that wrote "
        "it before you rely on either"
    )


def _require_own_record(found: Verified) -> None:
    """Raise a UserError for releases merged: each was recorded where it was made, and the merged one nowhere."""
    parts = found.distilled.provenance.get(PARTS)
    if isinstance(parts, list):
        named = ", ".join(f"{shown(part['name'])} {shown(part['digest'])}" for part in parts)
        raise UserError(
            f"{shown(found.folder.name)}: a merged release, whose parts were recorded by the houses that wrote them; "
            f"ask each of them to trace its own: {named}"
        )


def told(found: Verified, way: Walk, store: str) -> list[str]:
    """The walk in lines, from the release to the films."""
    return [
        *_release(found, way, store),
        "",
        *_stages(way),
        "",
        *_code(way),
        *_settings(way),
        *_films(way),
        *_others(way),
        "",
    ]


def _release(found: Verified, way: Walk, store: str) -> list[str]:
    """What is released, when, and who answers for it."""
    run = way.steps["release"].run
    when = "recorded, some time after it was written," if AFTERWARDS in run.tags else "written"
    by = f" by {shown(run.user)}" if run.user else ""
    lines = [
        f"release     {found.digest}",
        f"            {found.files} files, each as in SHA256SUMS; {when} {_second(run.started)} UTC{by}",
        f"record      {shown(store)}, experiment {shown(run.experiment)}, run {run.run_id}",
    ]
    signed = found.fingerprint or "nobody"
    lines.append(f"signed by   {signed}{'; compare: medistill verify --pub' if found.fingerprint else ''}")
    decision = found.audit["decision"]
    lines.append(f"verdict     {found.audit['verdict']}")
    for key, words in (("failed", "failed"), ("inconclusive", "inconclusive"), ("not_run", "not run")):
        if decision[key]:
            lines.append(f"            {words}: {'; '.join(shown(name) for name in decision[key])}")
    for key, words in (("override", "overridden"), ("accepted", "accepted")):
        if word := decision[key]:
            lines.append(f"            {words} by {shown(word['name'])}: {shown(word['reason'], 2000)}")
    return lines


def _stages(way: Walk) -> list[str]:
    """One row a stage."""
    rows = [("stage", "run", "status", "started (UTC)", "ended (UTC)", "key", "code", "environment", "attempts")]
    for stage, step in way.steps.items():
        run = step.run
        others = ", ".join(f"{count} {status}" for status, count in sorted(step.others.items()))
        rows.append(
            (
                stage,
                run.run_id,
                run.status,
                _second(run.started),
                _second(run.ended),
                run.key[:8],
                _commit(run),
                step.environment_digest[:8] or "-",
                f"1 of {1 + sum(step.others.values())} (others: {others})" if others else "1 of 1",
            )
        )
    return _aligned(rows)


def _second(moment: str | None) -> str:
    """A time to the second."""
    return moment[:19] if moment else "-"


def _commit(run: Attempt) -> str:
    """The code that ran, in a few characters."""
    if run.commit is None:
        return f"version {run.version or 'unknown'}"
    return run.commit[:8] + ("+changes" if run.modified else "")


def _code(way: Walk) -> list[str]:
    """Each commit and environment in full, with the stages they served."""
    lines = []
    for commit, stages in _grouped(way, lambda step: _code_of(step.run)).items():
        lines.append(f"code        {commit}: {', '.join(stages)}")
    for words, stages in _grouped(way, _environment).items():
        lines.append(f"environment {words}: {', '.join(stages)}")
    return lines


def _code_of(run: Attempt) -> str:
    """The code that ran, in full."""
    if run.commit is None:
        return f"medistill {run.version or 'of unknown version'}, installed"
    return f"{run.commit}, {'with changes that no commit holds' if run.modified else 'as committed'}"


def _environment(step: Step) -> str:
    """Digest and main versions of an environment."""
    known = step.environment
    if not known:
        return "not recorded"
    packages = known.get("packages", {})
    versions = ", ".join(f"{name} {packages[name]}" for name in PACKAGES if name in packages)
    machine = f"{known.get('system', '?')} {known.get('machine', '?')}"
    return shown(f"{step.environment_digest[:8]}: Python {known.get('python', '?')}, {versions}, {machine}")


def _settings(way: Walk) -> list[str]:
    """The settings in which a stage's run differs from the release's."""
    last, lines = way.steps["release"].config, []
    for stage, step in way.steps.items():
        unlike = list(differing(step.config, last).items()) if step.config and last else []
        for name, (there, here) in unlike[:MOST]:
            lines.append(f"settings    {stage}: {name} {shown(there)}, later {shown(here)}")
        if len(unlike) > MOST:
            lines.append(f"settings    {stage}: and {len(unlike) - MOST} more")
    return lines or ["settings    the same in every stage"]


def _films(way: Walk) -> list[str]:
    """Digest and number of the films."""
    return [
        f"data        {split}: {one.digest} ({', '.join(f'{n} {unit}' for unit, n in one.counts.items())})"
        for split, one in way.data.items()
    ]


def _others(way: Walk) -> list[str]:
    """What else was made of the same set, and of the release."""
    lines = [
        f"also        audit {one.key[:8]}, run {one.run_id}, {_second(one.ended)} UTC: {one.verdict}"
        + (f" ({', '.join(shown(name) for name in one.failed)})" if one.failed else "")
        for one in way.audits
    ]
    for other in way.releases:
        word = {"override": "overridden", "accepted": "accepted"}
        signed = "".join(f", {word[name]} by {shown(other.tags[name])}" for name in word if name in other.tags)
        verdict = shown(other.tags.get("verdict", "unknown"))
        lines.append(
            f"also        release {other.tags[RELEASE]}, {_second(other.started)} UTC: verdict {verdict}{signed}"
        )
    for model in way.models:
        alias = f", called {', '.join(map(shown, model.aliases))}" if model.aliases else ""
        why = f" (not called released: {shown(model.withheld)})" if model.withheld else ""
        lines.append(f"also        model {shown(model.name)} version {model.version}{alias}{why}")
    return lines


def _grouped(way: Walk, words: Callable[[Step], str]) -> dict[str, list[str]]:
    """The stages by what is said of them."""
    found: dict[str, list[str]] = {}
    for stage, step in way.steps.items():
        found.setdefault(words(step), []).append(stage)
    return found


def _aligned(rows: Sequence[Iterable[str]]) -> list[str]:
    """Rows as a table of text."""
    table = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _as_json(found: Verified, way: Walk, wrong: Sequence[str]) -> Mapping[str, Any]:
    """The walk as plain values."""
    return {
        "release": found.digest,
        "signed_by": found.fingerprint,
        "decision": found.audit["decision"],
        "steps": {stage: asdict(step) for stage, step in way.steps.items()},
        "data": {split: asdict(one) for split, one in way.data.items()},
        "audits": [asdict(one) for one in way.audits],
        "releases": [asdict(one) for one in way.releases],
        "models": [asdict(one) for one in way.models],
        "does_not_match": list(wrong),
    }
