"""Whitening against numpy's eigenvectors, its inverse, and its place in an image set's identity."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from medistill.data.imageset import ImageSet, denormalise, normalise
from medistill.data.zca import Zca
from medistill.seeds import generator


@pytest.fixture
def images():
    """Correlated RGB images (200, 3, 4, 4) in float64."""
    drawn = torch.randn(200, 48, generator=generator(1, "zca"), dtype=torch.float64)
    mix = torch.randn(48, 48, generator=generator(2, "zca"), dtype=torch.float64) / 7
    return (0.5 + 0.2 * drawn @ mix).view(200, 3, 4, 4)


def test_the_matrix_is_that_of_numpy_s_eigenvectors(images):
    flat = images.flatten(1).numpy()
    values, vectors = np.linalg.eigh(np.cov(flat, rowvar=False))
    expected = (flat - flat.mean(0)) @ vectors @ np.diag((values + 0.1) ** -0.5) @ vectors.T
    whitened = Zca.fit(images).apply(images)
    np.testing.assert_allclose(whitened.flatten(1).numpy(), expected, atol=1e-10)
    # in the eigenbasis each direction keeps S / (S + eps) of its unit variance
    basis = np.cov(whitened.flatten(1).numpy() @ vectors, rowvar=False)
    np.testing.assert_allclose(basis, np.diag(values / (values + 0.1)), atol=1e-10)


def test_a_published_case():
    """Four points of covariance 2/3 I without eps: each is multiplied by the root of 1.5."""
    points = torch.tensor([[0.0, 1], [1, 0], [-1, 0], [0, -1]], dtype=torch.float64).view(4, 1, 1, 2)
    torch.testing.assert_close(Zca.fit(points, eps=0.0).apply(points), points * 1.5**0.5)


def test_blocks_do_not_change_the_result(images, monkeypatch):
    whole = Zca.fit(images)
    monkeypatch.setattr("medistill.data.zca.BLOCK", 7)
    parts = Zca.fit(images)
    torch.testing.assert_close(parts.forward, whole.forward, atol=1e-12, rtol=0)
    torch.testing.assert_close(parts.mean, whole.mean, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_the_inverse_leads_back(images, dtype, atol):
    zca = Zca.fit(images)
    strange = torch.rand(5, 3, 4, 4, generator=generator(3, "zca"), dtype=dtype)
    whitened = zca.apply(strange)
    assert whitened.dtype == dtype and (whitened - strange).abs().max() > 0.1
    torch.testing.assert_close(zca.invert(whitened), strange, atol=atol, rtol=0)


def test_fewer_images_than_pixels(images):
    """A singular covariance: eps keeps the inverse finite and right."""
    few = images[:10]
    zca = Zca.fit(few)
    assert zca.forward.isfinite().all()
    torch.testing.assert_close(zca.invert(zca.apply(few)), few, atol=1e-9, rtol=0)


def test_the_file(images, tmp_path):
    zca = Zca.fit(images)
    zca.save(tmp_path / "zca.safetensors")
    again = Zca.load(tmp_path / "zca.safetensors")
    assert again.digest == zca.digest
    for name in ("mean", "forward", "backward"):
        assert torch.equal(getattr(again, name), getattr(zca, name).float())


def test_the_digest_is_of_the_images_and_eps(images):
    digests = {Zca.fit(images).digest, Zca.fit(images, eps=0.2).digest, Zca.fit(images[1:]).digest}
    assert len(digests) == 3 and Zca.fit(images.clone()).digest in digests


def image_set(images, zca=None):
    count = len(images)
    labels, groups = torch.arange(count) % 2, torch.arange(count)
    return ImageSet(images, labels, groups, ("a", "b"), "toy", "train", (0.5,) * 3, (0.25,) * 3, zca=zca)


def test_an_image_set_shows_whitened_pixels(images):
    plain = image_set(images.float())
    zca = Zca.fit(plain.pixels())
    white = replace(plain, zca=zca)
    scaled = (images.float() - 0.5) / 0.25
    torch.testing.assert_close(plain.pixels(), scaled)
    torch.testing.assert_close(white.pixels(), zca.apply(scaled))
    torch.testing.assert_close(white.as_seen(images[:2].float()), white.pixels()[:2])
    back = denormalise(white.pixels(), white.mean, white.std, zca)
    torch.testing.assert_close(back, images.float(), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalise(back, white.mean, white.std, zca), white.pixels(), atol=1e-4, rtol=0)


def test_whitened_and_plain_sets_have_different_identities(images):
    """A plain set's digest is over constants, pixels, labels and patients, as ever; whitening joins it."""
    plain = image_set(images.float())
    state = hashlib.sha256(repr((plain.classes, (200, 3, 4, 4), plain.mean, plain.std)).encode())
    for tensor in (plain.images, plain.labels, plain.groups):
        state.update(tensor.numpy().tobytes())
    assert plain.digest == state.hexdigest()
    first, other = (replace(plain, zca=Zca.fit(plain.pixels(), eps)).digest for eps in (0.1, 0.2))
    assert len({plain.digest, first, other}) == 3
