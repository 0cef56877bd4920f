"""Settings of LOAD."""

from dataclasses import dataclass, field
from typing import Literal

from medistill.config.rules import require


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
        adapter: what the data are: `films` of a hospital; a public benchmark with its official test split, `cifar10`
            or `cifar100` (the python version's batches), `tiny_imagenet` (val is the test split) or `medmnist` (a 2D
            set's .npz); or `image_folder`, PNG and JPEG of nobody in particular in train/CLASS, test/CLASS and, if
            there is one, val/CLASS.
        cohort: of films a CSV file, a folder of class folders, or `phantom`; of cifar10, cifar100 and tiny_imagenet
            the folder cifar-10-batches-py, cifar-100-python or tiny-imagenet-200 or its parent, of medmnist the .npz,
            of an image_folder the folder that holds train/. A relative path is looked up in the current folder, then
            in the folder that the environment variable MEDISTILL_DATA names.
        download: fetch the official files of cifar10 or cifar100 through torchvision into the folder that cohort names,
            where nothing is yet; needs a network.
        name: name of the data set in MLflow, reports and the release.
        columns: our column name -> the CSV's (path, label, patient_id, view, sex, age, site, split).
        classes: class names in order; empty: those of the cohort, sorted (of medmnist the labels' numbers).
        positive: the class whose detection is reported (sensitivity, specificity, AUROC against the rest).
        size: side of the square image the networks see, pixels; of a benchmark its own side. Films and the pictures of
            an image_folder are cut to their centre square and resized.
        zca: whiten the images (ZCA, fitted on the training images) instead of normalising them; 64 pixels at most,
            and a set made so is not released: the whitening tells about the training images.
        mask: share of the side that is made grey along each border of every film, for letters and marks stand there; 0:
            none. Films that are shown to a network later need the same mask.
        modalities: DICOM modalities that are accepted (SC and OT only when named here).
        views: view positions that are accepted; "" accepts a DICOM file that names none.
        unknown_patients: accept films without a patient id, each counted as a patient of its own.
        on_bad_file: `error` stops and lists every bad file; `skip` leaves them out and counts them.
        val_fraction: share of the films that are not test kept for validation, by patient; both
            shares are rounded to one part in a whole number (.15 gives a seventh). Of a benchmark without a
            validation split this share of each class's training images; unused where there is one.
        test_fraction: share of all films kept for test, by patient, unless the CSV gives a split.
        near_duplicate: correlation above which `check` lists two films in different splits as near
            duplicates (0 to 1; 1 turns the search off). All pairs are searched, 1,000
            at most are listed: seconds for 1,750 images, docs/scale.md tells of more.
        workers: processes that decode films; 0: one a core.
        citation: how to cite the data; stands in the release.
        licence: terms of the data; stand in the release.
        phantom: the embedded cohort.
    """

    adapter: Literal["films", "cifar10", "cifar100", "tiny_imagenet", "medmnist", "image_folder"] = "films"
    cohort: str = "phantom"
    download: bool = False
    name: str = "phantom"
    columns: dict[str, str] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    positive: str = "COVID"
    size: int = 64
    zca: bool = False
    mask: float = 0.0
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
            not self.download or self.adapter not in ("films", "image_folder"),
            f"data.download is true, but data.adapter {self.adapter} reads files of your own; set it to false",
        )
        require(
            not self.zca or self.size <= 64,
            f"data.zca is true and data.size {self.size}; whitening needs matrices of (channels x size²)² numbers, so "
            "lower data.size to 64 or set data.zca to false",
        )
        require(0 <= self.mask < 0.5, f"data.mask is {self.mask}; give 0 up to below .5, the share of a side")
        require(
            self.mask == 0 or self.adapter == "films",
            f"data.mask is {self.mask}, but data.adapter {self.adapter} reads a benchmark, whose images are taken as "
            "they are; set it to 0",
        )
        require(
            len(set(self.classes)) == len(self.classes),
            f"data.classes {self.classes} names a class twice; name each once",
        )
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
