"""Does the network of check 4 recognise patients, and does the check tell sets that show them from sets that do not?

In each cohort one network meets noise, films of 12 holdout patients who left the holdout ("strangers"), and films of
12 training patients taken on another day than those that stayed in the training set ("other films").

    python pipelines/reidentification.py               both cohorts, then docs/results/reidentification.json
    python pipelines/reidentification.py --only cxr    one cohort; writes no table

Options behind a lone -- change the config of both, such as -- --threads 4.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from medistill.audit.recogniser import one_each, roles
from medistill.audit.reidentification import reidentify
from medistill.audit.siamese import train_siamese
from medistill.cli import configure
from medistill.data.imageset import ImageSet
from medistill.files import write_json
from medistill.seeds import generator
from medistill.stages.load import load
from medistill.stages.session import Session

PHANTOM = ["--run", "runs/reidentification", "--data.phantom.patients", "500"]
COHORTS = {"phantom": PHANTOM, "cxr": ["--config", "configs/covid19.yaml"]}
IMAGES, FIELDS = 12, ("images", "labels", "groups")


def take(films: ImageSet, more_than: int) -> tuple[torch.Tensor, ImageSet]:
    """One film of each of 12 patients with more than so many, and the set without: the film if that is 1, or all."""
    patients, counts = films.groups.unique(return_counts=True)
    index = one_each(films.groups, generator(0, "reidentification", "taken"))
    index = index[torch.isin(films.groups[index], patients[counts > more_than])][:IMAGES]
    left = torch.isin(torch.arange(len(films)), index) if more_than else torch.isin(films.groups, films.groups[index])
    return films.images[index], replace(films, **{name: getattr(films, name)[~left] for name in FIELDS})


def measured(one: Session) -> dict:
    """What the check says of each set, and the controls, of which `fired` and `whole_set` belong to the last."""
    splits, seed, steps = load(one), one.config.seed, one.config.audit.reidentification.steps
    both = {name: torch.cat([getattr(splits.val, name), getattr(splits.test, name)]) for name in FIELDS}
    (other, train), (strangers, holdout) = take(splits.train, 1), take(replace(splits.test, **both), 0)
    sets = {"noise": torch.rand(other.shape, generator=generator(seed, "noise")), "strangers": strangers}
    fit, _ = roles(train.groups, seed)
    net = train_siamese(train.images[fit], train.groups[fit], seed=seed, steps=steps, device=one.device, say=one.say)
    rows = {}
    for name, images in (sets | {"other films": other}).items():
        found = reidentify(images, train, holdout, net, seed=seed, planted=100).check.to_json()
        one.say(f"{name}: {found['verdict']}. {found['explanation']}")
        rows[name] = {key: found[key] for key in ("verdict", "statistic", "interval", "power")}
    return {"sets": rows, "steps": steps, **{key: found[key] for key in ("positive_control", "negative_control")}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", choices=["", *COHORTS])
    parser.add_argument("more", nargs="*", help="options of medistill for both cohorts")
    chosen = parser.parse_args()
    names = [chosen.only] if chosen.only else list(COHORTS)
    table = {name: measured(Session(configure("run", [*COHORTS[name], *chosen.more]))) for name in names}
    if not chosen.only:
        write_json(Path("docs/results/reidentification.json"), table)


if __name__ == "__main__":
    main()
