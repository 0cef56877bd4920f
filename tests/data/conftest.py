"""Films written by the tests themselves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

WriteFilm = Callable[..., Path]


@pytest.fixture
def write_film(tmp_path: Path) -> WriteFilm:
    """A function (name, stored, **elements) -> path of a native DICOM file of `stored` (rows, cols)."""

    def write(name: str, stored: np.ndarray, **elements: Any) -> Path:
        header = Dataset()
        header.Modality = "DX"
        header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
        header.SOPInstanceUID = "1.2.3"
        header.PhotometricInterpretation = "MONOCHROME2"
        header.SamplesPerPixel = 1
        header.Rows, header.Columns = stored.shape
        header.BitsAllocated = header.BitsStored = 8 * stored.itemsize
        header.HighBit = header.BitsStored - 1
        header.PixelRepresentation = int(stored.dtype.kind == "i")
        header.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
        for keyword, value in elements.items():
            setattr(header, keyword, value)
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = tmp_path / name
        header.save_as(path, enforce_file_format=True)
        return path

    return write
