"""Public benchmarks through the stages: check, the shipped configs shrunk, and whitened data from end to end."""

import json

import numpy as np
import pytest
import torch

from medistill.cli import main
from medistill.data.imageset import ImageSet
from medistill.data.zca import Zca
from medistill.distill.distilled import Distilled

SHRUNK = {
    "threads": 1,
    "track": "false",
    "net.width": 4,
    "experts.count": 1,
    "experts.epochs": 3,
    "distill.iterations": 2,
    "distill.inner_steps": 2,
    "distill.max_start_epoch": 2,
    "evaluate.seeds": 1,
    "evaluate.steps": 5,
    "evaluate.resamples": 20,
    "audit.planted": 10,
    "audit.holdout": 20,
}


def medistill(verb, run, capsys, *more, config=None, expect=0, **options):
    """Run a verb in this process and return what it printed."""
    settings = {"run": run, **SHRUNK, **{name.replace("__", "."): value for name, value in options.items()}}
    words = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    words = [verb, *(["--config", config] if config else []), *words, *more]
    if expect:
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == expect
    else:
        main(words)
    told = capsys.readouterr()
    return told.out + told.err


def only(folder, pattern):
    found = list(folder.glob(pattern))
    assert len(found) == 1, found
    return found[0]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """RGB images in MedMNIST's layout, 16 px: a class has a bright half; and the options that read them."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in {"train": 120, "val": 40, "test": 40}.items():
        labels = np.arange(count) % 2
        images = rng.integers(0, 128, (count, 16, 16, 3), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[:, 8 * label : 8 * label + 8] += rng.integers(40, 100, dtype=np.uint8)
        arrays |= {f"{split}_images": images, f"{split}_labels": labels[:, None]}
    arrays["test_images"][0] = arrays["train_images"][0]
    path = tmp_path_factory.mktemp("toy") / "toy.npz"
    np.savez(path, **arrays)
    data = {"adapter": "medmnist", "cohort": path, "name": "toy", "positive": "1", "size": 16}
    return {f"data__{key}": value for key, value in data.items()} | {"net__depth": 2}, arrays


def test_check_counts_the_splits_and_finds_look_alikes(toy, tmp_path, capsys):
    options, _ = toy
    lines = medistill("check", tmp_path / "run", capsys, **options).splitlines()
    assert "note: 1 images stand in more than one split, pixel for pixel; the official split is kept as it is" in lines
    assert "note: train_images row 0 (train) and test_images row 0 (test) look alike (correlation 1.000)" in lines
    assert lines[-4:-1] == [
        "train: 120 images (0 60, 1 60)",
        "val: 40 images (0 20, 1 20)",
        "test: 40 images (0 20, 1 20)",
    ]
    assert lines[-1] == "check: the cohort is ready" and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data__size": 32}, "data.size is 32, but the images are 16 pixels a side; set data.size to 16"),
        ({"data__positive": "COVID"}, "data.positive is 'COVID', but the classes are 0, 1; name one of them"),
        ({"data__cohort": "gone.npz"}, "gone.npz is neither in the current folder nor"),
        ({"data__cohort": "phantom"}, "data.adapter is medmnist, but data.cohort names no data"),
        ({"data__zca": "true", "data__size": 65}, "data.zca is true and data.size 65"),
        ({"data__adapter": "mnist"}, "mnist"),
    ],
)
def test_mistakes_are_one_line(toy, tmp_path, capsys, change, message):
    told = medistill("check", tmp_path / "run", capsys, expect=2, **{**toy[0], **change})
    assert message in told and len(told.strip().splitlines()) == 1


def test_a_loaded_benchmark_still_wants_one_of_its_classes(toy, tmp_path, capsys):
    medistill("experts", tmp_path, capsys, **toy[0])
    told = medistill("experts", tmp_path, capsys, expect=2, **{**toy[0], "data__positive": "2"})
    assert "data.positive is '2'" in told


@pytest.fixture(scope="module")
def whitened(toy, tmp_path_factory):
    """The options of a whitened run from real images that distillation hardly moves, and its folder."""
    start = {"distill__start": "real", "distill__lr_images": 1e-6, "distill__iterations": 1}
    return {**toy[0], **start, "data__zca": "true"}, tmp_path_factory.mktemp("whitened")


def test_a_whitened_run(whitened, toy, capsys):
    """Train's whitening serves all splits; pictures and audit see the images as they were."""
    options, folder = whitened
    told = medistill("run", folder, capsys, **options)
    assert "To share:     nothing, for a set made on whitened data is not released" in told
    data = only(folder, "data-*")
    zca = Zca.load(data / "zca.safetensors")
    train, test = (ImageSet.load(data / f"{name}.safetensors") for name in ("train", "test"))
    assert (train.mean, train.std) == ((0.0,) * 3, (1.0,) * 3)
    flat = toy[1]["train_images"].transpose(0, 3, 1, 2).reshape(120, -1) / 255
    values, vectors = np.linalg.eigh(np.cov(flat, rowvar=False))
    expected = (flat - flat.mean(0)) @ (vectors / np.sqrt(values.clip(0) + 0.1)) @ vectors.T
    np.testing.assert_allclose(zca.apply(train.images).flatten(1), expected, atol=1e-5)
    final = Distilled.load(only(folder, "distill-*/distilled.safetensors"))
    assert torch.equal(final.zca.forward, zca.forward) and final.zca.digest == zca.digest
    pictures = final.pictures()
    distance = (pictures[:, None] - train.images[None]).abs().amax((2, 3, 4))
    assert distance.amin(1).max() < 1e-3 and distance.amin(1).max() > 0
    assert (final.images - pictures).abs().max() > 0.1
    audit = json.loads(only(folder, "audit-*/audit.json").read_text())
    assert min(audit["checks"][1]["statistic"]["per_image"]["zncc_16"]) > 0.999
    assert test.images.shape == (40, 3, 16, 16)


def test_a_whitened_set_is_not_released(whitened, capsys):
    options, folder = whitened
    medistill("run", folder, capsys, **options)
    told = medistill("release", folder, capsys, expect=2, **options)
    assert "data.zca: the set was distilled from whitened data" in told and len(told.strip().splitlines()) == 1
    assert not list(folder.glob("release-*"))


def test_experts_of_plain_and_whitened_data_do_not_mix(whitened, toy, tmp_path, capsys):
    options, _ = whitened
    medistill("experts", tmp_path, capsys, **options)
    told = medistill("experts", tmp_path, capsys, **{**options, "data__zca": "false"})
    assert "experts: 1 trained" in told
    assert len(list(tmp_path.glob("experts-*"))) == 2
    assert "there already" in medistill("experts", tmp_path, capsys, **options)


@pytest.mark.realdata
def test_the_shipped_cifar10_config_shrunk(little_cifar10, tmp_path, capsys, monkeypatch):
    """Without whitening, whose 3,072 eigenvectors take longer than all the rest."""
    monkeypatch.setenv("MEDISTILL_DATA", str(little_cifar10))
    config = "configs/cifar10.yaml"
    told = medistill("run", tmp_path / "run", capsys, config=config, data__zca="false", expect=2)
    assert "note: cifar-10-batches-py: not the official files" in told
    assert "evaluate: full data" in told and "audit: verdict" in told
    assert "so nothing is released" in told
    final = Distilled.load(only(tmp_path / "run", "distill-*/distilled.safetensors"))
    assert final.images.shape == (10, 3, 32, 32) and final.classes[3] == "cat" and final.zca is None
    assert final.mean == (0.4914, 0.4822, 0.4465)
    data = only(tmp_path / "run", "data-*")
    sets = {name: ImageSet.load(data / f"{name}.safetensors") for name in ("train", "val", "test")}
    assert len(sets["train"]) + len(sets["val"]) == 300 and len(sets["test"]) == 60
    both = [sum(pair) for pair in zip(sets["train"].counts, sets["val"].counts, strict=True)]
    assert sets["val"].counts == [round(0.15 * count) for count in both]


@pytest.mark.realdata
@pytest.mark.parametrize("zca", ["false", "true"])
def test_the_shipped_pneumoniamnist_config_shrunk(real_data, tmp_path, capsys, monkeypatch, zca):
    monkeypatch.setenv("MEDISTILL_DATA", str(real_data))
    signed = {"release__accept": "tester: a public benchmark"}
    told = medistill("run", tmp_path, capsys, config="configs/pneumoniamnist.yaml", data__zca=zca, **signed)
    assert "evaluate: random real" in told and "AUROC pneumonia" in told
    assert bool(list(tmp_path.glob("release-*"))) == (zca == "false")
    final = Distilled.load(only(tmp_path, "distill-*/distilled.safetensors"))
    assert final.images.shape == (2, 1, 28, 28) and final.classes == ("normal", "pneumonia")
    assert (final.zca is None) == (zca == "false")
