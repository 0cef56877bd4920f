"""The settings of every stage: one frozen dataclass each, units in the field docs.

The command line's help is made from these docs; nothing here imports torch, so that help is quick.
"""

import os
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from medistill.errors import UserError


def require(condition: bool, message: str) -> None:
    """Raise a UserError with the message unless the condition holds."""
    if not condition:
        raise UserError(message)


@dataclass(frozen=True)
class Phantom:
    """The embedded cohort of synthetic, chest-like films (used when data.cohort is `phantom`).

    Attributes:
        patients: number of patients; each has one class, classes take turns.
        films: films per patient.
        size: side of the written films, pixels.
    """

    patients: int = 150
    films: int = 3
    size: int = 96

    def __post_init__(self) -> None:
        require(self.patients >= 3, f"data.phantom.patients is {self.patients}; give at least 3, one a class")
        require(self.films >= 1, f"data.phantom.films is {self.films}; give at least 1")
        require(32 <= self.size <= 1024, f"data.phantom.size is {self.size}; give 32 to 1024 pixels")


@dataclass(frozen=True)
class Data:
    """LOAD: which films, and how they become images.

    Attributes:
        adapter: what the data are: `films` of a hospital, or a public benchmark with its official test split,
            `cifar10` (the python version's batches) or `medmnist` (a 2D set's .npz).
        cohort: of films a CSV file, a folder of class folders, or `phantom`; of cifar10 the folder
            cifar-10-batches-py or its parent, of medmnist the .npz. A relative path is looked up in the
            current folder, then in the folder that the environment variable MEDISTILL_DATA names.
        name: name of the data set in MLflow, reports and the release.
        columns: our column name -> the CSV's (path, label, patient_id, view, sex, age, site, split).
        classes: class names in order; empty: those of the cohort, sorted (of medmnist the labels' numbers).
        positive: the class whose detection is reported (sensitivity, specificity, AUROC against the rest).
        size: side of the square image the networks see, pixels; a benchmark's own side.
        zca: whiten the images (ZCA, fitted on the training images) instead of normalising them; 64 pixels at most,
            and a set made so is not released: the whitening tells about the training images.
        modalities: DICOM modalities that are accepted (SC and OT only when named here).
        views: view positions that are accepted; "" accepts a DICOM file that names none.
        unknown_patients: accept films without a patient id, each counted as a patient of its own.
        on_bad_file: `error` stops and lists every bad file; `skip` leaves them out and counts them.
        val_fraction: share of the films that are not test kept for validation, by patient; both
            shares are rounded to one part in a whole number (.15 gives a seventh). Of cifar10 this share of
            each class's training images; unused for medmnist, which has a validation split.
        test_fraction: share of all films kept for test, by patient, unless the CSV gives a split.
        near_duplicate: correlation above which `check` lists two films in different splits as near
            duplicates (0 to 1; 1 turns the search off). All pairs are searched: seconds for 1,750 images, hours
            for 60,000.
        workers: processes that decode films; 0: one a core.
        citation: how to cite the data; stands in the release.
        licence: terms of the data; stand in the release.
        phantom: the embedded cohort.
    """

    adapter: Literal["films", "cifar10", "medmnist"] = "films"
    cohort: str = "phantom"
    name: str = "phantom"
    columns: dict[str, str] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    positive: str = "COVID"
    size: int = 64
    zca: bool = False
    modalities: list[str] = field(default_factory=lambda: ["CR", "DX"])
    views: list[str] = field(default_factory=lambda: ["PA", "AP", ""])
    unknown_patients: bool = False
    on_bad_file: Literal["error", "skip"] = "error"
    val_fraction: float = 0.15
    test_fraction: float = 0.25
    near_duplicate: float = 0.98
    workers: int = 0
    citation: str = ""
    licence: str = ""
    phantom: Phantom = field(default_factory=Phantom)

    def __post_init__(self) -> None:
        require(16 <= self.size <= 512, f"data.size is {self.size}; give 16 to 512 pixels")
        require(bool(self.cohort), "data.cohort is empty; name a CSV file, a folder of class folders, or phantom")
        require(
            self.adapter == "films" or self.cohort != "phantom",
            f"data.adapter is {self.adapter}, but data.cohort names no data; name its folder or file there",
        )
        require(
            not self.zca or self.size <= 64,
            f"data.zca is true and data.size {self.size}; whitening needs matrices of (channels x size²)² numbers, so "
            "lower data.size to 64 or set data.zca to false",
        )
        require(len(set(self.classes)) == len(self.classes), f"data.classes {self.classes} names a class twice")
        require(self.workers >= 0, f"data.workers is {self.workers}; give 0 (one a core) or more")
        for name in ("val_fraction", "test_fraction"):
            value = getattr(self, name)
            require(0 < value < 0.9, f"data.{name} is {value}; give a share above 0 and below 0.9")
        require(
            0 < self.near_duplicate <= 1,
            f"data.near_duplicate is {self.near_duplicate}; give a correlation up to 1",
        )
        require(
            not self.classes or self.positive in self.classes,
            f"data.positive is {self.positive!r}, which is not one of data.classes {self.classes}; name one of them",
        )


@dataclass(frozen=True)
class Net:
    """The network that experts, distillation and evaluation share.

    Attributes:
        name: `convnet` (ConvNet-D of the field).
        width: channels of each block.
        depth: number of blocks; each halves the image.
    """

    name: Literal["convnet"] = "convnet"
    width: int = 32
    depth: int = 4

    def __post_init__(self) -> None:
        require(self.width >= 1, f"net.width is {self.width}; give at least 1")
        require(1 <= self.depth <= 7, f"net.depth is {self.depth}; give 1 to 7")


@dataclass(frozen=True)
class Experts:
    """EXPERTS: networks trained on the real films, whose parameters are kept epoch by epoch.

    Attributes:
        count: number of experts.
        epochs: passes over the training films.
        lr: SGD step size.
        momentum: SGD momentum (MTT: 0).
        batch: films a step.
        augment: differentiable augmentation operations; flip mirrors left and right, so it is off here.
    """

    count: int = 6
    epochs: int = 30
    lr: float = 0.01
    momentum: float = 0.0
    batch: int = 64
    augment: list[str] = field(default_factory=lambda: ["color", "crop", "cutout", "scale", "rotate"])

    def __post_init__(self) -> None:
        for name in ("count", "epochs", "batch"):
            require(getattr(self, name) >= 1, f"experts.{name} is {getattr(self, name)}; give at least 1")
        require(self.lr > 0, f"experts.lr is {self.lr}; give a positive step size")
        require(0 <= self.momentum < 1, f"experts.momentum is {self.momentum}; give 0 up to below 1")
        _check_augment("experts.augment", self.augment)


@dataclass(frozen=True)
class Distill:
    """DISTILL: IADD (Li et al. 2024), trajectory matching with importance weights.

    Attributes:
        seed: another number gives another distillation from the same films and experts.
        ipc: images per class.
        iterations: distillation iterations; the last one is the result.
        inner_steps: J, steps of the student on the synthetic images.
        expert_epochs: K, epochs of the expert that those steps have to match.
        max_start_epoch: the start is drawn from the expert's epochs 0 to this, exclusive.
        batch: synthetic images an inner step; 0: all.
        start: `noise`, `phantom` (films of the generator, public by construction), `class_mean` or
            `real`; the last two show patients.
        start_scale: standard deviation of the noise start, in normalised units.
        start_smooth: Gaussian blur of the noise start, standard deviation in pixels; 0: none.
        lr_images: step size on the pixels.
        lr_decay: `constant`, or `cosine` down to 0 after the last iteration (pixels only).
        momentum: SGD momentum on pixels, step size and labels.
        alpha: start of the inner step size.
        alpha_space: learn it as its logarithm (`log`) or as published (`linear`, kept above 1e-6).
        lr_alpha: step size on it (on log alpha in the log space).
        importance: `descend` (guarded), `literal` (as written, no guard) or `off` (MTT).
        lr_importance: step size on the weights W.
        soft_labels: learn the labels too, as softmax of logits.
        lr_labels: step size on the label logits.
        ema: decay of the moving average of the pixels that becomes the result; 0: the last pixels.
        augment: augmentation of the student; keep it equal to the experts'.
        loss_limit: an iteration whose unweighted loss (mean over its segments) is above this is skipped and counted.
        segments: segments of trajectories matched in each iteration, their gradients averaged; several processes
            share them, so give a multiple of their number.
        checkpoint_minutes: minutes between checkpoints, which is what a kill can cost; 0: one after every iteration.
    """

    seed: int = 0
    ipc: int = 1
    iterations: int = 300
    inner_steps: int = 20
    expert_epochs: int = 2
    max_start_epoch: int = 15
    batch: int = 0
    start: Literal["noise", "phantom", "class_mean", "real"] = "noise"
    start_scale: float = 1.0
    start_smooth: float = 0.0
    lr_images: float = 100.0
    lr_decay: Literal["constant", "cosine"] = "constant"
    momentum: float = 0.5
    alpha: float = 0.01
    alpha_space: Literal["log", "linear"] = "log"
    lr_alpha: float = 0.01
    importance: Literal["descend", "literal", "off"] = "descend"
    lr_importance: float = 10.0
    soft_labels: bool = False
    lr_labels: float = 1.0
    ema: float = 0.0
    augment: list[str] = field(default_factory=lambda: ["color", "crop", "cutout", "scale", "rotate"])
    loss_limit: float = 5.0
    segments: int = 1
    checkpoint_minutes: float = 5.0

    def __post_init__(self) -> None:
        for name in (
            "ipc",
            "iterations",
            "inner_steps",
            "expert_epochs",
            "max_start_epoch",
            "segments",
        ):
            require(getattr(self, name) >= 1, f"distill.{name} is {getattr(self, name)}; give at least 1")
        for name in ("lr_images", "alpha", "loss_limit"):
            require(getattr(self, name) > 0, f"distill.{name} is {getattr(self, name)}; give a positive number")
        for name in (
            "batch",
            "start_scale",
            "start_smooth",
            "lr_alpha",
            "lr_importance",
            "lr_labels",
            "checkpoint_minutes",
        ):
            require(getattr(self, name) >= 0, f"distill.{name} is {getattr(self, name)}; give 0 or more")
        for name in ("momentum", "ema"):
            require(0 <= getattr(self, name) < 1, f"distill.{name} is {getattr(self, name)}; give 0 up to below 1")
        _check_augment("distill.augment", self.augment)


@dataclass(frozen=True)
class Evaluate:
    """EVALUATE: fresh networks trained on each set by one recipe, measured on the test films.

    Attributes:
        seeds: networks per set.
        steps: SGD steps of each.
        batch: images a step.
        lr: step size on real films; a distilled set brings its own.
        momentum: SGD momentum.
        weight_decay: SGD weight decay.
        augment: augmentation while training.
        resamples: bootstrap resamples (by patient) of the intervals.
        baselines: also train on random real films of the same count and on all training films.
    """

    seeds: int = 5
    steps: int = 1000
    batch: int = 64
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: list[str] = field(default_factory=lambda: ["color", "crop", "cutout", "scale", "rotate"])
    resamples: int = 1000
    baselines: bool = True

    def __post_init__(self) -> None:
        for name in ("seeds", "steps", "batch", "resamples"):
            require(getattr(self, name) >= 1, f"evaluate.{name} is {getattr(self, name)}; give at least 1")
        require(self.lr > 0, f"evaluate.lr is {self.lr}; give a positive step size")
        require(0 <= self.momentum < 1, f"evaluate.momentum is {self.momentum}; give 0 up to below 1")
        require(self.weight_decay >= 0, f"evaluate.weight_decay is {self.weight_decay}; give 0 or more")
        _check_augment("evaluate.augment", self.augment)


@dataclass(frozen=True)
class Audit:
    """AUDIT: what the distilled set tells about patients.

    Attributes:
        planted: copies of training films planted as the positive control.
        holdout: films of other patients the search is calibrated on, at most; 0: all of val and test.
    """

    planted: int = 40
    holdout: int = 0

    def __post_init__(self) -> None:
        require(self.planted >= 10, f"audit.planted is {self.planted}; give at least 10")
        require(
            self.holdout == 0 or self.holdout >= 20,
            f"audit.holdout is {self.holdout}; give 0 (all) or at least 20: fewer cannot tell a copy from chance",
        )


@dataclass(frozen=True)
class Config:
    """One run.

    Attributes:
        run: folder of the run; every stage writes into it.
        seed: the base seed from which every random number descends.
        device: `auto` takes a GPU when there is one; of several processes each takes its own.
        threads: CPU threads of each process; 0: as torch decides, or an equal share of the machine's cores for
            each of several processes.
        compile: torch.compile for the kernels of experts, distillation and evaluation: `auto` where the work is long
            enough to earn the compiling back (it needs a C++ compiler; results differ in rounding), `always`, `never`.
        track: log to MLflow (SQLite here, or the server that MLFLOW_TRACKING_URI names).
        data: LOAD.
        net: the network.
        experts: EXPERTS.
        distill: DISTILL.
        evaluate: EVALUATE.
        audit: AUDIT.
    """

    run: str = "runs/phantom"
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 0
    compile: Literal["auto", "always", "never"] = "auto"
    track: bool = True
    data: Data = field(default_factory=Data)
    net: Net = field(default_factory=Net)
    experts: Experts = field(default_factory=Experts)
    distill: Distill = field(default_factory=Distill)
    evaluate: Evaluate = field(default_factory=Evaluate)
    audit: Audit = field(default_factory=Audit)

    def __post_init__(self) -> None:
        last = self.distill.max_start_epoch - 1 + self.distill.expert_epochs
        require(
            last <= self.experts.epochs,
            f"distill.max_start_epoch {self.distill.max_start_epoch} with distill.expert_epochs "
            f"{self.distill.expert_epochs} reaches epoch {last}, beyond the trajectory's last, experts.epochs "
            f"{self.experts.epochs}; lower one of the first two or train the experts for longer",
        )
        require(
            self.data.size >> self.net.depth >= 1,
            f"net.depth {self.net.depth} halves data.size {self.data.size} to nothing; lower the depth",
        )
        most = 4 * (os.cpu_count() or 1)
        require(0 <= self.threads <= most, f"threads is {self.threads}; give 0 to {most} on this machine")
        require(bool(self.run), "run is empty; name the folder of the run")

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dicts and lists, as they stand in a YAML file."""
        return asdict(self)


def _check_augment(option: str, names: list[str]) -> None:
    known = ("color", "crop", "cutout", "flip", "scale", "rotate")
    for name in names:
        require(name in known, f"{option}: {name!r} is not an augmentation; choose from {', '.join(known)}")
