"""Check 3, distance to closest record: does the set lie nearer to its own patients than to others?

Two shares, both .5 where training and holdout patients are exchangeable:

- Of the real films nearest to a synthetic image, how many are training films? A set that memorised lies on training
  films. Training patients are more numerous, so the share by chance is not .5 but theirs among all, p; it is carried
  over to equal numbers by its odds, s/p over s/p + (1-s)/(1-p), and so are the ends of its exact interval. (Leaving
  training films out until both are equally many would blind the check to copies of those left out.) A patient counts
  once however many images lie nearest to them: some films are typical and near to many images.
- How often does a training patient's film lie nearer to the set than a holdout patient's of the same class (AUC)?

Distances are those of `medistill.audit.likeness`. The check informs and never fails: sets that pass it have been
broken by membership inference (check 5), and a handful of copies moves no average.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from scipy.stats import binom
from torch import Tensor

from medistill.audit.check import Candidate, Check, Figure, Outcome, Private, Verdict
from medistill.audit.intervals import clopper_pearson, stratified_auc
from medistill.audit.likeness import likeness
from medistill.audit.nearest import planted_copies
from medistill.data.imageset import ImageSet
from medistill.report.distances import distances_figure
from medistill.seeds import generator

NUMBER, NAME = 3, "distance to closest record"
MIN_POWER = 0.8
HALVES = 200
MOST_FIRED = 0.1
"""Intervals of 95 % that leave out .5 in more than this share of the halved holdouts are not to be trusted."""


@dataclass(frozen=True)
class Records:
    """The real films of both sides by patient; a patient with films of two classes counts as two.

    Attributes:
        unit: (R,) int64, the patient of each film, 0 to U - 1.
        label: (U,) int64, the class of each.
        trained: (U,) bool, whether it is a training patient.
    """

    unit: Tensor
    label: Tensor
    trained: Tensor

    @classmethod
    def of(cls, train: ImageSet, holdout: ImageSet) -> "Records":
        """Training films first; a number that both sets use means two patients."""
        side = torch.cat([torch.ones(len(train)), torch.zeros(len(holdout))]).long()
        keys = torch.stack(
            [side, torch.cat([train.groups, holdout.groups]), torch.cat([train.labels, holdout.labels])], 1
        )
        units, unit = keys.unique(dim=0, return_inverse=True)
        return cls(unit, units[:, 2], units[:, 0] == 1)

    def holdout(self) -> "Records":
        """Those of the holdout patients alone."""
        kept = ~self.trained
        number = kept.cumsum(0) - 1
        return Records(number[self.unit[kept[self.unit]]], self.label[kept], self.trained[kept])

    def chance(self) -> Tensor:
        """(U,) float64 the share of training patients in the class of each."""
        total = torch.bincount(self.label).double()
        return (torch.bincount(self.label, self.trained.double()) / total)[self.label]


def check(candidate: Candidate, private: Private) -> Outcome:
    """Measure how near each real film lies to the set, plant copies, halve the holdout, judge."""
    settings, seed = private.config.audit, private.config.seed
    train, holdout = private.train, private.holdout
    records = Records.of(train, holdout)
    pictures = candidate.distilled.pictures().cpu()
    copies, _ = planted_copies(train.images, settings.planted, generator(seed, "audit", "closest", "planted"))
    films = torch.cat([train.images, holdout.images]).to(private.device)
    scores = likeness(torch.cat([pictures, copies.cpu()]), films)
    scores, of_copies = scores.split([len(pictures), len(copies)])
    found = judge(scores, of_copies, records, generator(seed, "audit", "closest", "negative"))
    of_film = scores.amax(0)  # (R,)
    trained = records.trained[records.unit]
    sides = {"training films": of_film[trained], "films of other patients": of_film[~trained]}
    draw = partial(distances_figure, sides, scores.amax(1))
    return Outcome(found, (Figure("closest_record.png", draw),))


def judge(scores: Tensor, of_copies: Tensor, records: Records, generator: torch.Generator) -> Check:
    """The outcome from scores (M, R) of M images, and (L, R) of planted copies, against R real films.

    Passes where both intervals cover .5 and as many planted copies as there are images would have moved the first one
    off it with a chance of 80 %; does not apply where too few images could move it at all; else inconclusive.
    """
    share, auc = nearest_share(scores, records), closeness_auc(scores, records)
    chance, images = float(share["chance"]), len(scores)
    needed = next(count for count in range(1, 10**6) if clopper_pearson(count, count)[0] > chance)
    positive = _positive_control(of_copies, records, images)
    negative = _negative_control(scores, records, generator)
    statistic = {"synthetic": images, "nearer_to_training": share, "auc": auc, "images_needed": needed}
    verdict, explanation = _judge(share, auc, images, needed, positive, negative)
    low, high = share["interval"]
    return Check(NUMBER, NAME, verdict, statistic, (low, high), positive["power"], positive, negative, explanation)


def nearest_share(scores: Tensor, records: Records) -> dict[str, Any]:
    """The share of training patients among those nearest to an image of scores (M, R).

    Returns:
        {"images": images nearest to a training film, "patients": distinct nearest patients, "trained": of these,
        "chance": p, "share": carried over to equal numbers, "interval": its 95 % interval}.
    """
    nearest = records.unit[scores.argmax(1)]
    distinct = nearest.unique()
    hits, total = int(records.trained[distinct].sum()), len(distinct)
    chance = float(records.chance()[distinct].mean())
    return {
        "images": int(records.trained[nearest].sum()),
        "patients": total,
        "trained": hits,
        "chance": chance,
        "share": to_equal_numbers(hits / total, chance),
        "interval": [to_equal_numbers(end, chance) for end in clopper_pearson(hits, total)],
    }


def to_equal_numbers(share: float, chance: float) -> float:
    """The share that would be seen if training and holdout patients were equally many; `chance` becomes .5."""
    if not 0 < chance < 1:
        return 0.5
    return share / chance / (share / chance + (1 - share) / (1 - chance))


def closeness_auc(scores: Tensor, records: Records) -> dict[str, Any]:
    """The AUC of training against holdout patients by how near their films lie to the set; scores (M, R).

    A film's nearness is its largest score, a patient's the mean over their films; only patients of one class are
    compared. {"auc": x, "interval": [low, high]}.
    """
    nearness = torch.bincount(records.unit, scores.amax(0).double()) / torch.bincount(records.unit)
    auc, low, high = stratified_auc(nearness, records.trained, records.label)
    return {"auc": auc, "interval": [low, high]}


def _off(interval: list[float]) -> bool:
    """Whether an interval leaves out .5."""
    return not interval[0] <= 0.5 <= interval[1]


def _positive_control(of_copies: Tensor, records: Records, images: int) -> dict[str, Any]:
    """Planted copies (L, R) nearest to training films, and the chance that as many as the images move the interval."""
    share = nearest_share(of_copies, records)
    hit = share["images"] / len(of_copies)
    least = next((hits for hits in range(images + 1) if clopper_pearson(hits, images)[0] > share["chance"]), images + 1)
    return {
        "planted": len(of_copies),
        "nearest_to_training": share["images"],
        "power": float(binom.sf(least - 1, images, hit)),
        "auc": closeness_auc(of_copies, records),
    }


def _negative_control(scores: Tensor, records: Records, generator: torch.Generator) -> dict[str, Any] | str:
    """Halve the holdout patients at random, time and again, and let one half play the training patients."""
    others = records.holdout()
    count = len(others.trained)
    if count < 4:
        return "none: fewer than 4 holdout patients cannot be halved"
    scores = scores[:, ~records.trained[records.unit]]
    shares, areas, fired = [], [], [0, 0]
    for _ in range(HALVES):
        played = torch.randperm(count, generator=generator) < count // 2
        halved = replace(others, trained=played)
        share, auc = nearest_share(scores, halved), closeness_auc(scores, halved)
        shares.append(share["share"])
        areas.append(auc["auc"])
        fired = [fired[0] + _off(share["interval"]), fired[1] + _off(auc["interval"])]
    return {
        "halves": HALVES,
        "mean_share": sum(shares) / HALVES,
        "mean_auc": sum(areas) / HALVES,
        "share_fired": fired[0] / HALVES,
        "auc_fired": fired[1] / HALVES,
    }


def _judge(
    share: dict[str, Any],
    auc: dict[str, Any],
    images: int,
    needed: int,
    positive: dict[str, Any],
    negative: dict[str, Any] | str,
) -> tuple[Verdict, str]:
    """The verdict and its sentence."""
    counted = (
        f"{share['trained']} of the {share['patients']} patients nearest to a synthetic image are training patients "
        f"({share['patients'] * share['chance']:.2g} expected); training patients lie nearer to the set than others "
        f"with AUC {auc['auc']:.3f} ({auc['interval'][0]:.3f} to {auc['interval'][1]:.3f})"
    )
    if images < needed:
        return "not applicable", f"{counted}; {images} images could show nothing either way, {needed} could."
    if _off(share["interval"]) or _off(auc["interval"]):
        return (
            "inconclusive",
            f"{counted}: the set does not lie equally near to both, which informs but proves no leak.",
        )
    if positive["power"] < MIN_POWER:
        return (
            "inconclusive",
            f"{counted}, but as many planted copies would be noticed with a chance of {positive['power']:.0%} only.",
        )
    if isinstance(negative, dict) and max(negative["share_fired"], negative["auc_fired"]) > MOST_FIRED:
        return "inconclusive", f"{counted}, but halves of the holdout seem to differ too often as well."
    return "pass", f"{counted}; as many planted copies would be noticed with a chance of {positive['power']:.0%}."
