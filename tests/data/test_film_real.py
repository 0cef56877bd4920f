"""The door for films on real files: monochromes, codecs, chest films, broken files, odd pictures."""

from pathlib import Path

import numpy as np
import pytest

from medistill.data.film import FilmError, read_film

ANY = ("CR", "DX", "MR", "CT", "OT", "US", "RF", "XA", "RTDOSE", "")


def pixels(path: Path) -> np.ndarray:
    return read_film(path).pixels


@pytest.mark.realdata
def test_wrong_monochrome1_tag_gives_the_negative(real_data):
    chest = real_data / "dicom" / "chest"
    right, wrong = pixels(chest / "siim_jpeg_mono2.dcm"), pixels(chest / "siim_fake_mono1.dcm")
    np.testing.assert_allclose(wrong, 1 - right, atol=1e-6)


@pytest.mark.realdata
def test_with_and_without_preamble(real_data):
    chest = real_data / "dicom" / "chest"
    whole, bare = (
        read_film(chest / "gdcm-CR-MONO1-10-chest.dcm"),
        read_film(chest / "CR-MONO1-10-chest_nometa.dcm"),
    )
    assert whole.digest == bare.digest


@pytest.mark.realdata
def test_jpeg_2000_and_jpeg_ls_of_one_film(real_data):
    pytest.importorskip("gdcm")
    chest = real_data / "dicom" / "chest"
    first, second = pixels(chest / "RG1_J2KI.dcm"), pixels(chest / "RG1_JLSN.dcm")
    assert np.abs(first - second).mean() < 0.005


@pytest.mark.realdata
def test_one_film_in_four_codecs(real_data):
    pytest.importorskip("gdcm")
    films = [read_film(real_data / "dicom" / "other" / f"RG3_{name}.dcm") for name in ("J2KR", "JLSL", "JPLL", "RLE")]
    assert len({film.digest for film in films}) == 1


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("siim_jpeg_mono2.dcm", (1024, 1024, False, "percentile")),
        ("siim_fake_mono1.dcm", (1024, 1024, True, "percentile")),
        ("RG1_J2KI.dcm", (1955, 1841, True, "LINEAR")),
        ("gdcm-CR-MONO1-10-chest.dcm", (440, 440, True, "LINEAR")),
        ("CR-MONO1-10-chest_nometa.dcm", (440, 440, True, "LINEAR")),
        ("nih_00000001_000.dcm", (1024, 1024, False, "percentile")),
        ("Monochrome1-Jpeg.dcm", (2446, 2010, True, "LINEAR")),
        ("dx_image_dog.dcm", (169, 211, True, "LINEAR")),
        ("chrJapMulti.dcm", "without Pixel Data"),
        ("chrKoreanMulti.dcm", "without Pixel Data"),
    ],
)
def test_chest_films(real_data, name, outcome):
    path = real_data / "dicom" / "chest" / name
    if isinstance(outcome, str):
        with pytest.raises(FilmError, match=outcome):
            read_film(path)
        return
    film = read_film(path)
    choices = film.choices
    assert (*film.pixels.shape, choices["inverted"], choices["window"]) == outcome
    assert 0 <= film.pixels.min() <= film.pixels.max() <= 1 and film.pixels.std() > 0.1


@pytest.mark.realdata
def test_every_broken_file_is_a_sentence_or_a_film(real_data):
    for path in sorted((real_data / "dicom" / "broken").iterdir()):
        for modalities in (("CR", "DX"), ANY):
            try:
                film = read_film(path, modalities=modalities)
            except FilmError as error:
                assert str(error).startswith(f"{path.name}: ") and "\n" not in str(error)
            else:
                assert film.pixels.ndim == 2


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("MR_truncated.dcm", "8,192 bytes of pixels declared, 8,130 found"),
        ("oob-monochrome-65535.dcm", "65535 x 65535 pixels declared"),
        ("no_ext_palette_fall.dcm", "without Pixel Data"),
        ("CR000000_header_only.dcm", "without Pixel Data"),
        ("Deeply-Nested-Sequence.dcm", "cannot be read"),
        ("badVR.dcm", "Number of Frames is absent or no whole number"),
    ],
)
def test_broken_files_past_the_modality(real_data, name, text):
    with pytest.raises(FilmError, match=text):
        read_film(real_data / "dicom" / "broken" / name, modalities=ANY)


@pytest.mark.realdata
def test_other_files_on_request(real_data):
    other = real_data / "dicom" / "other"
    signed = read_film(other / "mlut_18.dcm", modalities=("OT",))
    voi = read_film(other / "vlut_04.dcm", modalities=("OT",))
    assert (signed.choices["window"], voi.choices["window"]) == ("percentile", "VOI LUT")
    for name, text in [
        ("dx_ybr_full_422_jpeg.dcm", "YBR_FULL_422"),
        ("OBXXXX1A_rle.dcm", "PALETTE COLOR"),
        ("SC_rgb_16bit.dcm", "RGB"),
        ("emri_small_RLE.dcm", "holds 10 frames"),
        ("cspine_6154.dcm", "View Position is LL"),
        ("RG3_JPLY.dcm", "GPL: pip install pylibjpeg-libjpeg"),
    ]:
        with pytest.raises(FilmError, match=text):
            read_film(other / name, modalities=ANY)


@pytest.mark.realdata
def test_odd_pictures(real_data):
    odd = real_data / "cxr" / "originals" / "odd"
    assert read_film(odd / "766p.jpg").choices["format"] == "WEBP"
    for name in ("771.png", "884.png", "gr1_lrg-a.jpg"):
        with pytest.raises(FilmError, match="coloured"):
            read_film(odd / name)
