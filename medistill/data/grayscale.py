"""From stored values to what a viewer shows, black 0 to white 1: DICOM's grayscale pipeline (PS3.3 C.11)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from medistill.foreign import shown

Float = NDArray[np.float64]
LARGEST = 1e30  # of a rescale or a window: sums and products of larger ones leave the range of floats


@dataclass(frozen=True)
class Window:
    """The step that mapped modality values to [0, 1].

    Attributes:
        kind: LINEAR, LINEAR_EXACT or SIGMOID (PS3.3 C.11.2.1.2), VOI LUT (C.11.2.1.1), or percentile where
            the film names none.
        centre: the window's centre in modality units; None for a VOI LUT.
        width: the window's width in modality units; None for a VOI LUT.
    """

    kind: str
    centre: float | None
    width: float | None


def modality_values(stored: NDArray[Any], header: Dataset) -> Float:
    """Stored values (rows, cols) to modality values: Modality LUT, else rescale, else unchanged (C.11.1)."""
    if header.get("ModalityLUTSequence"):
        return look_up(stored.astype(np.float64), header.ModalityLUTSequence[0])[0]
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    if slope is None or intercept is None:
        return stored.astype(np.float64)
    slope, intercept = _decimal(slope, "Rescale Slope"), _decimal(intercept, "Rescale Intercept")
    if not abs(slope) <= LARGEST or not abs(intercept) <= LARGEST:
        raise ValueError(f"Rescale Slope is {slope:g} and Rescale Intercept {intercept:g}, which no film has")
    return stored.astype(np.float64) * slope + intercept


def shown_values(values: Float, header: Dataset, valid: NDArray[np.bool_]) -> tuple[Float, Window]:
    """Modality values (rows, cols) to [0, 1]: the first VOI LUT or window (C.11.2), else percentiles.

    Args:
        values: the modality values.
        header: the film's header.
        valid: (rows, cols), False where a pixel is padding; padding has no part in the percentile window.
    """
    if header.get("VOILUTSequence"):
        entries, bits = look_up(values, header.VOILUTSequence[0])
        if not 1 <= bits <= 16 or entries.max() > 2**bits - 1:
            raise ValueError(f"a VOI LUT declares {bits} bits and holds {entries.max():g}, more than they can tell")
        return entries / (2**bits - 1), Window("VOI LUT", None, None)
    window = declared_window(header)
    if window is None:
        return percentile_window(values, valid)
    return apply_window(values, window), window


def look_up(values: Float, item: Dataset) -> tuple[Float, int]:
    """Values (rows, cols) through the LUT of a sequence item, and the bits that it declares of an entry.

    The descriptor (0028,3002) holds the number of entries (0 stands for 65,536), the first value mapped and
    the bits of an entry; values outside take the nearest entry (C.11.1.1, C.11.2.1.1).
    """
    descriptor = [int(number) for number in item.LUTDescriptor]
    if len(descriptor) != 3 or descriptor[0] < 0:
        raise ValueError("a LUT Descriptor is not three numbers, of which the first counts its entries")
    count, first, bits = descriptor[0] or 2**16, descriptor[1], descriptor[2]
    raw = item.LUTData
    if isinstance(raw, bytes):
        # 8-bit entries stand one a byte in some files and one a word in others: the length tells
        entries = np.frombuffer(raw, np.uint8 if len(raw) < 2 * count else np.dtype("<u2"), count)
        if item.original_encoding[1] is False and entries.itemsize == 2:
            entries = entries.byteswap()
    else:
        entries = np.atleast_1d(np.asarray(raw, np.uint16))[:count]
    if len(entries) < count:
        raise ValueError(f"a LUT declares {count} entries and holds {len(entries)}")
    index = np.clip(np.rint(values) - first, 0, count - 1).astype(np.intp)
    return entries[index].astype(np.float64), bits


def declared_window(header: Dataset) -> Window | None:
    """The first window of a header, or None where there is none, or one the standard forbids by its numbers."""
    centre, width = (_first(header.get(f"Window{part}"), f"Window {part}") for part in ("Center", "Width"))
    kind = str(header.get("VOILUTFunction") or "LINEAR").strip().upper()
    if centre is None or width is None or not abs(centre) <= LARGEST or not 0 < width <= LARGEST:
        return None
    if kind == "LINEAR" and width < 1:
        return None
    return Window(kind, centre, width)


def _first(value: Any, name: str) -> float | None:
    """The first number of a decimal string element, which may be absent, empty, one or several."""
    if value is None or value == "":
        return None
    if isinstance(value, str) or not hasattr(value, "__len__"):
        return _decimal(value, name)
    return _decimal(value[0], name) if len(value) else None


def _decimal(value: Any, name: str) -> float:
    """The number of a decimal string element."""
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is {shown(value, 20)!r}, which is no number") from error


def apply_window(values: Float, window: Window) -> Float:
    """Values (rows, cols) to [0, 1] by a window's function (C.11.2.1.2.1, C.11.2.1.3)."""
    centre, width = window.centre, window.width
    assert centre is not None and width is not None
    if window.kind == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - centre) / width))
    if window.kind == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if window.kind != "LINEAR":
        raise ValueError(f"VOI LUT Function {shown(window.kind)} is not one of LINEAR, LINEAR_EXACT, SIGMOID")
    if width == 1:
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def percentile_window(
    values: Float, valid: NDArray[np.bool_], percentiles: tuple[float, float] = (0.5, 99.5)
) -> tuple[Float, Window]:
    """Values (rows, cols) to [0, 1] between two percentiles of the film, or its extremes where they coincide.

    Raises:
        ValueError: every pixel has one value, so there is no image.
    """
    sample = values[valid]
    low, high = np.percentile(sample, percentiles) if sample.size else (0.0, 0.0)
    if low == high and sample.size:
        low, high = sample.min(), sample.max()
    if low == high:
        raise ValueError("every pixel has the same value: the film is blank")
    window = Window("percentile", float(low + high) / 2, float(high - low))
    return np.clip((values - low) / (high - low), 0, 1), window
