"""Tiny ImageNet's layout: values against what was written, every mistake in it told, and the real subset."""

import shutil

import numpy as np
import pytest
from PIL import Image

from medistill.data import tiny_imagenet
from medistill.errors import UserError

IDS = ("n03", "n01", "n02")  # as wnids.txt lists them: in no order
WORDS = "n01\tgoldfish, Carassius auratus\nn02\tcrane\nn03\tcrane, derrick\nn99\tentity\n"


def flat(path, value):
    """A JPEG of one colour, which JPEG keeps where it is gray; a PIL mode L file for a number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = "L" if isinstance(value, int) else "RGB"
    Image.new(mode, (64, 64), value).save(path, quality=95)


@pytest.fixture
def folder(tmp_path):
    """Two training images of each class, of gray 10, 11, 20, 21, 30, 31, and one validation image of 100 times."""
    root = tmp_path / "tiny-imagenet-200"
    for wnid in IDS:
        shade = 10 * int(wnid[1:])
        flat(root / "train" / wnid / "images" / f"{wnid}_0.JPEG", shade)
        flat(root / "train" / wnid / "images" / f"{wnid}_1.JPEG", (shade + 1,) * 3)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("a box\n")
    rows = {"val_0.JPEG": "n02", "val_1.JPEG": "n01", "val_10.JPEG": "n03"}
    for name, wnid in rows.items():
        flat(root / "val" / "images" / name, (100 + int(wnid[1:]),) * 3)
    annotations = "".join(f"{name}\t{wnid}\t0\t0\t63\t63\n" for name, wnid in rows.items())
    (root / "val" / "val_annotations.txt").write_text(annotations)
    flat(root / "test" / "images" / "test_0.JPEG", 200)
    (root / "wnids.txt").write_text("\n".join(IDS) + "\n")
    (root / "words.txt").write_text(WORDS)
    return root


def read(place, classes=()):
    return tiny_imagenet.read(tiny_imagenet.files(place), classes)


def refused(place, classes=()):
    with pytest.raises(UserError) as caught:
        read(place, classes)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("where", ["folder", "parent"])
def test_images_labels_and_split(folder, where):
    """Val is the test split, test/ stays out, and the classes stand in the order of their sorted ids."""
    content = read(folder if where == "folder" else folder.parent)
    shades = [10, 11, 20, 21, 30, 31, 102, 101, 103]
    assert content.images.shape == (9, 3, 64, 64)
    expected = np.broadcast_to(np.array(shades)[:, None, None, None], (9, 3, 64, 64))
    assert np.array_equal(content.images, expected)  # those of PIL's mode L have three equal channels
    assert content.labels.tolist() == [0, 0, 1, 1, 2, 2, 1, 0, 2]
    assert content.split.tolist() == ["train"] * 6 + ["test"] * 3
    assert content.classes == ("goldfish", "crane (n02)", "crane (n03)")
    assert content.names[3] == "train/n02/images/n02_1.JPEG" and content.names[8] == "val/images/val_10.JPEG"
    assert (content.mean, content.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_channels_and_axes(folder):
    """A red left half stays on the left, and in the first channel."""
    picture = Image.new("RGB", (64, 64), (0, 0, 0))
    picture.paste((255, 0, 0), (0, 0, 32, 64))
    picture.save(folder / "train" / "n01" / "images" / "n01_0.JPEG", quality=95, subsampling=0)
    image = read(folder).images[0].astype(int)
    assert image[0, :, :30].min() > 240 and image[0, :, 34:].max() < 15 and image[1:].max() < 25


def test_official_numbers_are_told_apart_from_a_subset(folder, monkeypatch):
    assert read(folder).notes == (f"tiny-imagenet-200: {tiny_imagenet.NOT_OFFICIAL}",)
    assert tiny_imagenet.OFFICIAL == (200, 500, 50)
    for numbers, told in (((3, 2, 1), True), ((4, 2, 1), False), ((3, 3, 1), False), ((3, 2, 2), False)):
        monkeypatch.setattr(tiny_imagenet, "OFFICIAL", numbers)
        assert ("the official number of images" in read(folder).notes[0]) is told
    monkeypatch.setattr(tiny_imagenet, "OFFICIAL", (3, 2, 1))
    flat(folder / "train" / "n01" / "images" / "n01_2.JPEG", 12)
    assert read(folder).notes == (f"tiny-imagenet-200: {tiny_imagenet.NOT_OFFICIAL}",)


def test_class_names(folder):
    names = ["goldfish", "crane (n02)", "crane (n03)"]
    assert read(folder, names).classes == tuple(names)
    assert "leave data.classes out" in refused(folder, names[::-1])[0]
    (folder / "words.txt").write_text("n01\tgoldfish\n")
    assert read(folder).classes == ("goldfish", "n02", "n03")


def test_everything_wrong_with_the_lists_is_told_at_once(folder):
    with (folder / "val" / "val_annotations.txt").open("a") as file:
        file.write("val_77.JPEG\tn01\t0\t0\t1\t1\nval_0.JPEG\tn02\t0\t0\t1\t1\nhalf a row")
    flat(folder / "val" / "images" / "val_5.JPEG", 1)
    flat(folder / "train" / "n04" / "images" / "n04_0.JPEG", 1)
    shutil.rmtree(folder / "train" / "n02" / "images")
    lines = refused(folder)
    assert lines[:-1] == [
        "val/val_annotations.txt line 5: no image and class, or an image named before",
        "val/val_annotations.txt line 6: no image and class, or an image named before",
        "val/images/val_5.JPEG: no row in val/val_annotations.txt",
        "val/val_annotations.txt: no file half a row in val/images",
        "val/val_annotations.txt: no file val_77.JPEG in val/images",
        "n04: has images, but is not in wnids.txt",
        "n02: in wnids.txt, but without training images",
    ]
    assert lines[-1].startswith("tiny-imagenet-200: its lists and images do not go together; fetch")
    (folder / "wnids.txt").write_text("n01\n")
    assert "wnids.txt: 1 classes" in refused(folder)


def test_every_damaged_image_is_told_at_once(folder):
    whole = (folder / "train" / "n01" / "images" / "n01_0.JPEG").read_bytes()
    (folder / "train" / "n01" / "images" / "n01_0.JPEG").write_bytes(whole[: len(whole) // 2])
    (folder / "train" / "n02" / "images" / "n02_1.JPEG").write_bytes(b"")
    (folder / "train" / "n03" / "images" / "n03_0.JPEG").write_bytes(b"<html>not found</html>")
    Image.new("RGB", (64, 32)).save(folder / "val" / "images" / "val_1.JPEG")
    Image.new("CMYK", (64, 64)).save(folder / "val" / "images" / "val_10.JPEG")
    lines = refused(folder)
    starts = [
        f"train/n01/images/n01_0.JPEG: cut off, damaged, or no PNG or JPEG ({len(whole) // 2} bytes, OSError)",
        "train/n02/images/n02_1.JPEG: cut off, damaged, or no PNG or JPEG (0 bytes",
        "train/n03/images/n03_0.JPEG: cut off, damaged, or no PNG or JPEG (22 bytes",
        "val/images/val_1.JPEG: 64 by 32 pixels instead of 64 by 64",
        "val/images/val_10.JPEG: of PIL's mode CMYK; save it as gray or RGB of 8 bits",
        "tiny-imagenet-200: some images cannot be read; fetch Tiny ImageNet again",
    ]
    assert len(lines) == len(starts) and all(map(str.startswith, lines, starts))


def test_a_long_list_is_cut(folder):
    for number in range(30):
        (folder / "train" / "n01" / "images" / f"n01_{number}.JPEG").write_bytes(b"")
    lines = refused(folder)
    assert len(lines) == 22 and lines[20] == "... and 10 more"


def test_missing_parts_and_a_packed_archive(folder):
    (folder / "words.txt").unlink()
    shutil.rmtree(folder / "val")
    assert "no words.txt, val/val_annotations.txt, val/images in it" in refused(folder)[0]
    place = folder.parent / "download"
    place.mkdir()
    (place / "tiny-imagenet-200.zip").write_bytes(b"")
    for named in (place, place / "tiny-imagenet-200.zip"):
        assert refused(named)[0].startswith("tiny-imagenet-200.zip: still packed; unpack it")


@pytest.mark.realdata
def test_the_real_subset(real_data):
    """Twenty classes; 134 of the 135 gray files, for one stands in test/; the rest counted and labelled by hand."""
    place = real_data / "tiny-imagenet-200"
    content = read(place)
    assert np.bincount(content.labels[content.split == "train"]).tolist() == [200] * 20
    rows = [line.split("\t") for line in (place / "val" / "val_annotations.txt").read_text().splitlines()]
    ids = sorted((place / "wnids.txt").read_text().split())
    by_name = {f"val/images/{name}": ids.index(wnid) for name, wnid, *_ in rows}
    told = dict(zip(content.names, content.labels.tolist(), strict=True))
    assert {name: told[name] for name in by_name} == by_name and len(by_name) == 1000
    modes = {}
    for name in content.names:
        with Image.open(place / name) as picture:
            modes[name] = picture.mode
    gray = [index for index, name in enumerate(content.names) if modes[name] == "L"]
    assert len(gray) == 134 and set(modes.values()) == {"L", "RGB"}
    assert sum(Image.open(path).mode == "L" for path in (place / "test" / "images").iterdir()) == 1
    assert (content.images[gray] == content.images[gray][:, :1]).all()
    with Image.open(place / content.names[gray[0]]) as picture:
        assert np.array_equal(content.images[gray[0], 2], np.asarray(picture))
    assert content.classes[:3] == ("tailed frog", "slug", "cougar") and content.classes[16] == "sports car"
    assert len(set(content.classes)) == 20 and "not the official files" in content.notes[0]
