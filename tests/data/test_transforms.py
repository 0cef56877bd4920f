"""The Compose: square, shrunk, upright, plain."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from medistill.data.film import FilmError, read_film
from medistill.data.transforms import CentreSquare, Shrink, film_transform


@pytest.mark.parametrize(("rows", "cols"), [(40, 70), (70, 40), (41, 41)])
def test_centre_square(rows, cols):
    film = torch.arange(rows * cols, dtype=torch.float32).reshape(1, rows, cols)
    side = min(rows, cols)
    top, left = (rows - side) // 2, (cols - side) // 2
    assert torch.equal(CentreSquare()(film), film[:, top : top + side, left : left + side])


def test_shrink_does_not_alias_and_keeps_the_edge():
    stripes = torch.zeros(1, 64, 64)
    stripes[:, :, ::2] = 1
    small = Shrink(8)(stripes)
    assert (small - 0.5).abs().max() < 0.02
    assert torch.allclose(Shrink(8)(torch.full((1, 100, 100), 0.7)), torch.tensor(0.7))


def test_shrink_agrees_with_pillow():
    film = torch.rand(1, 96, 96, generator=torch.Generator().manual_seed(0))
    wanted = np.asarray(Image.fromarray(film[0].numpy()).resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(Shrink(32)(film)[0].numpy(), wanted, atol=1e-5)


def test_film_stays_upright(write_film):
    stored = np.zeros((60, 90), np.uint8)
    stored[5:15, 55:75] = 255  # upper right of the centre square, columns 15 to 75
    image = film_transform(30)(write_film("a.dcm", stored, WindowCenter=128, WindowWidth=256)).image
    wanted = torch.zeros(30, 30)
    wanted[3:7, 20:30] = 1
    assert (image[0] * wanted).sum() > 0.8 * wanted.sum() > 0
    assert image[0, :, :19].max() < 0.01 and image[0, 9:].max() < 0.01


def test_result_is_plain_with_choices_and_hash(write_film):
    path = write_film("a.dcm", np.arange(1024, dtype=np.uint16).reshape(32, 32), ViewPosition="PA")
    film = film_transform(16)(path)
    assert type(film.image) is torch.Tensor and not isinstance(film.image, MetaTensor)
    assert (film.image.shape, film.image.dtype) == ((1, 16, 16), torch.float32)
    assert film.choices == read_film(path).choices and film.sha256 == read_film(path).digest


def test_m1_and_m2_of_one_film_give_equal_tensors(write_film):
    stored = np.random.default_rng(0).integers(0, 4096, (50, 40)).astype(np.uint16)
    second = write_film("m2.dcm", stored)
    first = write_film("m1.dcm", (65535 - stored).astype(np.uint16), PhotometricInterpretation="MONOCHROME1")
    transform = film_transform(24)
    torch.testing.assert_close(transform(first).image, transform(second).image, atol=2e-6, rtol=0)


def test_refusal_is_the_cause(write_film):
    with pytest.raises(RuntimeError) as caught:
        film_transform(16)(write_film("a.dcm", np.eye(8, dtype=np.uint8), ViewPosition="LL"))
    assert isinstance(caught.value.__cause__, FilmError)


def test_building_is_silent(recwarn, capfd):
    film_transform(16)
    assert not recwarn.list and capfd.readouterr().err == ""
