"""The measure of likeness: each attacker against an independent calculation, and what it is for."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from medistill.audit import likeness as module
from medistill.audit.likeness import RIDGE, in_place, likeness
from medistill.audit.nearest import planted_copies
from medistill.audit.search import largest_zncc, nearest_neighbours
from medistill.seeds import generator


@pytest.fixture(scope="module")
def train(films: Callable[..., Tensor]) -> Tensor:
    return films(80, "train")


def test_in_place_is_the_cosine_in_the_inverse_covariance(films: Callable[..., Tensor]) -> None:
    """Against numpy: v' S^-1 w / sqrt(v' S^-1 v * w' S^-1 w) after removing the mean film's direction."""
    queries, reference = films(3, "query", side=8), films(30, "film", side=8)

    def unit(pictures: Tensor) -> np.ndarray:
        pixels = pictures.flatten(1).double().numpy()
        pixels = pixels - pixels.mean(1, keepdims=True)
        return pixels / np.linalg.norm(pixels, axis=1, keepdims=True)

    x, y = unit(queries), unit(reference)
    common = y.mean(0) / np.linalg.norm(y.mean(0))
    x, y = x - np.outer(x @ common, common), y - np.outer(y @ common, common)
    covariance = y.T @ y / len(y)
    inverse = np.linalg.inv(covariance + RIDGE * np.trace(covariance) / 64 * np.eye(64))
    products = x @ inverse @ y.T
    norms = [np.sqrt(np.einsum("ij,jk,ik->i", z, inverse, z)) for z in (x, y)]
    expected = products / np.outer(*norms)
    np.testing.assert_allclose(in_place(queries, reference).numpy(), expected, atol=1e-5)


def test_units_and_contrast_do_not_matter(films: Callable[..., Tensor], train: Tensor) -> None:
    queries = films(4, "query")
    torch.testing.assert_close(likeness(queries * 7 - 3, train), likeness(queries, train), atol=2e-3, rtol=1e-3)


def test_large_films_are_compared_at_32_px(films: Callable[..., Tensor]) -> None:
    large = films(12, "large", side=64)
    small = F.interpolate(large, size=32, mode="bilinear", antialias=True)
    torch.testing.assert_close(in_place(large[:3], large), in_place(small[:3], small), atol=1e-5, rtol=0)


def test_the_ranking_search_agrees_with_the_search_for_the_nearest(films: Callable[..., Tensor], train: Tensor) -> None:
    queries = torch.cat([films(5, "query"), 1 - train[:2].flip(3)])
    every, best = largest_zncc(queries, train), nearest_neighbours(queries, train)["zncc_32"]
    torch.testing.assert_close(every.amax(1), best.value)
    assert torch.equal(every.argmax(1), best.index)


def test_outstanding_by_hand() -> None:
    """atanh values 0, .1, .2, .3, 3.2: median .2, absolute deviations .2, .1, 0, .1, 3, their median .1."""
    values = torch.tensor([[0.0, 0.1, 0.2, 0.3, 3.2]], dtype=torch.float64)
    expected = torch.tensor([[-0.2, -0.1, 0.0, 0.1, 3.0]]) / 0.14826
    torch.testing.assert_close(module._outstanding(torch.tanh(values)), expected, rtol=1e-3, atol=1e-5)


def test_either_attacker_suffices(films: Callable[..., Tensor], train: Tensor) -> None:
    """A moved copy that the one in place misses, and a film changed smoothly that the search misses, are found."""
    moved, origin = planted_copies(train, 24, generator(0, "planted"))
    change = F.interpolate(torch.randn(24, 1, 7, 7, generator=generator(0, "change")), size=32, mode="bicubic")
    changed = train[:24] + 0.5 * change
    right = {
        "moved in place": in_place(moved, train).argmax(1) == origin,
        "moved": likeness(moved, train).argmax(1) == origin,
        "changed, searched": largest_zncc(changed, train).argmax(1) == torch.arange(24),
        "changed": likeness(changed, train).argmax(1) == torch.arange(24),
    }
    share = {name: found.float().mean().item() for name, found in right.items()}
    assert share["moved in place"] < 0.5 and share["moved"] > 0.8
    assert share["changed, searched"] < 0.5 and share["changed"] > 0.7


def test_a_flat_image_is_like_no_film(train: Tensor) -> None:
    values = likeness(torch.full((1, 1, 32, 32), 0.3), train)
    assert values.abs().max() == 0
