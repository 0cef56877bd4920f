"""The view as DICOM: what the standard asks of a synthetic Secondary Capture, read by others and by our own door."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom import dcmread
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import SecondaryCaptureImageStorage

from medistill.data.film import read_film
from medistill.distill.distilled import Distilled
from medistill.release.dicom import Rescale, read_dicom, write_dicom

DIGEST = "5e" * 32
CLASSES = ('b/é\\"', "a b\u2028", "..")


@pytest.fixture
def wide(toy: dict[str, Any]) -> Distilled:
    """A set whose pixels reach from -2.2 to 4.1."""
    images = toy["distilled"].images.clone()
    images[4, 0, 3, 5], images[2, 0, 15, 0] = (4.1 - 0.5) / 0.25, (-2.2 - 0.5) / 0.25
    labels = toy["distilled"].labels * 0.4 + 0.2
    return replace(toy["distilled"], images=images, labels=labels, classes=CLASSES)


@pytest.fixture
def folder(tmp_path: Path, wide: Distilled) -> Path:
    write_dicom(tmp_path / "dicom", wide, DIGEST)
    return tmp_path / "dicom"


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.dcm"), key=lambda path: path.stem)


def test_the_whole_range_survives_in_sixteen_bits(folder: Path, wide: Distilled) -> None:
    wanted = wide.pictures()
    assert [path.parent.name for path in files_of(folder)] == ["b_é__", "a b_", "class_"] * 2
    found = read_dicom(folder)
    assert found.dtype == torch.float32 and tuple(found.shape) == (6, 1, 16, 16)
    assert (found - wanted).abs().max() <= 0.5 * (4.1 + 2.2) / 65535 * 1.001 + 1e-6
    assert float(found.max()) == pytest.approx(4.1, abs=1e-4) and float(found.min()) == pytest.approx(-2.2, abs=1e-4)


def test_viewers_show_the_pixels_from_0_to_1(folder: Path, wide: Distilled) -> None:
    """pydicom's own pipeline, modality LUT then window, which takes a grey value of 1,000 for white."""
    wanted = wide.pictures().clamp(0, 1)
    for index, path in enumerate(files_of(folder)):
        file = dcmread(path)
        values = apply_modality_lut(file.pixel_array, file)
        assert np.abs(values / 1000 - wide.pictures()[index, 0].numpy()).max() < 1e-4
        shown = apply_voi_lut(values, file)
        low, high = shown.min(), shown.max()
        black, white = apply_voi_lut(np.array([-1e6, 1e6]), file)
        assert black <= low and high <= white
        assert np.abs((shown - black) / (white - black) - wanted[index, 0].numpy()).max() < 1e-4


def test_our_own_door_reads_it(folder: Path, wide: Distilled) -> None:
    wanted = wide.pictures().clamp(0, 1)
    for index, path in enumerate(files_of(folder)):
        film = read_film(path, modalities=["OT"])
        assert np.abs(film.pixels - wanted[index, 0].numpy()).max() < 1e-4
        assert not film.choices["inverted"] and film.choices["window"] == "LINEAR"


def test_the_header_is_that_of_a_synthetic_secondary_capture(folder: Path) -> None:
    file = dcmread(files_of(folder)[1])
    for keyword, value in {
        "SOPClassUID": SecondaryCaptureImageStorage,
        "Modality": "OT",
        "ConversionType": "SYN",
        "ImageType": ["DERIVED", "SECONDARY"],
        "SyntheticData": "YES",
        "PatientIdentityRemoved": "YES",
        "BurnedInAnnotation": "NO",
        "LossyImageCompression": "00",
        "PhotometricInterpretation": "MONOCHROME2",
        "SamplesPerPixel": 1,
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "VOILUTFunction": "LINEAR",
        "WindowCenter": 500.5,
        "WindowWidth": 1001,
        "InstanceNumber": 2,
        "PatientID": f"MEDISTILL-{DIGEST[:16]}",
        "PatientName": "SYNTHETIC^DISTILLED SET",
        "StudyDate": "",
        "StudyTime": "",
        "PatientBirthDate": "",
        "PatientSex": "",
    }.items():
        assert file[keyword].value == value or (value == "" and file[keyword].is_empty), keyword
    assert file.DeidentificationMethod
    (equipment,) = file.ContributingEquipmentSequence
    (purpose,) = equipment.PurposeOfReferenceCodeSequence
    code = (purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning)
    assert code == ("109100", "DCM", "Synthesizing Equipment") and equipment.Manufacturer == "medistill"
    assert "SourceImageSequence" not in file
    assert not any(element.value for element in file.iterall() if element.VR in ("DA", "TM", "DT"))


def test_class_and_soft_label_stand_in_the_comment(folder: Path) -> None:
    for index, path in enumerate(files_of(folder)):
        said = json.loads(dcmread(path).ImageComments)
        soft = [0.2, 0.2, 0.2]
        soft[index % 3] = 0.6
        assert said == {
            "index": index,
            "label": index % 3,
            "class": CLASSES[index % 3],
            "probabilities": pytest.approx(soft),
            "learning_rate": 0.02,
        }


def test_a_label_of_many_classes_is_told_to_the_last_bit_and_fits(tmp_path: Path, wide: Distilled) -> None:
    labels = torch.rand(6, 500, generator=torch.Generator().manual_seed(1)).softmax(1)
    made = replace(wide, labels=labels, classes=tuple(f"class {k}" for k in range(500)))
    write_dicom(tmp_path / "many", made, DIGEST)
    comment = dcmread(next((tmp_path / "many").glob("*/0003.dcm"))).ImageComments
    assert len(comment) <= 10240  # of LT, PS3.5 6.2
    assert torch.equal(torch.tensor(json.loads(comment)["probabilities"]), labels[3])


def test_identifiers_come_from_the_set_alone(tmp_path: Path, folder: Path, wide: Distilled) -> None:
    write_dicom(tmp_path / "again", wide, DIGEST)
    write_dicom(tmp_path / "other", wide, "f0" * 32)
    bytes_of = [[path.read_bytes() for path in files_of(place)] for place in (folder, tmp_path / "again")]
    assert bytes_of[0] == bytes_of[1]
    ours, theirs = ([dcmread(path) for path in files_of(place)] for place in (folder, tmp_path / "other"))
    assert len({file.SOPInstanceUID for file in (*ours, *theirs)}) == 12
    assert len({file.StudyInstanceUID for file in ours}) == len({file.SeriesInstanceUID for file in ours}) == 1
    assert ours[0].StudyInstanceUID != theirs[0].StudyInstanceUID
    for file in ours:
        assert file.SOPInstanceUID.is_valid and file.file_meta.MediaStorageSOPInstanceUID == file.SOPInstanceUID


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (0, 1000),
        (-2200.0, 4100.0),
        (-1e-12, 1000),
        (-0.3333333333333, 1000.7777777777),
        (-98765.43219876, 123456.789012345),
    ],
)
def test_rescaling_covers_the_range_in_decimal_strings(low: float, high: float) -> None:
    rescale = Rescale.covering(low, high)
    slope, intercept = float(rescale.slope), float(rescale.intercept)
    assert len(rescale.slope) <= 16 and len(rescale.intercept) <= 16  # of DS, PS3.5 6.2
    assert intercept <= low and intercept + 65535 * slope >= high
    assert slope == pytest.approx((high - low) / 65535, rel=1e-6)
    values = np.linspace(low, high, 1001)
    assert np.abs(rescale.stored(values) * slope + intercept - values).max() <= slope * 0.5 * (1 + 1e-6)


def test_a_set_in_colour_has_none(tmp_path: Path, wide: Distilled) -> None:
    colour = replace(wide, images=wide.images.repeat(1, 3, 1, 1), mean=(0.5,) * 3, std=(0.25,) * 3)
    with pytest.raises(ValueError, match="in colour"):
        write_dicom(tmp_path / "x", colour, DIGEST)
    assert not (tmp_path / "x").exists()


# dciodvfy of dicom3tools up to 20240118 has a dictionary without Synthetic Data (0008,001C), which PS3.6 has.
UNKNOWN = re.compile(
    r"Error - Attribute with an even group number is not a recognized standard attribute.*0x0008,0x001c"
)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy of dicom3tools is not installed")
def test_dciodvfy_finds_no_error(folder: Path) -> None:
    for path in files_of(folder):
        done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True)
        lines = (done.stdout + done.stderr).splitlines()
        assert "SCImage" in lines
        errors = [line for line in lines if line.startswith("Error")]
        assert [line for line in errors if not UNKNOWN.match(line)] == []


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy of dicom3tools is not installed")
def test_without_the_attribute_it_does_not_know_dciodvfy_finds_no_error_at_all(folder: Path, tmp_path: Path) -> None:
    file = dcmread(files_of(folder)[0])
    del file.SyntheticData
    file.save_as(tmp_path / "x.dcm")
    done = subprocess.run(["dciodvfy", str(tmp_path / "x.dcm")], capture_output=True, text=True)
    assert "Error" not in done.stdout + done.stderr and "SCImage" in done.stdout + done.stderr
