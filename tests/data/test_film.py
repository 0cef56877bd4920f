"""The door for films: the rules of DICOM by hand calculation, real and broken files, pictures."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, Sequence, dcmread, dcmwrite
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRBigEndian, RLELossless

from medistill.data.film import Film, FilmError, read_film
from medistill.seeds import generator

ANY = ("CR", "DX", "MR", "CT", "OT", "US", "RF", "XA", "RTDOSE", "")
RAMP = np.arange(256, dtype=np.uint8).reshape(8, 32)


def noise(rows: int, cols: int, top: int = 256, dtype: type = np.uint8) -> np.ndarray:
    import torch

    return torch.randint(0, top, (rows, cols), generator=generator(0, "film", rows, cols)).numpy().astype(dtype)


def lut(descriptor: list[int], data: list[int], form: str = "US") -> Sequence:
    item = Dataset()
    item.LUTDescriptor = descriptor
    values = {
        "US": data,
        "words": np.array(data, "<u2").tobytes(),
        "bytes": bytes(data) if max(data) < 256 else b"",
    }
    item.add_new("LUTData", "US" if form == "US" else "OW", values[form])
    return Sequence([item])


def pixels(path: Path) -> np.ndarray:
    return read_film(path).pixels


def close(found: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found, wanted, atol=2e-6)


# windows: PS3.3 C.11.2.1.2.1 and C.11.2.1.3, by hand


def test_linear_window(write_film):
    film = read_film(write_film("a.dcm", RAMP, WindowCenter=100, WindowWidth=51))
    close(film.pixels, np.clip((RAMP - 99.5) / 50 + 0.5, 0, 1))
    assert (film.choices["window"], film.choices["window_centre"], film.choices["window_width"]) == (
        "LINEAR",
        100,
        51,
    )
    assert film.pixels.dtype == np.float32 and film.pixels.shape == (8, 32)


def test_linear_window_of_width_one_is_a_threshold(write_film):
    close(pixels(write_film("a.dcm", RAMP, WindowCenter=100, WindowWidth=1)), RAMP >= 100)


def test_linear_exact_window(write_film):
    path = write_film("a.dcm", RAMP, WindowCenter=100, WindowWidth=50, VOILUTFunction="LINEAR_EXACT")
    close(pixels(path), np.clip((RAMP - 100.0) / 50 + 0.5, 0, 1))


def test_sigmoid_window(write_film):
    path = write_film("a.dcm", RAMP, WindowCenter=100, WindowWidth=50, VOILUTFunction="SIGMOID")
    close(pixels(path), 1 / (1 + np.exp(-4 * (RAMP - 100.0) / 50)))


def test_unknown_window_function_is_refused(write_film):
    path = write_film("a.dcm", RAMP, WindowCenter=100, WindowWidth=50, VOILUTFunction="CUBIC")
    with pytest.raises(FilmError, match=r"a\.dcm: VOI LUT Function CUBIC"):
        read_film(path)


def test_first_of_several_windows(write_film):
    path = write_film("a.dcm", RAMP, WindowCenter=[100, 10], WindowWidth=[51, 20])
    close(pixels(path), np.clip((RAMP - 99.5) / 50 + 0.5, 0, 1))


def test_percentile_window_when_none_or_impossible(write_film):
    stored = noise(40, 50, 4096, np.uint16)
    low, high = np.percentile(stored, (0.5, 99.5))
    wanted = np.clip((stored - low) / (high - low), 0, 1)
    plain = read_film(write_film("a.dcm", stored))
    close(plain.pixels, wanted)
    assert plain.choices["window"] == "percentile"
    assert plain.choices["window_width"] == pytest.approx(high - low)
    close(pixels(write_film("b.dcm", stored, WindowCenter=100, WindowWidth=0)), wanted)


def test_rescale_comes_before_the_window(write_film):
    path = write_film("a.dcm", RAMP, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=50, WindowWidth=101)
    close(pixels(path), np.clip((2.0 * RAMP - 100 - 49.5) / 100 + 0.5, 0, 1))


@pytest.mark.parametrize("form", ["US", "words"])
def test_modality_lut_comes_before_the_window(write_film, form):
    table = [1000, 900, 500, 400]
    sequence = lut([4, 10, 16], table, form)
    path = write_film("a.dcm", RAMP, ModalityLUTSequence=sequence, WindowCenter=600, WindowWidth=801)
    mapped = np.array(table)[np.clip(RAMP.astype(int) - 10, 0, 3)]
    close(pixels(path), np.clip((mapped - 599.5) / 800 + 0.5, 0, 1))


@pytest.mark.parametrize(
    ("bits", "table", "form"),
    [(10, [0, 100, 700, 1000], "US"), (10, [0, 100, 700, 1000], "words"), (8, [0, 9, 200, 250], "bytes")],
)
def test_voi_lut_is_scaled_by_its_declared_depth(write_film, bits, table, form):
    path = write_film("a.dcm", RAMP, VOILUTSequence=lut([4, 20, bits], table, form), WindowCenter=1, WindowWidth=2)
    film = read_film(path)
    close(film.pixels, np.array(table)[np.clip(RAMP.astype(int) - 20, 0, 3)] / (2**bits - 1))
    assert film.choices["window"] == "VOI LUT"


def test_big_endian_film_with_a_lut_in_words(write_film, tmp_path):
    stored = RAMP.astype(np.uint16) * 200
    table = [0, 100, 700, 1000]
    header = dcmread(write_film("a.dcm", stored))
    header.PixelData = stored.astype(">u2").tobytes()
    header.VOILUTSequence = lut([4, 400, 10], [0])
    header.VOILUTSequence[0]["LUTData"].VR = "OW"
    header.VOILUTSequence[0].LUTData = np.array(table, ">u2").tobytes()
    header.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dcmwrite(tmp_path / "b.dcm", header, implicit_vr=False, little_endian=False, enforce_file_format=True)
    film = read_film(tmp_path / "b.dcm")
    assert film.choices["syntax"] == "Explicit VR Big Endian"
    close(film.pixels, np.array(table)[np.clip(stored.astype(int) - 400, 0, 3)] / 1023)


def test_lut_that_is_shorter_than_declared_is_refused(write_film):
    path = write_film("a.dcm", RAMP, VOILUTSequence=lut([8, 0, 10], [1, 2, 3]))
    with pytest.raises(FilmError, match="declares 8 entries and holds 3"):
        read_film(path)


def test_signed_values(write_film):
    stored = (RAMP.astype(np.int16) - 128) * 8
    path = write_film("a.dcm", stored, BitsStored=12, HighBit=11, WindowCenter=0, WindowWidth=1001)
    close(pixels(path), np.clip((stored + 0.5) / 1000 + 0.5, 0, 1))


# inversion


def test_monochrome1_of_the_inverted_pixels_is_the_same_film(write_film):
    stored = noise(30, 40, 4096, np.uint16)
    second = pixels(write_film("m2.dcm", stored, BitsStored=12, HighBit=11))
    first = read_film(
        write_film("m1.dcm", 4095 - stored, BitsStored=12, HighBit=11, PhotometricInterpretation="MONOCHROME1")
    )
    close(first.pixels, second)
    assert first.choices["inverted"]


def test_window_and_monochrome1_mirror(write_film):
    second = pixels(write_film("m2.dcm", RAMP, WindowCenter=100, WindowWidth=51))
    first = write_film("m1.dcm", 255 - RAMP, WindowCenter=156, WindowWidth=51, PhotometricInterpretation="MONOCHROME1")
    close(pixels(first), second)


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME1", None, True),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME2", "IDENTITY", False),
    ],
)
def test_inverted_once_never_twice(write_film, photometric, shape, inverted):
    elements = {"PresentationLUTShape": shape} if shape else {}
    path = write_film(
        "a.dcm", RAMP, PhotometricInterpretation=photometric, WindowCenter=128, WindowWidth=256, **elements
    )
    film = read_film(path)
    close(film.pixels, (255 - RAMP if inverted else RAMP) / 255)
    assert film.choices["inverted"] is inverted


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_has_no_part_in_the_window(write_film, photometric):
    stored = noise(40, 40, 1000, np.uint16)
    stored[:, :5], stored[:, 5:10] = 60000, 61000
    elements = {"PixelPaddingValue": 60000, "PixelPaddingRangeLimit": 61000}
    film = read_film(write_film("a.dcm", stored, PhotometricInterpretation=photometric, **elements))
    low, high = np.percentile(stored[:, 10:], (0.5, 99.5))
    wanted = np.clip((stored[:, 10:] - low) / (high - low), 0, 1)
    close(film.pixels[:, 10:], 1 - wanted if photometric == "MONOCHROME1" else wanted)
    assert not film.pixels[:, :10].any()


# what is accepted


@pytest.mark.parametrize(
    ("elements", "text"),
    [
        ({"Modality": "SC"}, "Modality is SC, accepted are CR, DX"),
        ({"Modality": ""}, "Modality is absent"),
        ({"ViewPosition": "LL"}, "View Position is LL, accepted are PA, AP, absent"),
        ({"NumberOfFrames": 2}, "holds 2 frames"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "Photometric Interpretation is RGB"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "Photometric Interpretation is PALETTE COLOR"),
        ({"Rows": 65535, "Columns": 65535}, "65535 x 65535 pixels declared"),
        ({"Rows": 0}, "0 x 32 pixels declared"),
        ({"Rows": 4000, "Columns": 4000}, "16,000,000 bytes of pixels declared, 256 found"),
        ({"PixelData": b""}, "without Pixel Data"),
    ],
)
def test_refusals(write_film, elements, text):
    with pytest.raises(FilmError, match=r"^a\.dcm: ") as caught:
        read_film(write_film("a.dcm", RAMP, **elements))
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_modalities_and_views_on_request(write_film):
    path = write_film("a.dcm", RAMP, Modality="SC", ViewPosition="LL")
    assert read_film(path, modalities=("SC",), views=("LL",)).choices["view"] == "LL"


def test_view_code_stands_in_for_view_position(write_film):
    code = Dataset()
    code.CodeMeaning = "postero-anterior"
    assert read_film(write_film("a.dcm", RAMP, ViewCodeSequence=Sequence([code]))).choices["view"] == "PA"
    code.CodeMeaning = "left lateral"
    with pytest.raises(FilmError, match="View Position is LEFT LATERAL"):
        read_film(write_film("b.dcm", RAMP, ViewCodeSequence=Sequence([code])))


def test_choices_tell_what_was_found(write_film):
    path = write_film("a.dcm", RAMP, ViewPosition="PA", ImagerPixelSpacing=[0.2, 0.3], PixelSpacing=[0, 0])
    choices = read_film(path).choices
    assert choices["pixel_spacing"] == [0.2, 0.3]
    assert (choices["modality"], choices["view"], choices["rows"], choices["cols"]) == ("DX", "PA", 8, 32)
    assert choices["syntax"] == "Explicit VR Little Endian"


def test_blank_film_is_refused(write_film):
    with pytest.raises(FilmError, match="the film is blank"):
        read_film(write_film("a.dcm", np.full((8, 8), 7, np.uint8)))


def test_orientation_is_kept(write_film):
    stored = np.zeros((20, 50), np.uint8)
    stored[2:6, 40:48] = 255
    assert np.array_equal(pixels(write_film("a.dcm", stored, WindowCenter=128, WindowWidth=256)), stored / 255)


def test_missing_decoder_names_the_extra(write_film, monkeypatch):
    class Nothing:
        is_available = False

    monkeypatch.setattr("medistill.data.film.get_decoder", lambda syntax: Nothing())
    with pytest.raises(FilmError, match=r"no decoder for Explicit VR Little Endian .*pip install 'medistill\[dicom\]'"):
        read_film(write_film("a.dcm", RAMP))


def test_explicit_file_without_preamble_or_meta(write_film, tmp_path):
    whole = write_film("a.dcm", RAMP)
    header = dcmread(whole)
    del header.file_meta
    dcmwrite(tmp_path / "b", header, implicit_vr=False, little_endian=True)
    bare = read_film(tmp_path / "b")
    assert bare.digest == read_film(whole).digest
    assert bare.choices["syntax"] == "Explicit VR Little Endian"


def test_transfer_syntax_of_a_video_is_refused(write_film):
    path = write_film("a.dcm", RAMP)
    header = dcmread(path)
    header.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.102")
    header.PixelData = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"
    header["PixelData"].is_undefined_length = True
    header.save_as(path)
    with pytest.raises(FilmError, match="is no still image"):
        read_film(path)


# pictures


def picture(path: Path, values: np.ndarray, form: str = "PNG", mode: str | None = None) -> Path:
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(path, form)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_and_dicom_of_one_film_agree(write_film, tmp_path, dtype):
    stored = noise(60, 45, 4096 if dtype == np.uint16 else 256, dtype)
    dicom, png = read_film(write_film("a.dcm", stored)), read_film(picture(tmp_path / "a.png", stored))
    assert np.array_equal(dicom.pixels, png.pixels)
    assert dicom.digest == png.digest


def test_digest_tells_films_apart():
    square = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    assert Film(square, {}).digest == Film(square.copy(), {"view": "PA"}).digest
    assert Film(square, {}).digest != Film(square.T.copy(), {}).digest
    assert Film(square, {}).digest != Film(square.reshape(2, 8), {}).digest


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA"])
def test_gray_in_a_colour_mode_is_gray(tmp_path, mode):
    gray = read_film(picture(tmp_path / "gray.png", RAMP))
    assert np.array_equal(read_film(picture(tmp_path / "other.png", RAMP, mode=mode)).pixels, gray.pixels)


def test_format_is_known_by_content(tmp_path):
    gray = noise(64, 64)
    for form in ("JPEG", "WEBP", "PNG"):
        assert read_film(picture(tmp_path / f"{form}.dcm", gray, form)).choices["format"] == form


def test_coloured_and_transparent_pictures_are_refused(tmp_path):
    colour = np.stack([RAMP, RAMP, 255 - RAMP], 2)
    with pytest.raises(FilmError, match=r"c\.png: 96\.\d+% of the pixels are coloured"):
        read_film(picture(tmp_path / "c.png", colour))
    clear = np.stack([RAMP, RAMP, RAMP, np.full_like(RAMP, 100)], 2)
    with pytest.raises(FilmError, match="partly transparent"):
        read_film(picture(tmp_path / "t.png", clear))


def test_pictures_that_lie_about_themselves(tmp_path):
    whole = io.BytesIO()
    Image.fromarray(noise(100, 100)).save(whole, "PNG")
    (tmp_path / "cut.png").write_bytes(whole.getvalue()[:3000])
    body = bytearray(whole.getvalue())
    body[16:24] = (60000).to_bytes(4, "big") * 2
    body[29:33] = zlib.crc32(bytes(body[12:29])).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(body)
    Image.fromarray(RAMP).save(tmp_path / "film.png", save_all=True, append_images=[Image.fromarray(255 - RAMP)])
    for name, text in [
        ("cut.png", "cannot be read"),
        ("bomb.png", "bomb.png"),
        ("film.png", "holds 2 frames"),
    ]:
        with pytest.raises(FilmError, match=text):
            read_film(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "the file is empty"),
        (b"path,label\n", "neither DICOM, PNG, JPEG nor WebP"),
        (b"\x08\x00", "neither DICOM"),
        (b"\x08\x00\x05\x00CS\xff\xff" + b"\xff" * 200, "a.bin: "),
        (b"\0" * 128 + b"DICM", "a.bin: "),
        (b"\0" * 128 + b"DICM" + b"\xff" * 500, "a.bin: "),
        (b"\xff\xd8\xff" + b"\0" * 300, "cannot be read"),
        (b"RIFF\xff\xff\xff\xffWEBPVP8 ", "cannot be read"),
    ],
)
def test_no_bytes_raise_anything_but_a_sentence(tmp_path, content, text):
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    with pytest.raises(FilmError, match=text) as caught:
        read_film(path)
    assert "\n" not in str(caught.value)


NO_NUMBERS = ["nan", "inf", "-1e308", "1e400"]


@pytest.mark.parametrize("number", NO_NUMBERS)
def test_a_window_of_numbers_that_no_film_has_is_none(write_film, number):
    """Python reads them as floats, and what is shown would not be finite."""
    plain = read_film(write_film("a.dcm", RAMP))
    for centre, width in ((number, "100"), ("100", number)):
        path = write_film("b.dcm", RAMP)
        insert_decimals(path, WindowCenter=centre, WindowWidth=width)
        film = read_film(path)
        assert film.choices["window"] == "percentile" and film.digest == plain.digest


@pytest.mark.parametrize("number", NO_NUMBERS)
def test_a_rescale_of_numbers_that_no_film_has_is_refused(write_film, number):
    path = write_film("a.dcm", RAMP)
    insert_decimals(path, RescaleSlope=number, RescaleIntercept="0")
    with pytest.raises(FilmError, match=r"a\.dcm: Rescale Slope is (nan|inf|-1e\+308) and Rescale Intercept 0, which"):
        read_film(path)


@pytest.mark.parametrize("number", ["nan", "inf", "0"])
def test_a_spacing_that_no_film_has_is_none(write_film, number):
    path = write_film("a.dcm", RAMP)
    insert_decimals(path, PixelSpacing=f"{number}\\0.2")
    assert read_film(path).choices["pixel_spacing"] is None


def insert_decimals(path: Path, **texts: str) -> None:
    """Put decimal strings that pydicom would not write before the pixels of an explicit little endian film."""
    body = path.read_bytes()
    place = body.index(b"\xe0\x7f\x10\x00")
    for keyword, text in texts.items():
        tag, value = Tag(keyword), text.encode() + b" " * (len(text) % 2)
        element = struct.pack("<HH2sH", tag.group, tag.element, b"DS", len(value)) + value
        body = body[:place] + element + body[place:]
    path.write_bytes(body)


def test_a_lut_with_more_than_its_depth_is_refused(write_film):
    path = write_film("a.dcm", RAMP, VOILUTSequence=lut([4, 20, 8], [0, 100, 700, 1000]))
    with pytest.raises(FilmError, match="declares 8 bits and holds 1000, more than they can tell"):
        read_film(path)
    with pytest.raises(FilmError, match="declares 0 bits"):
        read_film(write_film("b.dcm", RAMP, VOILUTSequence=lut([4, 20, 0], [0, 1, 2, 3])))


@pytest.mark.parametrize(("allocated", "stored"), [(16, 17), (8, 0), (32, 16), (1, 1)])
def test_depths_that_abort_decoders_are_refused(write_film, allocated, stored):
    path = write_film("a.dcm", RAMP, BitsAllocated=allocated, BitsStored=stored)
    with pytest.raises(FilmError, match=f"{stored} bits stored in {allocated} allocated"):
        read_film(path)


def test_a_decoder_that_panics_is_a_sentence(write_film):
    """The decoder of RLE is in Rust: at planes longer than the image it raises what is no Exception."""
    pytest.importorskip("rle")
    path = write_film("a.dcm", noise(17, 50, 4096, np.uint16))
    header = dcmread(path)
    plane = b"\x81a" * 50  # fifty times 128 bytes
    offsets = np.array([2, 64, 64 + len(plane)] + [0] * 13, "<u4").tobytes()
    header.PixelData = encapsulate([offsets + plane * 2])
    header["PixelData"].is_undefined_length = True
    header.file_meta.TransferSyntaxUID = RLELossless
    header.save_as(path)
    with pytest.raises(FilmError, match=r"a\.dcm: RLE Lossless pixels cannot be decoded"):
        read_film(path)


@pytest.mark.parametrize(
    ("elements", "text"),
    [
        ({"Modality": "\x1b[2J"}, "Modality is ?[2J, accepted"),
        ({"Modality": "A\nB"}, "Modality is A B, accepted"),
        ({"PhotometricInterpretation": "X" * 5000}, "X..., a film is MONOCHROME1"),
        ({"Rows": None}, "Rows is absent or no whole number"),
    ],
)
def test_a_header_cannot_write_on_the_terminal(write_film, elements, text):
    path = write_film("a.dcm", RAMP)
    header = dcmread(path)
    for keyword, value in elements.items():
        header[keyword]._value = value
    header.save_as(path)
    with pytest.raises(FilmError) as caught:
        read_film(path)
    assert text in str(caught.value) and str(caught.value).isprintable() and len(str(caught.value)) < 250


def test_missing_files_and_folders(tmp_path):
    for path in (tmp_path, tmp_path / "none.dcm"):
        with pytest.raises(FilmError, match="no such file"):
            read_film(path)


def test_cut_anywhere_a_film_is_whole_or_refused(write_film, tmp_path):
    body = write_film("a.dcm", RAMP).read_bytes()
    for end in range(0, len(body), 7):
        (tmp_path / "cut.dcm").write_bytes(body[:end])
        with pytest.raises(FilmError):
            read_film(tmp_path / "cut.dcm")


def test_flipped_bytes_never_raise_anything_else(write_film, tmp_path):
    body = write_film("a.dcm", RAMP, WindowCenter=100, WindowWidth=50, ViewPosition="PA").read_bytes()
    for place in range(128, len(body) - 256):
        broken = bytearray(body)
        broken[place] ^= 0xFF
        (tmp_path / "b.dcm").write_bytes(broken)
        try:
            film = read_film(tmp_path / "b.dcm")
        except FilmError:
            continue
        assert np.isfinite(film.pixels).all() and 0 <= film.pixels.min() <= film.pixels.max() <= 1


# real files
