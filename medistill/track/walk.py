"""The walk from a release's digest back to the films' digests, by the keys that each stage's run carries."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import yaml

from medistill.errors import UserError
from medistill.track.reading import Attempt, Input, Model, Record
from medistill.track.store import AFTERWARDS, RELEASE

ORDER = ("data", "experts", "distill", "evaluate", "audit", "release")


@dataclass(frozen=True)
class Step:
    """A stage on the way.

    Attributes:
        stage: its name.
        run: the attempt that counts: the last that ended well before the release, else the last of all.
        others: how many other attempts there were, by status.
        config: the settings of the run, without paths; empty where the store has none.
        environment: versions and kind of machine; empty likewise.
        environment_digest: SHA-256 of the environment's text; empty likewise.
    """

    stage: str
    run: Attempt
    others: dict[str, int]
    config: dict[str, Any]
    environment: dict[str, Any]
    environment_digest: str


@dataclass(frozen=True)
class Audit:
    """Another audit of the same set: its run, key and verdict, and the checks that failed."""

    run_id: str
    key: str
    ended: str | None
    verdict: str
    failed: tuple[str, ...]


@dataclass(frozen=True)
class Walk:
    """What a store tells of a release.

    Attributes:
        digest: the release's.
        steps: the stages that led to it, in their order.
        data: the films by split.
        audits: other audits of the same set.
        releases: other releases of the same set.
        signer: the fingerprint of the key that signed it, as last recorded; None: nobody's.
        models: what was trained from the release and registered.
        gaps: what the store should tell and does not, a sentence each.
    """

    digest: str
    steps: dict[str, Step]
    data: dict[str, Input]
    audits: tuple[Audit, ...]
    releases: tuple[Attempt, ...]
    signer: str | None
    models: tuple[Model, ...]
    gaps: tuple[str, ...]


def walk(record: Record, digest: str) -> Walk:
    """Go from a release's digest to everything it was made from.

    Raises:
        UserError: the store knows no release of this digest.
    """
    written = record.find("release", {RELEASE: digest})
    if not written:
        raise UserError(
            f"tracking: {record.shown} knows no release {digest[:16]}...; name the store of the house that wrote it "
            "by --tracking (a release recorded by a version before this walk is recorded by `medistill release` again)"
        )
    return _Walker(record, digest, written).walk()


@dataclass
class _Walker:
    """Collects the steps of one walk."""

    record: Record
    digest: str
    written: list[Attempt]
    steps: dict[str, Step] = field(default_factory=dict)
    gaps: list[str] = field(default_factory=list)

    def walk(self) -> Walk:
        """Go back from the release."""
        # the run that wrote it tells more than those that recorded it once more
        writers = [one for one in self.written if AFTERWARDS not in one.tags and one.status == "FINISHED"]
        release = self._add("release", [*writers, *(one for one in self.written if one not in writers)])
        ended = [one for one in self.written if one.status == "FINISHED"]
        same = {"set": release.tags["set"]} if "set" in release.tags else {}
        self._by_key("audit", release.tags.get("audit"), same)
        self._by_key("evaluate", release.tags.get("evaluate"), same)
        distilled = self._by_key("distill", release.tags.get("distilled"), same)
        if distilled and "experts" in distilled.tags:
            self._by_key("experts", distilled.tags["experts"], {})
        data = self._data()
        steps = {stage: self.steps[stage] for stage in ORDER if stage in self.steps}
        return Walk(
            self.digest,
            steps,
            data,
            tuple(self._other_audits(release)),
            tuple(self._other_releases(release)),
            (ended or self.written)[0].tags.get("signer"),
            tuple(self.record.models(self.digest)),
            tuple(self.gaps),
        )

    def _by_key(self, stage: str, key: str | None, tags: dict[str, str]) -> Attempt | None:
        """Add the stage that has this key; or say that it is not there."""
        if key is None:
            self.gaps.append(f"{stage}: the run after it does not name its key")
            return None
        found = self.record.find(stage, {"medistill.key": key})
        if not found:
            self.gaps.append(f"{stage}: no run with the key {key[:16]}... is recorded")
            return None
        fitting = [one for one in found if all(one.tags.get(name) in (value, None) for name, value in tags.items())]
        if not fitting:
            self.gaps.append(f"{stage}: recorded for another distilled set than the one that was released")
        return self._add(stage, fitting or found)

    def _add(self, stage: str, attempts: list[Attempt]) -> Attempt:
        """Add the attempt that counts, of some that are given newest first."""
        ended = [one for one in attempts if one.status == "FINISHED"]
        if not ended:
            self.gaps.append(f"{stage}: no attempt is recorded that ended well, {_counted(attempts)}")
        until = self.steps["release"].run.started if "release" in self.steps else None
        timely = [one for one in ended if until is None or one.started <= until]
        run = (timely or ended or attempts)[0]
        others = Counter(one.status for one in attempts if one is not run)
        config, _ = self._read(stage, run, "config.yaml")
        self.steps[stage] = Step(stage, run, dict(others), config, *self._read(stage, run, "environment.json"))
        return run

    def _read(self, stage: str, run: Attempt, name: str) -> tuple[dict[str, Any], str]:
        """The mapping in an artifact and the SHA-256 of its text; or say that there is none."""
        text = self.record.text(run.run_id, name)
        try:
            found = yaml.safe_load(text or "")
        except yaml.YAMLError:
            found = None
        if text is None or not isinstance(found, dict):
            self.gaps.append(f"{stage}: {name} of its run is {'missing' if text is None else 'damaged'}")
            return {}, ""
        return found, hashlib.sha256(text.encode()).hexdigest()

    def _data(self) -> dict[str, Input]:
        """Add the stage that read the films, found by their digest, and tell the digest of each split."""
        named = {stage: step.run.tags["data"] for stage, step in self.steps.items() if "data" in step.run.tags}
        training = [digest for stage, digest in named.items() if stage != "evaluate"]
        if not training:
            self.gaps.append("data: no run names the films it was made from")
            return {}
        if len(set(training)) > 1:
            self.gaps.append("data: experts, distillation and audit do not name the same training films")
        found = self.record.find("data", {}, training[0])
        if not found:
            self.gaps.append(f"data: no run that read the films {training[0][:16]}... is recorded")
            return {}
        splits = {one.role: one for one in self._add("data", found).inputs}
        if "evaluate" in named and named["evaluate"] not in {one.digest for one in splits.values()}:
            self.gaps.append("data: the films of the evaluation are not those that were read with the training films")
        return splits

    def _other_audits(self, release: Attempt) -> list[Audit]:
        """The last attempt at each other audit of the same set that ended well."""
        own, found = self.steps["audit"].run.key if "audit" in self.steps else None, {}
        for one in reversed(self._same_set("audit", release)):
            if one.key != own and one.status == "FINISHED":
                found[one.key] = one
        return [self._audit(one) for one in found.values()]

    def _audit(self, run: Attempt) -> Audit:
        """What an audit came to."""
        text = self.record.text(run.run_id, "audit.json")
        told = json.loads(text) if text else {}
        failed = tuple(check["name"] for check in told.get("checks", []) if check["verdict"] == "fail")
        return Audit(run.run_id, run.key, run.ended, told.get("verdict", run.tags.get("verdict", "unknown")), failed)

    def _other_releases(self, release: Attempt) -> list[Attempt]:
        """The newest run of each other release of the same set."""
        found = {}
        for one in reversed(self._same_set("release", release)):
            if RELEASE in one.tags and one.tags[RELEASE] != self.digest:
                found[one.tags[RELEASE]] = one
        return list(found.values())

    def _same_set(self, stage: str, release: Attempt) -> list[Attempt]:
        """The attempts at a stage with the set of a release, by its key or its bytes, newest first."""
        found = {
            one.run_id: one
            for name in ("distilled", "set")
            if name in release.tags
            for one in self.record.find(stage, {name: release.tags[name]})
        }
        return sorted(found.values(), key=lambda one: one.started, reverse=True)


def _counted(attempts: list[Attempt]) -> str:
    """Attempts by status, in words."""
    return ", ".join(f"{count} {status}" for status, count in Counter(one.status for one in attempts).items())
