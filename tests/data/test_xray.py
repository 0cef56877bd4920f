"""FilmReader inside MONAI: upright, refused where the door refuses, and never read by another reader."""

import numpy as np
import pytest
from monai.transforms import LoadImage

from medistill.data.film import FilmError, read_film
from medistill.data.xray import FilmReader

pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")
MARKED = np.zeros((24, 60), np.uint8)
MARKED[2:7, 45:55] = 255


def test_load_image_gives_the_film_row_major(write_film):
    path = write_film("a.dcm", MARKED, WindowCenter=128, WindowWidth=256, PhotometricInterpretation="MONOCHROME1")
    loaded = LoadImage(reader=FilmReader(), image_only=True)(path)
    assert np.array_equal(loaded.numpy(), 1 - MARKED / 255.0)
    assert loaded.meta["choices"]["inverted"] and loaded.meta["sha256"] == read_film(path).digest


def test_a_refused_film_reaches_no_other_reader(write_film):
    lateral = write_film("a.dcm", MARKED, ViewPosition="LL")
    with pytest.raises(FilmError, match="View Position is LL"):
        LoadImage(reader=FilmReader())(lateral)
    assert LoadImage(reader=FilmReader(views=("LL",)))(lateral).shape == (24, 60)


def test_modalities_reach_the_door(write_film):
    path = write_film("a.dcm", MARKED, Modality="SC")
    with pytest.raises(FilmError, match="Modality is SC, accepted are CR, DX"):
        LoadImage(reader=FilmReader())(path)
    assert LoadImage(reader=FilmReader(modalities=("SC",)))(str(path)).shape == (24, 60)


def test_every_name_is_tried_by_content():
    assert FilmReader().verify_suffix("film.without.known.suffix")
