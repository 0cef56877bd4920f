"""A phantom cohort on disk: DICOM and PNG films and their table, as a hospital would hand them over.

Every film is marked as synthetic: name, SeriesDescription, ImageComments, SyntheticData (0008,001C), a text
in every PNG, and a README beside them. Formats, vendors and encodings vary independently of the class.
"""

import csv
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

from medistill.data import phantom
from medistill.data.phantom import CLASSES, Array
from medistill.data.phantom_anatomy import draw_pose, stream
from medistill.errors import UserError

NOTICE = "SYNTHETIC PHANTOM"
COLUMNS = ("path", "label", "patient_id", "view", "sex", "age", "site")
README = """SYNTHETIC PHANTOM FILMS - NOT A PATIENT'S

Every film in this folder was drawn by medistill from geometry and random numbers. No film, name, age or date
belongs to a person; nothing here may be used for diagnosis. Classes: {classes}.

format 1, patients {patients}, films {films}, size {size}, seed {seed}
"""


@dataclass(frozen=True)
class Site:
    """How one hospital's machines write films.

    Attributes:
        name: the site, as in the cohort table.
        vendor: (0008,0070).
        modality: CR or DX.
        black: the stored value of 0, as 12 bits.
        white: the stored value of 1, as 12 bits.
        slope: Rescale Slope (PS3.3 C.11.1).
        intercept: Rescale Intercept.
    """

    name: str
    vendor: str
    modality: str
    black: int
    white: int
    slope: int
    intercept: int


SITES = (
    Site("north", "PHANTOM WORKS", "CR", 180, 3900, 2, -1024),
    Site("south", "MEDISTILL IMAGING", "DX", 0, 4095, 1, 0),
    Site("west", "GEOMETRY SYSTEMS", "CR", 500, 3300, 1, 0),
)


@dataclass(frozen=True)
class Study:
    """What the header of one film says besides its pixels.

    Attributes:
        seed: the cohort's seed.
        patient: the patient's index.
        film: the film's index within the patient.
        site: where it was taken.
        view: PA or AP.
        sex: F or M.
        age: in years.
    """

    seed: int
    patient: int
    film: int
    site: Site
    view: str
    sex: str
    age: int

    @property
    def patient_id(self) -> str:
        """The patient's id in the table and in the header."""
        return f"P{self.patient:05d}"

    @property
    def kind(self) -> str:
        """The film's encoding: PNG, MONOCHROME1 or MONOCHROME2, a third each, whatever the class."""
        return ("PNG", "MONOCHROME1", "MONOCHROME2")[(self.patient // len(CLASSES) + self.film) % 3]


def write_cohort(folder: Path, *, patients: int, films: int, size: int, seed: int) -> Path:
    """Write a cohort and return the path of its cohort.csv (columns `COLUMNS`, paths relative to it).

    Patient p has class p modulo 3 and `films` films. Two thirds are DICOM (half of them MONOCHROME1), a third
    8-bit PNG. The folder appears when it is complete; a complete one is returned at once. The same arguments
    give the same bytes.

    Args:
        folder: where to write; absent, or a cohort written with the same arguments.
        patients: number of patients.
        films: films of each patient.
        size: side of the films in pixels.
        seed: the cohort's seed.

    Raises:
        UserError: the folder holds anything else.
    """
    readme = README.format(classes=", ".join(CLASSES), patients=patients, films=films, size=size, seed=seed)
    if folder.exists():
        note = folder / "README.txt"
        if note.is_file() and note.read_text() == readme:
            return folder / "cohort.csv"
        raise UserError(
            f"{folder.name}: the folder exists and is not the phantom cohort asked for ({patients} patients, "
            f"{films} films, {size} pixels, seed {seed}); name another folder, or delete this one"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "films").mkdir(parents=True)
    try:
        studies = [study(seed, patient, film) for patient in range(patients) for film in range(films)]
        with (temporary / "cohort.csv").open("w", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(COLUMNS)
            table.writerows(_write(temporary, each, size) for each in studies)
        (temporary / "README.txt").write_text(readme)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder / "cohort.csv"


def study(seed: int, patient: int, film: int) -> Study:
    """The header of one film: sex, age and site are the patient's, the view is the film's."""
    rng = stream(seed, patient, 5)
    turn = patient // len(CLASSES)  # each class meets each site, whatever the encoding
    view = "AP" if draw_pose(seed, patient, film).ap else "PA"
    site = SITES[(turn + turn // 3) % len(SITES)]
    return Study(seed, patient, film, site, view, "FM"[rng.integers(2)], int(rng.integers(20, 90)))


def dataset(pixels: Array, study: Study, photometric: str) -> Dataset:
    """A film as a CR (PS3.3 A.2) or DX (PS3.3 A.26) data set, ready for `save_as`.

    The window (C.11.2.1.2, LINEAR) maps the site's black to 0 and its white to 1 exactly, so a reader that
    applies rescale, window and inversion gets the film back within half a step of the stored values.

    Args:
        pixels: (size, size) float32 in [0, 1], bone bright.
        study: what the header says.
        photometric: MONOCHROME1 (stored inverted) or MONOCHROME2.
    """
    site = study.site
    shown = 1 - pixels if photometric == "MONOCHROME1" else pixels
    stored = np.rint(site.black + shown.astype(np.float64) * (site.white - site.black)).astype("<u2")
    low, high = (site.slope * value + site.intercept for value in (site.black, site.white))
    ds = _header(study)
    ds.Rows, ds.Columns = stored.shape
    ds.SamplesPerPixel, ds.PixelRepresentation = 1, 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.PhotometricInterpretation = photometric
    if site.modality == "DX":
        ds.PresentationLUTShape = "INVERSE" if photometric == "MONOCHROME1" else "IDENTITY"
    if site.modality == "DX" or (site.slope, site.intercept) != (1, 0):
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = site.slope, site.intercept, "US"
    ds.WindowCenter, ds.WindowWidth = (low + high + 1) / 2, high - low + 1
    ds.PixelSpacing = ds.ImagerPixelSpacing = [round(400 / stored.shape[0], 6)] * 2
    ds.PixelData = stored.tobytes()
    return ds


def _header(study: Study) -> Dataset:
    site, digital = study.site, study.site.modality == "DX"
    sop = DigitalXRayImageStorageForPresentation if digital else ComputedRadiographyImageStorage
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = sop
    ds.SOPClassUID = sop
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = _uid(study, "film", study.film)
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID = generate_uid(entropy_srcs=["medistill", "phantom"])
    ds.file_meta.ImplementationVersionName = "MEDISTILL"
    ds.StudyInstanceUID = _uid(study, "study", study.film)
    ds.SeriesInstanceUID = _uid(study, "series", study.film)
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.SyntheticData = "YES"
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = f"2000{1 + study.film % 12:02d}01"
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = "120000"
    ds.AccessionNumber = ds.ReferringPhysicianName = ""
    ds.Modality, ds.Manufacturer, ds.InstitutionName = site.modality, site.vendor, f"PHANTOM {site.name}"
    ds.StudyDescription = ds.SeriesDescription = ds.ImageComments = NOTICE
    ds.PatientName, ds.PatientID = f"PHANTOM^{study.patient_id}", study.patient_id
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "", study.sex, f"{study.age:03d}Y"
    ds.BodyPartExamined, ds.ViewPosition = "CHEST", study.view
    ds.StudyID, ds.SeriesNumber, ds.InstanceNumber = str(study.film + 1), 1, 1
    ds.PatientOrientation = ["L", "F"]
    ds.BurnedInAnnotation, ds.LossyImageCompression = "NO", "00"
    if digital:
        ds.PixelIntensityRelationship, ds.PixelIntensityRelationshipSign = "LOG", 1
        ds.PresentationIntentType, ds.ImageLaterality = "FOR PRESENTATION", "U"
    return ds


def _uid(study: Study, *place: str | int) -> UID:
    return generate_uid(entropy_srcs=[str(part) for part in ("phantom", study.seed, study.patient, *place)])


def _write(folder: Path, study: Study, size: int) -> tuple[str | int, ...]:
    """Write one film and return its row of the table."""
    label = study.patient % len(CLASSES)
    pixels = phantom.film(study.seed, study.patient, study.film, label, size)
    suffix = "png" if study.kind == "PNG" else "dcm"
    path = f"films/{study.patient_id}_{study.film}.{suffix}"
    if study.kind == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Comment", NOTICE)
        Image.fromarray(np.rint(pixels * 255).astype(np.uint8)).save(folder / path, pnginfo=text)
    else:
        dataset(pixels, study, study.kind).save_as(folder / path, enforce_file_format=True)
    return path, CLASSES[label], study.patient_id, study.view, study.sex, study.age, study.site.name
