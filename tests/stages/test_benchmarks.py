"""Public benchmarks through the stages: check, the shipped configs shrunk, and whitened data from end to end."""

import hashlib
import json
import shutil
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

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
        (
            {"data__cohort": "gone.npz", "data__download": "true"},
            "torchvision does not fetch medmnist; get it from the",
        ),
        ({"data__adapter": "tiny_imagenet", "data__cohort": "gone", "data__download": "true"}, "CS231n of Stanford"),
        ({"data__adapter": "films", "data__download": "true"}, "data.adapter films reads files of your own"),
        ({"data__adapter": "image_folder", "data__download": "true"}, "data.adapter image_folder reads files of your"),
    ],
)
def test_mistakes_are_one_line(toy, tmp_path, capsys, change, message):
    told = medistill("check", tmp_path / "run", capsys, expect=2, **{**toy[0], **change})
    assert message in told and len(told.strip().splitlines()) == 1


def test_a_loaded_benchmark_still_wants_one_of_its_classes(toy, tmp_path, capsys):
    medistill("experts", tmp_path, capsys, **toy[0])
    told = medistill("experts", tmp_path, capsys, expect=2, **{**toy[0], "data__positive": "2"})
    assert "data.positive is '2'" in told


def test_what_may_be_fetched_does_not_decide_the_images(toy, tmp_path, capsys):
    medistill("experts", tmp_path, capsys, **toy[0])
    assert "there already" in medistill("experts", tmp_path, capsys, **toy[0], data__download="true")
    only(tmp_path, "data-*")


def test_an_archive_beside_the_place_is_to_be_unpacked(tmp_path, capsys, monkeypatch):
    """The config names the folder that it unpacks to."""
    monkeypatch.setenv("MEDISTILL_DATA", str(tmp_path))
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "cifar-10-python.tar.gz").write_bytes(b"")
    told = medistill("check", tmp_path / "run", capsys, config="configs/cifar10.yaml", expect=2)
    assert "cifar-10-python.tar.gz beside it is still packed; unpack it" in told and len(told.strip().splitlines()) == 1


def test_a_download_without_a_network_is_one_line(tmp_path, capsys, monkeypatch):
    def offline(*arguments, **options):
        raise URLError(OSError(101, "Network is unreachable"))

    monkeypatch.setattr(torchvision.datasets.utils, "_get_redirect_url", offline)
    monkeypatch.setenv("MEDISTILL_DATA", str(tmp_path / "data"))
    asked = {"config": "configs/cifar100.yaml", "data__download": "true", "distill__max_start_epoch": 1, "expect": 2}
    told = medistill("check", tmp_path / "run", capsys, **asked)
    assert "CIFAR-100 could not be fetched (<urlopen error [Errno 101] Network is unreachable>)" in told
    assert len(told.strip().splitlines()) == 1 and list(tmp_path.iterdir()) == []


@pytest.mark.realdata
def test_a_download_that_was_asked_for(little_cifar10, tmp_path, capsys, monkeypatch):
    """It lands where data.cohort says below MEDISTILL_DATA; without being asked, nothing is fetched."""
    official = torchvision.datasets.CIFAR10
    folder = little_cifar10 / "cifar10" / "cifar-10-batches-py"
    md5 = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    monkeypatch.setattr(official, "train_list", [[name, md5[name]] for name, _ in official.train_list])
    monkeypatch.setattr(official, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(official, "meta", {"filename": "batches.meta", "md5": md5["batches.meta"]})

    def fetch(url, root, **checksum):
        shutil.copytree(folder, Path(root) / folder.name)

    monkeypatch.setattr(torchvision.datasets.utils, "download_and_extract_archive", fetch)
    monkeypatch.setenv("MEDISTILL_DATA", str(tmp_path / "new"))
    told = medistill("check", tmp_path / "run", capsys, config="configs/cifar10.yaml", expect=2)
    assert "neither in the current folder nor" in told and not (tmp_path / "new").exists()
    parent = tmp_path / "new" / "cifar10"
    parent.mkdir(parents=True)
    unasked = {"config": "configs/cifar10.yaml", "data__cohort": "cifar10", "expect": 2}
    assert "no batches.meta" in medistill("check", tmp_path / "run", capsys, **unasked) and not list(parent.iterdir())
    told = medistill("check", tmp_path / "run", capsys, config="configs/cifar10.yaml", data__download="true")
    assert "check: the cohort is ready" in told and "not the official files" not in told
    assert len(list((parent / folder.name).iterdir())) == 7


def test_an_image_folder(tmp_path, capsys):
    """Pictures of 30 by 20 pixels, one class in colour: the images are square, the classes the folders'."""
    rng = np.random.default_rng(0)
    for split, count in {"train": 20, "test": 4}.items():
        for name in ("left", "right"):
            (tmp_path / "mine" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (20, 30, 3) if name == "left" else (20, 30), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "mine" / split / name / f"{number}.png")
    options = {"data__adapter": "image_folder", "data__cohort": tmp_path / "mine", "data__positive": "right"}
    told = medistill("experts", tmp_path, capsys, **options, data__size=16, net__depth=2)
    assert "note: mine: each image counts as a person of its own" in told
    data = only(tmp_path, "data-*")
    sets = {name: ImageSet.load(data / f"{name}.safetensors") for name in ("train", "val", "test")}
    assert [sets[name].counts for name in sets] == [[17, 17], [3, 3], [4, 4]]
    assert sets["train"].images.shape == (34, 3, 16, 16) and sets["train"].mean == (0.5, 0.5, 0.5)


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


@pytest.mark.realdata
def test_the_shipped_cifar100_config_shrunk(real_data, tmp_path, capsys, monkeypatch):
    """Up to the distilled set: a report on a hundred classes takes longer than all the rest."""
    monkeypatch.setenv("MEDISTILL_DATA", str(real_data))
    config = {"config": "configs/cifar100.yaml", "data__zca": "false", "distill__max_start_epoch": 1}
    told = medistill("experts", tmp_path, capsys, **config)
    assert "note: cifar-100-python: not the official files" in told
    medistill("distill", tmp_path, capsys, **config)
    final = Distilled.load(only(tmp_path, "distill-*/distilled.safetensors"))
    assert final.images.shape == (100, 3, 32, 32) and final.classes[8] == "bicycle"
    assert final.mean == (0.5071, 0.4865, 0.4409)
    data = only(tmp_path, "data-*")
    sets = {name: ImageSet.load(data / f"{name}.safetensors") for name in ("train", "val", "test")}
    assert len(sets["train"]) + len(sets["val"]) == 1117 and len(sets["test"]) == 916
    both = [sum(pair) for pair in zip(sets["train"].counts, sets["val"].counts, strict=True)]
    assert sets["val"].counts == [round(0.15 * count) for count in both]


@pytest.fixture
def little_tiny_imagenet(real_data, tmp_path):
    """A data folder that holds three real classes of Tiny ImageNet: 20 training and 4 validation images of each."""
    whole, little = real_data / "tiny-imagenet-200", tmp_path / "data" / "tiny-imagenet-200"
    (little / "val" / "images").mkdir(parents=True)
    rows = [line.split("\t") for line in (whole / "val" / "val_annotations.txt").read_text().splitlines()]
    ids = ["n04285008", "n02403003", "n02666196"]
    kept = [row for wnid in ids for row in [row for row in rows if row[1] == wnid][:4]]
    for name, *_ in kept:
        shutil.copy(whole / "val" / "images" / name, little / "val" / "images")
    for wnid in ids:
        (little / "train" / wnid / "images").mkdir(parents=True)
        for path in sorted((whole / "train" / wnid / "images").iterdir())[:20]:
            shutil.copy(path, little / "train" / wnid / "images")
    (little / "val" / "val_annotations.txt").write_text("".join("\t".join(row) + "\n" for row in kept))
    (little / "wnids.txt").write_text("\n".join(ids))
    shutil.copy(whole / "words.txt", little)
    return tmp_path / "data"


@pytest.mark.realdata
def test_the_shipped_tiny_imagenet_config_shrunk(little_tiny_imagenet, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MEDISTILL_DATA", str(little_tiny_imagenet))
    config = {"config": "configs/tiny_imagenet.yaml", "distill__max_start_epoch": 1}
    assert "note: tiny-imagenet-200: not the official files" in medistill("experts", tmp_path, capsys, **config)
    medistill("distill", tmp_path, capsys, **config)
    final = Distilled.load(only(tmp_path, "distill-*/distilled.safetensors"))
    assert final.images.shape == (3, 3, 64, 64) and final.classes == ("ox", "abacus", "sports car")
    data = only(tmp_path, "data-*")
    counts = [ImageSet.load(data / f"{name}.safetensors").counts for name in ("train", "val", "test")]
    assert counts == [[17] * 3, [3] * 3, [4] * 3]
