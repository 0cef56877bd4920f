"""Check 1 against hand calculations, monai's SSIM, planted copies and real films."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.stats import binom
from torch import Tensor

from medistill.audit import nearest, search
from medistill.audit.nearest import chance_of, nearest_check, planted_copies
from medistill.audit.search import nearest_neighbours, resample, ssim_map
from medistill.errors import UserError
from medistill.seeds import generator

SIDE = 32


def films(count: int, place: str, side: int = SIDE, channels: int = 1) -> Tensor:
    """Smooth random pictures over one common background, as chest films are, in [0, 1]."""
    source = generator(7, place)
    coarse = F.interpolate(torch.randn(count, channels, 6, 6, generator=source), size=side, mode="bicubic")
    fine = F.interpolate(torch.randn(count, channels, 14, 14, generator=source), size=side, mode="bicubic")
    ramp = torch.linspace(-1, 1, side).square().expand(side, side)
    return torch.sigmoid(1.5 * ramp + coarse + 0.5 * fine)


@pytest.fixture(scope="module")
def train() -> Tensor:
    return films(80, "train")


@pytest.fixture(scope="module")
def holdout() -> Tensor:
    return films(60, "holdout")


def warps(size: int) -> search._Warps:
    return search._warps((SIDE, SIDE), (size, size), torch.device("cpu"))


@pytest.mark.parametrize("channels", [1, 3])
def test_zncc_equals_the_correlation_coefficient_over_the_covered_region(channels: int) -> None:
    queries, reference = films(3, "query", channels=channels), films(5, "film", channels=channels)
    table = warps(SIDE)
    norms = search._inverse_norms(reference, table)
    for scale in (0, 3, 4, 8):
        for down, right, flip in ((0, 4, 0), (2, 2, 1), (3, 1, 1)):
            pixels = search._normalised(queries, scale, down, table)[flip, right]
            found = (pixels @ reference.flatten(1).T) * norms[scale, down, right]
            factor = torch.full((3,), search.SCALES[scale])
            shift = torch.stack([table.shifts[scale, down], table.shifts[scale, right]]).expand(3, 2)
            warped = resample(queries, factor, shift, torch.full((3,), flip == 1), (SIDE, SIDE))
            covered = resample(torch.ones(3, 1, SIDE, SIDE), factor, shift, factor < 0, (SIDE, SIDE))[0, 0] > 0.5
            expected = np.corrcoef(
                warped[:, :, covered].flatten(1).numpy(), reference[:, :, covered].flatten(1).numpy()
            )[:3, 3:]
            np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)


def test_zncc_of_untransformed_pictures_by_hand() -> None:
    """At 32 px, scale 1, shift 0: the plain coefficient is a lower bound, and reached by one's own copy."""
    reference = films(6, "film")
    found = nearest_neighbours(reference[4:] * 3 - 7, reference)
    assert found["zncc_32"].index.tolist() == [4, 5]
    torch.testing.assert_close(found["zncc_32"].value, torch.ones(2), atol=1e-5, rtol=0)
    other = films(4, "other")
    plain = np.abs(np.corrcoef(other.flatten(1), reference.flatten(1))[:4, 4:]).max(1)
    assert (nearest_neighbours(other, reference)["zncc_32"].value.numpy() >= plain - 1e-6).all()


def test_flat_pictures_give_zero() -> None:
    reference = films(4, "film")
    assert nearest_neighbours(torch.full((2, 1, SIDE, SIDE), 0.3), reference)["zncc_32"].value.tolist() == [0, 0]
    flat = nearest_neighbours(reference, torch.full((2, 1, SIDE, SIDE), 0.3))
    assert flat["zncc_16"].value.tolist() == [0] * 4


def test_resample_shrinks_like_area_averaging_and_moves_by_whole_pixels() -> None:
    pictures, still = films(2, "film"), torch.zeros(1, 2)
    one, no = torch.ones(1), torch.zeros(1, dtype=torch.bool)
    torch.testing.assert_close(resample(pictures, one, still, no, (SIDE, SIDE)), pictures)
    torch.testing.assert_close(resample(pictures, one, still, ~no, (SIDE, SIDE)), pictures.flip(3))
    moved = resample(pictures, one, torch.tensor([[2 / SIDE, -3 / SIDE]]), no, (SIDE, SIDE))
    torch.testing.assert_close(moved[:, :, 2:, :-3], pictures[:, :, :-2, 3:], atol=1e-4, rtol=0)
    assert moved[:, :, :2].abs().max() == 0 and moved[:, :, :, -3:].abs().max() == 0
    half = resample(pictures, one, still, no, (16, 16))
    expected = F.interpolate(pictures, size=16, mode="bilinear", antialias=True)
    torch.testing.assert_close(half, expected, atol=1e-5, rtol=0)


def copies(name: str, pictures: Tensor) -> Tensor:
    one, no, still = torch.ones(1), torch.zeros(1, dtype=torch.bool), torch.zeros(1, 2)
    size = (pictures.shape[2], pictures.shape[3])
    return {
        "exact": pictures,
        "flipped": pictures.flip(3),
        "inverted": 1 - pictures,
        "shifted": resample(pictures, one, torch.tensor([[0.05, -0.05]]), no, size),
        "cropped to .9": resample(pictures, one / 0.9, still, no, size),
        "cropped to .8": resample(pictures, one / 0.8, still, no, size),
        "corner crop": resample(pictures, one / 0.85, torch.full((1, 2), 0.5 / 0.85 - 0.5), no, size),
        "scaled by .8": resample(pictures, one * 0.8, still, no, size),
        "everything": 2 - 3 * resample(pictures, one / 0.9, torch.tensor([[0.04, -0.03]]), ~no, size),
    }[name]


@pytest.mark.parametrize(
    ("name", "scale", "shift", "flipped", "inverted"),
    [
        ("exact", 1, (0, 0), False, False),
        ("flipped", 1, (0, 0), True, False),
        ("inverted", 1, (0, 0), False, True),
        ("shifted", 1, (-0.05, 0.05), False, False),
        ("cropped to .9", 0.9, (0, 0), False, False),
        ("cropped to .8", 0.8, (0, 0), False, False),
        ("corner crop", 0.85, (-0.075, -0.075), False, False),
        ("scaled by .8", 1.25, (0, 0), False, False),
        ("everything", 0.9, (-0.036, -0.027), True, True),
    ],
)
def test_a_transformed_copy_is_found_with_its_film_and_transformation(
    name: str, scale: float, shift: tuple[float, float], flipped: bool, inverted: bool
) -> None:
    reference = films(40, "train", side=48)
    queries = copies(name, reference[10:16])
    if name == "shifted":
        queries[:, :, :3], queries[:, :, :, -3:] = 0.5, 0.5
    # What a border of the picture's own holds cannot match.
    lowest = {"shifted": 0.9, "scaled by .8": 0.93}.get(name, 0.99)
    found = nearest_neighbours(queries, reference)
    assert set(found) == {f"{kind}_{size}" for kind in ("zncc", "ssim") for size in (48, 32, 16)}
    for match in found.values():
        assert match.index.tolist() == list(range(10, 16))
    for key in ("zncc_48", "zncc_32", "zncc_16"):
        match = found[key]
        assert match.value.min() > lowest
        assert match.scale.tolist() == pytest.approx([scale] * 6, abs=0.06)
        assert match.flipped.tolist() == [flipped] * 6 and match.inverted.tolist() == [inverted] * 6
        assert torch.allclose(match.shift, torch.tensor(shift).float(), atol=0.03)


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_equals_monais(channels: int) -> None:
    from monai.metrics.regression import SSIMMetric

    x, y = films(4, "x", channels=channels), films(4, "y", channels=channels)
    y = 0.5 * x + 0.5 * y
    metric = SSIMMetric(spatial_dims=2, data_range=1.0, win_size=7, kernel_sigma=1.5)
    expected = metric(x, y).flatten()
    torch.testing.assert_close(ssim_map(x, y).mean((1, 2, 3)), expected, atol=1e-5, rtol=0)


def test_the_search_returns_monais_ssim_of_the_film_after_matching_mean_and_sd() -> None:
    from monai.metrics.regression import SSIMMetric

    film = films(1, "x")
    query = (0.7 * film + 0.3 * films(1, "y")) * 4 - 2
    found = nearest_neighbours(query, film)["ssim_32"]
    assert found.scale.item() == 1 and found.shift.tolist() == [[0, 0]] and not found.inverted.item()
    matched = (query - query.mean()) / query.std() * film.std() + film.mean()
    metric = SSIMMetric(spatial_dims=2, data_range=1.0, win_size=7, kernel_sigma=1.5)
    assert found.value.item() == pytest.approx(metric(matched, film).item(), abs=1e-5)


def test_blocks_do_not_change_the_result(train: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = films(5, "query")
    whole = nearest_neighbours(queries, train)
    monkeypatch.setattr(search, "BLOCK", 2)
    parts = nearest_neighbours(queries, train)
    for name, match in whole.items():
        torch.testing.assert_close(match.value, parts[name].value, atol=1e-5, rtol=0)
        assert torch.equal(match.index, parts[name].index)
    assert (whole["zncc_32"].background < whole["zncc_32"].value).all()


def test_what_cannot_be_searched_is_refused(train: Tensor) -> None:
    with pytest.raises(ValueError, match="one shape"):
        nearest_neighbours(torch.zeros(1, 3, SIDE, SIDE), train)
    with pytest.raises(ValueError, match="16 px"):
        nearest_neighbours(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="NaN"):
        nearest_neighbours(torch.full((1, 1, SIDE, SIDE), torch.nan), train)
    with pytest.raises(UserError, match="no holdout film"):
        nearest_check(train[:2], train, train[:0], seed=0)


def test_planted_copies_are_drawn_as_documented(train: Tensor) -> None:
    pictures, index = planted_copies(train, 64, generator(0, "planted"))
    again, _ = planted_copies(train, 64, generator(0, "planted"))
    assert torch.equal(pictures, again) and len(index.unique()) == 64
    found = nearest_neighbours(pictures, train)["zncc_32"]
    right = found.index == index
    assert right.float().mean() > 0.95
    assert 20 <= found.flipped[right].sum() <= 44 and 20 <= found.inverted[right].sum() <= 44
    assert found.scale[right].min() < 0.85 and found.scale[right].max() >= 0.97


def test_noise_passes_with_power(train: Tensor, holdout: Tensor) -> None:
    noise = torch.rand(12, 1, SIDE, SIDE, generator=generator(0, "noise"))
    check, result = nearest_check(noise, train, holdout, seed=0)
    assert check.verdict == "pass" and check.power is not None and check.power >= 0.8
    assert check.statistic["fired"] == 0 and not result.fired.any()
    assert check.statistic["expected_by_chance"] == pytest.approx(12 / 61)
    assert isinstance(check.positive_control, dict) and isinstance(check.negative_control, dict)
    low, high = check.positive_control["interval"]
    assert 0 < low < check.power <= high <= 1
    assert check.negative_control["expected_by_chance"] == pytest.approx(30 / 31)
    assert check.negative_control["fired"] <= 4
    text = json.dumps(check.to_json(), allow_nan=False)
    assert "index" not in text and len(check.statistic["per_image"]["zncc_32"]) == 12


def test_a_leak_fails_and_names_the_films(train: Tensor, holdout: Tensor) -> None:
    leak = train[20:24] + 0.05 * torch.randn(4, 1, SIDE, SIDE, generator=generator(0, "leak"))
    other = torch.rand(8, 1, SIDE, SIDE, generator=generator(0, "noise"))
    check, result = nearest_check(torch.cat([leak, other]), train, holdout, seed=0)
    assert check.verdict == "fail" and check.statistic["fired"] == 4
    assert result.fired.tolist() == [True] * 4 + [False] * 8
    assert result.index[:4].tolist() == [20, 21, 22, 23]
    assert "4 of 12" in check.explanation


def test_one_copy_among_many_images_fails(train: Tensor, holdout: Tensor) -> None:
    """Chance would allow two of so many to fire; a copy is told by how near it is, not by how many there are."""
    many = torch.cat([train[5:6], torch.randn(79, *train.shape[1:], generator=generator(1, "many")) * 0.2 + 0.5])
    check, result = nearest_check(many, train, holdout, seed=0)
    assert check.statistic["fired"] == 1 and check.statistic["p_exact"] > 0.05
    assert check.statistic["as_near_as_copies"] == 1 and check.verdict == "fail"
    assert int(result.index[0]) == 5


def test_strangers_films_pass(train: Tensor, holdout: Tensor) -> None:
    check, _ = nearest_check(films(12, "strangers"), train, holdout, seed=0)
    assert check.verdict == "pass"


def test_few_holdout_films_or_blind_detector_are_inconclusive(train: Tensor, holdout: Tensor) -> None:
    noise = torch.rand(4, 1, SIDE, SIDE, generator=generator(0, "noise"))
    few, _ = nearest_check(noise, train, holdout[:19], seed=0, planted=4)
    assert few.verdict == "inconclusive" and "fewer than 20" in few.explanation
    blind, _ = nearest_check(noise, train, torch.cat([holdout, train[:1]]), seed=0)
    assert blind.verdict == "inconclusive" and blind.power is not None and blind.power < 0.8
    two, _ = nearest_check(train[:8], train, holdout[:2], seed=0, planted=4)
    assert two.verdict == "fail" and two.negative_control == "none: fewer than 4 holdout films cannot be halved"


def test_a_firing_negative_control_is_inconclusive() -> None:
    positive = {"planted": 32, "fired": 32, "power": 1.0}
    assert nearest._judge(0, 0, 10, 100, 1.0, positive, {"p_exact": 0.2})[0] == "pass"
    assert nearest._judge(0, 0, 10, 100, 1.0, positive, {"p_exact": 0.005})[0] == "inconclusive"


def test_chance_is_one_in_holdout_plus_one() -> None:
    binomial, exact = chance_of(2, 40, 500)
    assert binomial == pytest.approx(binom.sf(1, 40, 1 / 501))
    assert exact == pytest.approx(40 * 39 / (540 * 539))
    assert chance_of(0, 40, 500) == pytest.approx((1, 1))
    scores = torch.rand(20_000, 30 + 10, generator=generator(0, "chance"), dtype=torch.float64)
    fired = (scores[:, :10] > scores[:, 10:].amax(1, keepdim=True)).sum(1)
    assert fired.double().mean() == pytest.approx(10 / 31, rel=0.05)
    assert (fired >= 3).double().mean() == pytest.approx(chance_of(3, 10, 30)[1], rel=0.2)


def test_the_score_fires_on_strangers_no_more_often_than_chance(train: Tensor) -> None:
    evidence = nearest._evidence(nearest_neighbours(films(240, "strangers"), train))
    source, fired = generator(0, "halves"), 0
    for _ in range(400):
        order = torch.randperm(240, generator=source)
        held, played = evidence[order[:30]], evidence[order[30:130]]
        fired += int((nearest._rise(played, held).amax(1) > nearest._threshold(held)).sum())
    assert fired / 400 == pytest.approx(100 / 31, rel=0.2)


@pytest.mark.realdata
def test_real_films_at_32_px(real_data: Path) -> None:
    """Power on real films: a detector that misses copies of them proves nothing about a real set."""
    train, holdout = (_load(real_data / "cxr" / split, count) for split, count in (("train", 200), ("test", 100)))
    noise = torch.rand(12, 1, SIDE, SIDE, generator=generator(0, "noise"))
    clean, _ = nearest_check(noise, train, holdout, seed=0, planted=100)
    assert clean.verdict == "pass" and clean.power is not None and clean.power >= 0.8
    leak, result = nearest_check(
        train[:12] + 0.05 * torch.randn(noise.shape, generator=generator(0, "leak")), train, holdout, seed=0, planted=8
    )
    assert leak.verdict == "fail" and result.fired.all() and result.index.tolist() == list(range(12))


def _load(folder: Path, count: int) -> Tensor:
    """Every k-th film of a folder, cut to its centre square."""
    files = sorted(folder.rglob("*.png"))
    pictures = []
    for file in files[:: len(files) // count][:count]:
        with Image.open(file) as image:
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            square = image.convert("L").crop((left, top, left + side, top + side))
            pictures.append(np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32))
    return torch.from_numpy(np.stack(pictures))[:, None] / 255
