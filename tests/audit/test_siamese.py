"""The network of check 4: its loss, its batches, its poses, and that it learns who is who."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from medistill.audit import siamese
from medistill.audit.siamese import contrastive_loss, draw_batch, posed, prepared, standard, train_siamese, varied
from medistill.seeds import generator


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network and batches that take milliseconds."""
    for name, value in {"SIDE": 32, "WIDTH": 8, "PATIENTS": 16, "VIEWS": 2}.items():
        monkeypatch.setattr(siamese, name, value)


def cohort(patients: int, films: int, place: str) -> tuple[Tensor, Tensor]:
    """Patients as smooth random pictures, each film under its own brightness, contrast and noise."""
    source = generator(5, place)
    coarse = torch.randn(patients, 1, 5, 5, generator=source).repeat_interleave(films, 0)
    number = torch.rand(2, len(coarse), 1, 1, 1, generator=source)
    images = F.interpolate(coarse, size=32, mode="bicubic") * (0.1 + 0.1 * number[0]) + 0.3 + 0.4 * number[1]
    noise = 0.02 * torch.randn(images.shape, generator=source)
    return images + noise, torch.arange(patients).repeat_interleave(films)


def test_the_loss_equals_equation_2_term_by_term() -> None:
    embeddings = torch.randn(7, 5, generator=generator(0, "loss"), dtype=torch.float64)
    patients = [3, 1, 3, 1, 3, 2, 2]
    unit = [row / row.norm() for row in embeddings]
    terms = []
    for i, own in enumerate(patients):
        others = [j for j in range(7) if j != i]
        total = sum(math.exp(float(unit[i] @ unit[j]) / 0.1) for j in others)
        same = [j for j in others if patients[j] == own]
        terms.append(-sum(math.log(math.exp(float(unit[i] @ unit[j]) / 0.1) / total) for j in same) / len(same))
    assert contrastive_loss(embeddings, torch.tensor(patients)).item() == pytest.approx(sum(terms) / 7, rel=1e-12)


def test_the_loss_has_finite_gradients_by_autograd() -> None:
    embeddings = torch.randn(6, 4, generator=generator(0, "gradient"), dtype=torch.float64, requires_grad=True)
    patients = torch.tensor([0, 0, 1, 1, 1, 0])
    assert torch.autograd.gradcheck(lambda e: contrastive_loss(e, patients), (embeddings,))


def test_a_batch_holds_three_films_of_each_patient_and_repeats_only_where_it_must(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(siamese, "PATIENTS", 4)
    rows = [torch.tensor([0, 1]), torch.tensor([2, 3, 4, 5]), torch.tensor([6, 7, 8]), *(torch.tensor([9, 10]),) * 3]
    owner = {int(film): number for number, row in enumerate(rows[:4]) for film in row}
    index, patients = draw_batch(rows[:4], generator(0, "batch"))
    assert [owner[i] for i in index.tolist()] == patients.tolist()
    for number, row in enumerate(rows[:4]):
        drawn = index[patients == number].tolist()
        assert len(drawn) == 3 and len(set(drawn)) == min(3, len(row))
    many = [draw_batch(rows, generator(seed, "batch"))[1] for seed in range(40)]
    assert all(len(patients) == 12 and len(patients.unique()) == 4 for patients in many)
    assert len(torch.cat(many).unique()) == len(rows)


def test_no_pose_is_the_picture_and_a_shift_moves_it() -> None:
    images = torch.randn(2, 1, 64, 64, generator=generator(0, "pose"))
    still = torch.zeros(2, 4)
    torch.testing.assert_close(posed(images, still), images, atol=1e-4, rtol=0)
    shift = 2 * 2 / 64 / siamese.SHIFT  # two pixels of half a side
    moved = posed(images, torch.tensor([[0.0, 0, shift, 0], [0, 0, 0, shift]]))
    torch.testing.assert_close(moved[0, :, :, :-2], images[0, :, :, 2:], atol=1e-4, rtol=0)
    torch.testing.assert_close(moved[1, :, :-2], images[1, :, 2:], atol=1e-4, rtol=0)
    # borders are continued
    torch.testing.assert_close(moved[0, :, :, -1], images[0, :, :, -1], atol=1e-4, rtol=0)


def test_zoom_and_rotation_move_a_point_as_calculated() -> None:
    axis = (torch.arange(64) + 0.5) / 32 - 1
    bump = torch.exp(-(((axis[None] - 0.5) / 0.08) ** 2) - ((axis[:, None] / 0.08) ** 2))[None, None]
    for numbers, place in (
        ((0.0, 1.0, 0.0, 0.0), (0.5 * math.exp(-siamese.ZOOM), 0.0)),
        ((1.0, 0.0, 0.0, 0.0), (0.5 * math.cos(siamese.ROTATION), -0.5 * math.sin(siamese.ROTATION))),
    ):
        found = posed(bump, torch.tensor([numbers]))[0, 0]
        weight = found / found.sum()
        assert float((weight.sum(0) * axis).sum()) == pytest.approx(place[0], abs=0.01)
        assert float((weight.sum(1) * axis).sum()) == pytest.approx(place[1], abs=0.01)


def test_preparing_undoes_brightness_and_contrast_and_survives_flat_pictures() -> None:
    images = torch.rand(3, 1, 32, 32, generator=generator(0, "prepare"))
    torch.testing.assert_close(prepared(images * 3 - 5), prepared(images), atol=1e-4, rtol=0)
    assert prepared(images).std((1, 2, 3)).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    assert prepared(torch.full((1, 1, 32, 32), 0.7)).abs().max() < 1e-3


def test_variation_is_replayed_from_the_generator_and_bounded() -> None:
    images = standard(torch.randn(40, 1, 64, 64, generator=generator(0, "vary")))
    first, again = (varied(images, generator(1, "vary")) for _ in range(2))
    assert torch.equal(first, again) and not torch.equal(first, varied(images, generator(2, "vary")))
    smooth = standard(F.interpolate(torch.randn(40, 1, 3, 3, generator=generator(0, "smooth")), 64, mode="bicubic"))
    rough = varied(smooth, generator(3, "vary"))
    noise = (rough[:, :, 1:, 1:] - rough[:, :, 1:, :-1] - rough[:, :, :-1, 1:] + rough[:, :, :-1, :-1]).std((1, 2, 3))
    # the second difference of white noise has twice its deviation, which is uniform up to NOISE
    assert noise.max() / 2 < siamese.NOISE and noise.mean() / 2 == pytest.approx(siamese.NOISE / 2, rel=0.25)


@pytest.mark.usefixtures("small")
def test_it_recognises_patients_it_was_not_trained_on() -> None:
    images, groups = cohort(40, 3, "fit")
    told: list[str] = []
    net = train_siamese(images, groups, seed=0, steps=100, device=torch.device("cpu"), say=told.append)
    others, owners = cohort(60, 2, "others")
    embedded = net.embed(others)
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(120))
    similar = (embedded @ embedded.T).fill_diagonal_(-1)
    assert (owners[similar.argmax(1)] == owners).float().mean() > 0.95
    assert told == [told[0]] and told[0].startswith("siamese network: step 100 of 100, loss ")


@pytest.mark.usefixtures("small")
def test_the_same_seed_gives_the_same_network_whatever_the_global_seed_and_the_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, groups = cohort(8, 2, "seed")
    torch.manual_seed(1)
    first = train_siamese(images, groups, seed=0, steps=3, device=torch.device("cpu")).embed(images)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    net = train_siamese(images, groups, seed=0, steps=3, device=torch.device("cpu"))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first, net.embed(images))
    monkeypatch.setattr(siamese, "BLOCK", 5)
    torch.testing.assert_close(net.embed(images), first, atol=1e-5, rtol=0)
    other = train_siamese(images, groups, seed=1, steps=3, device=torch.device("cpu")).embed(images)
    assert (first - other).abs().max() > 0.01
