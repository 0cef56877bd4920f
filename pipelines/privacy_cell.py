"""A cell of the DP study: private experts, a set distilled from them, students, and how sure these are of a patient."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from math import isinf
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from privacy_films import Films
from privacy_settings import PLAIN, Study
from safetensors.torch import load_file
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from torch import Tensor, nn

from medistill import seeds
from medistill.audit.attack_scores import confidence, patient_means
from medistill.distill import iadd, importance, initial
from medistill.distill.state import State
from medistill.evaluate.student import Recipe, fit_all, predict
from medistill.experts.ledger import FILE, Entry, Ledger, Noise, Terms
from medistill.experts.private import train_private
from medistill.experts.trajectory import Trajectories, save_trajectory
from medistill.files import read_json, read_metadata, write_json, write_tensors
from medistill.nets import Flat

CPU = torch.device("cpu")
USUAL = Recipe(steps=1000, augment=())


class Prepaid(Ledger):
    """Charged for the whole run at once, not step by step: the accountant is slow, and no cell is resumed."""

    def charge_steps(self, expert: int, first: int, steps: int) -> None:
        pass


solved = cache(Noise.solve)


def cell(study: Study, films: Films, taken: Tensor, epsilon: float, seed: int, file: Path) -> tuple[Tensor, dict]:
    """How sure students are of each patient (G,), and the cell's figures; from its file where it is finished.

    Args:
        taken: (G,) True for the patients that it is trained on.
        seed: of starts and students.
    """
    if not file.exists():
        experts, noise = trained(study, films, taken, epsilon, seed, file.with_suffix(""))
        probabilities = students(study, *distilled(study, experts, seed), films.pixels, seed)
        sure = patient_means(confidence(probabilities, films.labels), films.patient).mean(0)
        held = ~films.member[films.patient]
        found = {
            "noise_multiplier": noise,
            "student": mean_of(probabilities[:, held], films.labels[held]),
            "expert": mean_of(last_rows(experts, films.pixels[held]), films.labels[held]),
        }
        write_tensors(file, {"confidence": sure}, found)
        shutil.rmtree(file.with_suffix(""))
    return load_file(file)["confidence"], read_metadata(file)


def trained(
    study: Study, films: Films, taken: Tensor, epsilon: float, seed: int, folder: Path
) -> tuple[Trajectories, float]:
    """Experts of the patients taken, and the noise multiplier of their steps."""
    settings = study.settings(epsilon)
    index = torch.nonzero(taken[films.patient]).flatten()
    private = replace(settings.private, epsilon=min(epsilon, 1e6))
    terms = Terms.of(replace(settings, private=private), int(taken.sum()), study.unit)
    # an unfinished cell is begun anew, and so is its account
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    parts = films.pixels[index], films.labels[index], films.patient[index], study.net, settings, seed
    files = [folder / f"expert_{number}.safetensors" for number in range(settings.count)]
    if isinf(epsilon):
        # the reference without a guarantee: nothing is clipped, drawn or charged
        ledger = Prepaid(folder / FILE, replace(terms, clip=1e9), Noise(0.0), [])
    else:
        ledger = Prepaid(folder / FILE, terms, solved(terms), [])
        ledger.charge(Entry("all experts", 0, terms.all_steps, ledger.noise.step, terms.rate))
    for number, rows in train_private(*parts, ledger, range(settings.count)):
        save_trajectory(files[number], rows, study.net)
    return Trajectories.open(files), ledger.noise.step


def distilled(
    study: Study, experts: Trajectories, seed: int, weight: Tensor | None = None
) -> tuple[Tensor, Tensor, float]:
    """Images, label probabilities and step size, from noise and the trajectories alone.

    Args:
        weight: (P,) W, kept as it is.
    """
    net, settings = study.net, study.distill
    labels = initial.labels_of(net.classes, settings.ipc)
    shape = (len(labels), net.channels, net.size, net.size)
    start = initial.noise(shape, settings.start_scale, settings.start_smooth, seeds.generator(seed, "start"))
    state = State.begin(start, F.one_hot(labels, net.classes).float(), experts.size, settings)
    if weight is not None:
        state.weight = weight
    for _ in iadd.distill(iadd.kernels_for(experts, state, settings), experts, state, settings, seed):
        pass
    return iadd.result(state, settings)


def wiener(study: Study, experts: Trajectories, patients: int, epsilon: float, noise: float) -> Tensor:
    """(P,) W by the noise in a parameter's way, which is known."""
    settings, net = study.settings(epsilon), Flat(study.net)
    step = settings.lr * noise * settings.private.clip / (settings.private.rate * patients)
    return importance.wiener(experts, net.numel, ~net.dead(), 1, 1, settings.private.steps * step**2)


def students(study: Study, images: Tensor, labels: Tensor, lr: float, pixels: Tensor, seed: int) -> Tensor:
    """Probabilities (students, N, K) that networks trained on a distilled set give to all films."""
    generators = [seeds.generator(seed, "student", number) for number in range(study.students)]
    recipe = replace(PLAIN, batch=len(images))
    fitted = sorted(
        fit_all(images, labels, study.net, lr, recipe, generators, CPU, compiled=False), key=lambda one: one[0]
    )
    return torch.stack([predict(module, pixels, CPU) for _, module in fitted])


def last_rows(experts: Trajectories, pixels: Tensor) -> Tensor:
    """Probabilities (experts, N, K) of the experts themselves: what distillation can lose."""
    module = experts.architecture.build(seeds.generator(0))
    found = []
    for number in range(len(experts)):
        (last,) = experts.rows(number, experts.epochs)
        nn.utils.vector_to_parameters(last, module.parameters())
        found.append(predict(module, pixels, CPU))
    return torch.stack(found)


def mean_of(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy, balanced accuracy, AUROC (one against the rest, mean over classes): means over networks (S, N, K)."""
    each = []
    for p in probabilities.double():
        scores = p[:, 1] if p.shape[1] == 2 else p / p.sum(1, keepdim=True)
        called = p.argmax(1)
        auroc = roc_auc_score(labels, scores, multi_class="ovr")
        each.append(((called == labels).double().mean(), balanced_accuracy_score(labels, called), auroc))
    return dict(zip(("accuracy", "balanced_accuracy", "auroc"), np.mean(each, axis=0).tolist(), strict=True))


def ordinary(study: Study, films: Films, seed: int) -> dict[str, float]:
    """The same network trained the usual way on all training films, in batches and with no thought of privacy."""
    index = torch.nonzero(films.member[films.patient]).flatten()
    held = torch.nonzero(~films.member[films.patient]).flatten()
    generators: Sequence[torch.Generator] = [seeds.generator(seed, "ordinary")]
    fitted = fit_all(films.pixels[index], films.labels[index], study.net, 0.03, USUAL, generators, CPU, compiled=False)
    return mean_of(torch.stack([predict(module, films.pixels[held], CPU) for _, module in fitted]), films.labels[held])


def pair(study: Study, films: Films, epsilon: float, seed: int, file: Path) -> dict[str, float]:
    """Accuracy of students with and without Wiener weights, from the same experts and start."""
    if not file.exists():
        experts, noise = trained(study, films, films.member, epsilon, seed, file.with_suffix(""))
        weights = {"off": None, "on": wiener(study, experts, int(films.member.sum()), epsilon, noise)}
        held, found = ~films.member[films.patient], {}
        for name, weight in weights.items():
            made = distilled(study, experts, seed, weight)
            found[name] = mean_of(students(study, *made, films.pixels[held], seed), films.labels[held])["accuracy"]
        write_json(file, found)
        shutil.rmtree(file.with_suffix(""))
    return read_json(file)
