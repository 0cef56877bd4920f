"""The view as DICOM Secondary Capture (PS3.3 A.8.1), for viewers and archives; one gray image a file."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import medistill
from medistill.distill.distilled import Distilled
from medistill.release.pictures import NOTICE, names, row_of

# pydicom is imported where a file is made or read: who loads a release's tensors does without it
if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

FOLDER = "dicom"
UNITS = 1000
"""Modality values of a pixel of 1: a LINEAR window (C.11.2.1.2.1), the only one every viewer knows, has a width of at
least 1 and one step less than it in effect, so [0, 1] itself cannot be shown."""

TOP = 2**16 - 1


@dataclass(frozen=True)
class Rescale:
    """How stored values become modality values (C.11.1): stored * slope + intercept.

    Attributes:
        slope: a DS of at most 16 characters.
        intercept: likewise.
    """

    slope: str
    intercept: str

    @classmethod
    def covering(cls, low: float, high: float) -> "Rescale":
        """The finest of 16 bits that covers low to high; rounded to nine digits, outwards."""
        intercept = _outwards(low, down=True)
        return cls(_outwards((high - float(intercept)) / TOP, down=False), intercept)

    def stored(self, values: NDArray[np.float64]) -> NDArray[np.uint16]:
        """The nearest stored values."""
        return np.rint((values - float(self.intercept)) / float(self.slope)).clip(0, TOP).astype("<u2")


def _outwards(value: float, *, down: bool) -> str:
    """A number as a DS (PS3.5 6.2) of nine digits that is not above it, or not below."""
    text = f"{value:.8e}"
    if (float(text) > value) if down else (float(text) < value):
        last = 10.0 ** (math.floor(math.log10(abs(value))) - 8)
        text = f"{value - last if down else value + last:.8e}"
    return text


def write_dicom(folder: Path, distilled: Distilled, digest: str) -> None:
    """Write CLASS/0003.dcm of each image into a new folder; identifiers come from `digest`, the master's SHA-256.

    Raises ValueError for a set in colour, which has no such view.
    """
    if distilled.images.shape[1] != 1:
        raise ValueError("a set in colour has no gray DICOM view")
    values = distilled.pictures()[:, 0].double().numpy() * UNITS  # (M, H, W)
    rescale = Rescale.covering(min(0.0, values.min()), max(float(UNITS), values.max()))
    for index, name in enumerate(names(distilled, "dcm")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        slide_of(distilled, index, digest, rescale, rescale.stored(values[index])).save_as(
            path, enforce_file_format=True
        )


def read_dicom(folder: Path) -> Tensor:
    """(M, 1, H, W) float32, the pixels of what `write_dicom` wrote, in the order of the master; not clamped."""
    files = sorted(folder.glob("*/*.dcm"), key=lambda path: int(path.stem))
    return torch.stack([read_slide(path) for path in files])


def read_slide(path: Path) -> Tensor:
    """(1, H, W) float32, the pixels of one file."""
    from pydicom import dcmread

    file = dcmread(path)
    values = file.pixel_array.astype(np.float64) * float(file.RescaleSlope) + float(file.RescaleIntercept)
    return torch.from_numpy(values / UNITS).float()[None]


def slide_of(distilled: Distilled, index: int, digest: str, rescale: Rescale, stored: NDArray[np.uint16]) -> "Dataset":
    """The file of one image, of stored values (H, W), as `write_dicom` writes it."""
    file = _header(distilled, index, digest)
    _pixels(file, stored, rescale)
    return file


def _pixels(file: "Dataset", stored: NDArray[np.uint16], rescale: Rescale) -> None:
    """Image Pixel, Modality LUT and VOI LUT modules (C.7.6.3, C.11.1, C.11.2) of stored values (H, W)."""
    file.Rows, file.Columns = stored.shape
    file.SamplesPerPixel, file.PixelRepresentation = 1, 0
    file.PhotometricInterpretation = "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 16, 15
    file.RescaleSlope, file.RescaleIntercept, file.RescaleType = rescale.slope, rescale.intercept, "US"
    # the window maps 0 to black and UNITS to white, exactly
    file.WindowCenter, file.WindowWidth, file.VOILUTFunction = (UNITS + 1) / 2, UNITS + 1, "LINEAR"
    file.PixelData = stored.tobytes()


def _header(distilled: Distilled, index: int, digest: str) -> "Dataset":
    """Everything but the pixels."""
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = SecondaryCaptureImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = _uid(digest, "image", index)
    file.file_meta.ImplementationClassUID = generate_uid(entropy_srcs=["medistill", "release"])
    file.file_meta.ImplementationVersionName = "MEDISTILL"
    file.SpecificCharacterSet = "ISO_IR 192"
    # one subject who never lived, whose one study has one series: a viewer shows the set as one stack
    file.PatientName, file.PatientID = "SYNTHETIC^DISTILLED SET", f"MEDISTILL-{digest[:16]}"
    file.PatientBirthDate = file.PatientSex = ""
    file.PatientIdentityRemoved = "YES"
    file.DeidentificationMethod = "Synthetic: written without attributes of any patient"
    file.StudyInstanceUID, file.SeriesInstanceUID = _uid(digest, "study"), _uid(digest, "series")
    file.StudyDate = file.StudyTime = file.ReferringPhysicianName = file.AccessionNumber = ""
    file.StudyDescription = file.SeriesDescription = "Distilled synthetic images, not for diagnosis"
    file.StudyID = "1"
    file.Modality, file.SeriesNumber, file.InstanceNumber = "OT", 1, index + 1
    file.Laterality = file.PatientOrientation = ""
    file.ConversionType, file.SyntheticData = "SYN", "YES"
    file.ImageType = ["DERIVED", "SECONDARY"]
    file.BurnedInAnnotation, file.LossyImageCompression = "NO", "00"
    file.DerivationDescription = NOTICE
    row = row_of(distilled, index, "") | {"probabilities": [_short(p) for p in distilled.labels[index].tolist()]}
    file.ImageComments = json.dumps(
        {key: value for key, value in row.items() if key != "file_name"}, ensure_ascii=False
    )
    file.ContributingEquipmentSequence = [_equipment()]
    return file


def _short(probability: float) -> float:
    """A float32 with no more digits than tell it from its neighbours, for a comment has 10,240 characters."""
    return float(str(np.float32(probability)))


def _equipment() -> "Dataset":
    """Item of the Contributing Equipment Sequence (C.12.1): what synthesised the image."""
    from pydicom import Dataset

    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "109100", "DCM"
    purpose.CodeMeaning = "Synthesizing Equipment"
    equipment = Dataset()
    equipment.PurposeOfReferenceCodeSequence = [purpose]
    equipment.Manufacturer = equipment.ManufacturerModelName = "medistill"
    equipment.SoftwareVersions = medistill.__version__
    equipment.ContributionDescription = "Dataset distillation"
    return equipment


def _uid(digest: str, *place: str | int) -> "UID":
    """The same identifier for the same image of the same set, and for no other."""
    from pydicom.uid import generate_uid

    return generate_uid(entropy_srcs=["medistill", digest, *(str(part) for part in place)])
