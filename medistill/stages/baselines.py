"""What a distilled set must beat: real films of the same count, and all of them."""

from dataclasses import replace
from statistics import fmean

from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn

from medistill import seeds
from medistill.distill.distilled import Distilled
from medistill.errors import UserError
from medistill.evaluate.evaluation import FULL, Measured
from medistill.evaluate.scores import Accuracies, Scores, scores
from medistill.evaluate.subsets import features, herding_subset, kmeans_subset, random_subset
from medistill.stages.experts import trained
from medistill.stages.load import Splits
from medistill.stages.session import Session
from medistill.stages.students import ask, measure, recipe_of


def require_enough(session: Session, splits: Splits) -> None:
    """Raise a UserError when a class has fewer training films than random real films are to be drawn."""
    ipc, train = session.config.distill.ipc, splits.train
    for name, count in zip(train.classes, train.counts, strict=True):
        if count < ipc and session.config.evaluate.baselines:
            raise UserError(
                f"distill.ipc is {ipc}, but class {name} has {count} training films to draw the baseline from; "
                "lower distill.ipc or set evaluate.baselines to false"
            )


def baselines(session: Session, splits: Splits) -> list[Measured]:
    """Students on real films, as many as the distilled set has images, and on all training films.

    Those films are drawn at random, or chosen by k-means and by herding in what an expert's last layer receives.
    """
    require_enough(session, splits)
    ipc, train, lr = session.config.distill.ipc, splits.train, session.config.evaluate.lr
    pixels, labels, groups = train.pixels(), train.labels, train.groups
    draw = seeds.generator(session.config.seed, "k-means", session.config.distill.seed)
    seen = features(_expert(session, splits), pixels, session.device)
    chosen = {
        "random real": _random_films(session, splits),
        "k-means": kmeans_subset(seen, labels, ipc, draw, groups),
        "herding": herding_subset(seen, labels, ipc, groups),
    }
    subsets = [measure(session, splits, name, pixels[index], labels[index], lr) for name, index in chosen.items()]
    return [*subsets, measure(session, splits, FULL, pixels, labels, lr)]


def score(session: Session, splits: Splits, final: Distilled, measured: list[Measured]) -> Scores:
    """DD-Ranking's scores of the set, on balanced accuracies of students with and without augmentation."""
    recipe, known = recipe_of(session), {one.arm.name: one.found for one in measured}
    bare = replace(recipe, augment=())
    index, train, lr = _random_films(session, splits), splits.train, session.config.evaluate.lr
    own, real = (final.images, final.labels, final.lr), (train.pixels()[index], train.labels[index], lr)
    hard = (final.images, final.targets, final.lr)
    found = {
        "full_hard": known[FULL],
        "synthetic_hard": ask(session, splits, "distilled, hard labels", *hard, recipe, final.sequence)
        if final.labels.amax(1).min() < 1
        else known["distilled"],
        "synthetic": known["distilled"],
        "random": known["random real"],
        "synthetic_plain": ask(session, splits, "distilled, not augmented", *own, bare, final.sequence),
        "random_plain": ask(session, splits, "random real, not augmented", *real, bare),
    }
    labels = splits.test.labels
    accuracies = {
        name: fmean(balanced_accuracy_score(labels, p.argmax(1)) for p in answers.test)
        for name, answers in found.items()
    }
    return scores(Accuracies(**accuracies))


def _random_films(session: Session, splits: Splits) -> Tensor:
    """(K * ipc,) the training films drawn at random."""
    config, train = session.config, splits.train
    generator = seeds.generator(config.seed, "random real", config.distill.seed)
    return random_subset(train.labels, config.distill.ipc, generator, train.groups)


def _expert(session: Session, splits: Splits) -> nn.Module:
    """The first expert after its last epoch."""
    trajectories = trained(session, splits)
    module = trajectories.architecture.build(seeds.generator(0, "shape"))
    (theta,) = trajectories.rows(0, trajectories.epochs)
    nn.utils.vector_to_parameters(theta, module.parameters())
    return module
