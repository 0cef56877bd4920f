"""A release as its receiver scores it: LRS by the package `ddranking`, in an environment that has no medistill.

    python pipelines/score_with_ddranking.py RELEASE REAL --out scores.json

REAL holds cifar-10-batches-py. The images are handed over as tensors, (pixel - mean) / std with the client's own
constants and not clamped, and the classes as hard labels; every choice of a learning rate is the client's.
The client is used as installed, but for two things that would stop it: files whose MD5 is not the official one are let
through torchvision's check, and an error of writing its CSV is noted, not raised. docs/ddranking.md says why.
"""

import argparse
import hashlib
import json
import math
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest.mock import patch

import torch
from ddranking.metrics import LabelRobustScoreHard, hard_label
from safetensors import safe_open
from torch import Tensor
from torchvision.datasets import CIFAR10
from torchvision.transforms import Normalize

IMAGES, EVALUATION = "distilled.safetensors", "evaluation.json"
SETTINGS = {"dataset": "CIFAR10", "model_name": "ConvNet-3", "optimizer": "sgd", "lr_scheduler": "step"}
SETTINGS |= {"data_aug_func": "dsa"}
# the authors' augmentation for sets of trajectory matching at 10 images per class
DSA = {"flip": 0.5, "rotate": 15.0, "saturation": 2.0, "brightness": 1.0, "contrast": 0.5, "scale": 1.2}
DSA |= {"crop": 0.125, "cutout": 0.5}


def released(folder: Path) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Pictures (M, 3, 32, 32) in units of pixels, classes (M,) and metadata, once every file fits SHA256SUMS."""
    sums = dict(line.split("  ", 1)[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    for name in {IMAGES, EVALUATION, *sums}:
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != sums.get(name):
            raise SystemExit(f"{name}: not the file that was released; fetch the release again")
    with safe_open(folder / IMAGES, "pt") as file:
        images, labels = file.get_tensor("images"), file.get_tensor("labels")
        about = json.loads(file.metadata()["medistill"])
    if about.get("sequence"):
        raise SystemExit(f"{IMAGES}: a set whose order matters, which ddranking cannot follow")
    mean, std = (torch.tensor(about[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    return images * std + mean, labels.argmax(1), about


def let_through(root: Path) -> list[str]:
    """Give torchvision the MD5 of the files at hand, so that a subset is read; the names of those not official."""
    entries = [*CIFAR10.train_list, *CIFAR10.test_list]
    other = []
    for entry in entries:
        found = hashlib.md5((root / CIFAR10.base_folder / entry[0]).read_bytes(), usedforsecurity=False).hexdigest()
        if found != entry[1]:
            other.append(entry[0])
            entry[1] = found
    return other


def watched(scorer: Any, images: Tensor) -> dict[str, list[dict[str, float]]]:
    """What the scorer will measure, in the client's own percent, with the learning rate it settled on."""
    seen: dict[str, list[dict[str, float]]] = {"synthetic": [], "full": [], "random": []}
    measure = scorer._compute_hard_label_metrics_helper

    def noting(**given: Any) -> tuple[float, float]:
        accuracy, lr = measure(**given)
        own = "synthetic" if given["image_tensor"] is images else "random"
        seen["full" if given["mode"] == "real" else own].append({"accuracy": accuracy, "lr": lr})
        return accuracy, lr

    scorer._compute_hard_label_metrics_helper = noting
    return seen


def asked(scorer: Any, images: Tensor, classes: Tensor) -> tuple[dict[str, float], dict[str, Any]]:
    """What the scorer returns, and the lists it meant to write with the error that came of it."""
    lists: dict[str, Any] = {}
    write = hard_label.save_results

    def noting(results: dict[str, list[float]], path: str) -> None:
        lists.update({name: list(map(float, values)) for name, values in results.items()})
        try:
            write(results, path)
        except ValueError as error:
            lists["error of writing them"] = str(error)

    with patch.object(hard_label, "save_results", noting):
        returned = scorer.compute_metrics(image_tensor=images, hard_labels=classes)
    return {name: float(value) for name, value in returned.items()}, lists


def lrs(hlr: float, ior: float) -> float:
    """The formula of the paper, arXiv 2505.13300, on whatever unit it is given; fractions are the paper's."""
    return (math.exp(0.5 * ior - 0.5 * hlr) - math.exp(-1)) / (math.e - math.exp(-1))


def summed_up(seen: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Our formula on the client's accuracies, as fractions and in the client's percent."""
    means = {name: fmean(one["accuracy"] for one in runs) / 100 for name, runs in seen.items()}
    hlr, ior = means["full"] - means["synthetic"], means["synthetic"] - means["random"]
    return {
        "by hand, fractions": {"hlr": hlr, "ior": ior, "lrs": lrs(hlr, ior)},
        "by hand, percent in the exponent": {"lrs": lrs(100 * hlr, 100 * ior)},
    }


def scored(release: Path, real: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    """Everything that the table holds of the client."""
    pictures, classes, about = released(release)
    ipc, rest = divmod(len(classes), len(about["classes"]))
    if rest or set(classes.bincount().tolist()) != {ipc}:
        raise SystemExit(f"{IMAGES}: classes of unequal size, for which ddranking has no random baseline")
    other = let_through(real)
    with tempfile.TemporaryDirectory() as scratch:
        places = {"real_data_path": str(real), "save_path": f"{scratch}/scores.csv", "random_data_path": scratch}
        here = {"aug_params": dict(DSA), "eval_full_data": True, "device": "cpu", "num_workers": 0}
        scorer = LabelRobustScoreHard(ipc=ipc, **SETTINGS, **recipe, **places, **here)
        if list(scorer.dst_train.classes) != about["classes"]:
            raise SystemExit(
                f"{IMAGES}: classes {about['classes']}, but those of ddranking are {scorer.dst_train.classes}"
            )
        (constants,) = (step for step in scorer.dst_train.transform.transforms if isinstance(step, Normalize))
        images = constants(pictures)
        seen = watched(scorer, images)
        returned, lists = asked(scorer, images, classes)
    return {
        "provenance": about["provenance"],
        "settings": {"ipc": ipc, **SETTINGS, **recipe, "aug_params": DSA},
        "real": {"train": len(scorer.dst_train), "not the official files": other},
        "returned by the client": returned,
        "lists of the client": lists,
        "accuracies in percent": seen,
        **summed_up(seen),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path)
    parser.add_argument("real", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=10, help="of every network; the client tests after each tenth")
    parser.add_argument("--runs", type=int, default=1, help="repetitions of everything, ddranking's num_eval")
    parser.add_argument("--batch", type=int, default=5, help="of the synthetic images and of as many random ones")
    parser.add_argument("--real-batch", type=int, default=64, help="of all real images")
    args = parser.parse_args()
    recipe = {"num_epochs": args.epochs, "step_size": max(1, args.epochs // 2), "num_eval": args.runs}
    recipe |= {"syn_batch_size": args.batch, "real_batch_size": args.real_batch}
    began = time.monotonic()
    table = {
        "client": f"ddranking {version('ddranking')}",
        "release": hashlib.sha256((args.release / IMAGES).read_bytes()).hexdigest(),
        **scored(args.release, args.real, recipe),
        "our own": json.loads((args.release / EVALUATION).read_text()).get("scores"),
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    args.out.write_text(json.dumps(table, indent=2) + "\n")
    print(json.dumps(table["returned by the client"]), json.dumps(table["by hand, fractions"]))


if __name__ == "__main__":
    main()
