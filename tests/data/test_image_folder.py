"""Folders of pictures: values against what was written, and everything wrong with them told at once."""

import numpy as np
import pytest
from PIL import Image

from medistill.data import image_folder
from medistill.errors import UserError


def save(path, pixels, **how):
    """Write an array (rows, cols) or (rows, cols, channels) of bytes as a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path, **how)


def plain(value, shape=(16, 16)):
    return np.full(shape, value, np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Gray pictures of 16 px and one shade: 1 to 4 of the training classes, 5 and 6 of the test classes."""
    root = tmp_path / "mine"
    shades = iter(range(1, 7))
    for place in ("train/cat", "train/dog"):
        for number in range(2):
            save(root / place / f"{number}.png", plain(next(shades)))
    for place in ("test/cat", "test/dog"):
        save(root / place / "0.png", plain(next(shades)))
    return root


def read(place, classes=(), size=16):
    return image_folder.read(image_folder.files(place), classes, size)


def refused(place, classes=()):
    with pytest.raises(UserError) as caught:
        read(place, classes)
    return str(caught.value).splitlines()


def test_images_labels_and_split(folder):
    (folder / ".DS_Store").write_bytes(b"")
    (folder / "train" / "cat" / "Thumbs.db").write_bytes(b"")
    content = read(folder)
    assert content.images.shape == (6, 1, 16, 16) and content.images[:, 0, 3, 5].tolist() == [1, 2, 3, 4, 5, 6]
    assert content.labels.tolist() == [0, 0, 1, 1, 0, 1] and content.classes == ("cat", "dog")
    assert content.split.tolist() == ["train"] * 4 + ["test"] * 2
    assert content.names[2] == "train/dog/0.png"
    assert (content.mean, content.std) == ((0.5,), (0.5,))
    assert content.notes == (
        "mine: each image counts as a person of its own; films of patients belong in data.adapter films, which keeps a "
        "patient's films together",
    )


def test_a_validation_split_and_the_order_of_classes(folder):
    save(folder / "val" / "cat" / "a.jpg", plain(7))
    save(folder / "val" / "dog" / "b.JPEG", plain(8))
    content = read(folder, ["dog", "cat"])
    assert content.split.tolist() == ["train"] * 4 + ["val"] * 2 + ["test"] * 2
    assert content.labels.tolist() == [1, 1, 0, 0, 1, 0, 1, 0] and content.classes == ("dog", "cat")
    assert content.images[:, 0, 0, 0].tolist() == [1, 2, 3, 4, 7, 8, 5, 6]


def test_one_colour_makes_three_channels_of_all(folder):
    red = np.zeros((16, 16, 3))
    red[..., 0] = 200
    save(folder / "train" / "cat" / "1.png", red)
    content = read(folder)
    assert content.images.shape == (6, 3, 16, 16) and content.mean == (0.5,) * 3
    assert content.images[:, :, 0, 0].tolist() == [[1] * 3, [200, 0, 0], [3] * 3, [4] * 3, [5] * 3, [6] * 3]


def test_centre_square_then_size(folder):
    """64 by 32: the middle 32 columns, of which nothing else bleeds in; then the mean of 2 by 2 inside an area."""
    wide = np.zeros((32, 64))
    wide[:, :16], wide[:, 48:] = 250, 250  # cut away
    wide[:16, 16:32], wide[16:, 16:32], wide[:16, 32:48] = 40, 80, 120
    save(folder / "train" / "cat" / "0.png", wide)
    save(folder / "train" / "cat" / "1.png", wide.T)
    save(folder / "train" / "dog" / "0.png", plain(9, (8, 8)))
    content = read(folder)
    image = content.images[0, 0]
    assert (image[:7, :7] == 40).all() and (image[9:, :7] == 80).all()
    assert (image[:7, 9:] == 120).all() and (image[9:, 9:] == 0).all()
    assert np.array_equal(content.images[1, 0], image.T)
    assert (content.images[2] == 9).all()


def test_pictures_in_other_modes(folder):
    """Opaque alpha, palettes and black-and-white are read; a turned picture is put upright."""
    left = np.zeros((16, 16), np.uint8)
    left[:, :8] = 100
    opaque = np.stack([left, left, left, plain(255)], axis=-1)
    save(folder / "train" / "cat" / "0.png", opaque)
    Image.fromarray(left).convert("P").save(folder / "train" / "cat" / "1.png")
    Image.fromarray(left > 0).save(folder / "train" / "dog" / "0.png")
    turned = Image.Exif()
    turned[0x0112] = 3  # half a turn
    save(folder / "train" / "dog" / "1.png", left, exif=turned)
    images = read(folder).images[:4, 0]
    assert np.array_equal(images[0], left) and np.array_equal(images[1], left)
    assert np.array_equal(images[2], (left > 0) * 255) and np.array_equal(images[3], left[::-1, ::-1])


def test_every_bad_picture_is_told_at_once(folder):
    clear = np.stack([plain(1), plain(1), plain(1), plain(254)], axis=-1)
    save(folder / "train" / "cat" / "0.png", clear)
    Image.fromarray(np.full((16, 16), 1000, np.uint16)).save(folder / "train" / "cat" / "1.png")
    save(folder / "train" / "dog" / "0.jpg", np.random.default_rng(0).integers(0, 256, (64, 64)))
    whole = (folder / "train" / "dog" / "0.jpg").read_bytes()
    (folder / "train" / "dog" / "0.jpg").write_bytes(whole[: len(whole) // 2])
    picture = (folder / "train" / "dog" / "1.png").read_bytes()
    (folder / "train" / "dog" / "1.png").write_bytes(picture[:50])
    Image.new("L", (16, 16)).save(folder / "test" / "cat" / "0.png", format="GIF")
    lines = refused(folder)
    assert lines[0] == "train/cat/0.png: transparent in parts; save it without transparency"
    assert lines[1].startswith("train/cat/1.png: of PIL's mode I") and "8 bits" in lines[1]
    assert lines[2].startswith(f"train/dog/0.jpg: cut off, damaged, or no PNG or JPEG ({len(whole) // 2} bytes")
    assert lines[3].startswith("train/dog/1.png: cut off, damaged, or no PNG or JPEG (50 bytes")
    assert lines[4].startswith("test/cat/0.png: cut off, damaged, or no PNG or JPEG")
    assert lines[5] == "mine: some pictures cannot be used; mend or remove them" and len(lines) == 6


def test_everything_wrong_with_the_folders_is_told_at_once(folder):
    (folder / "notes.txt").write_text("a note")
    (folder / "train" / "stray.png").write_bytes(b"")
    (folder / "train" / "dog" / "notes.txt").write_text("a note")
    (folder / "train" / "dog" / "more").mkdir()
    (folder / "train" / "bird").mkdir()
    (folder / "val").mkdir()
    lines = refused(folder)
    assert lines[:-1] == [
        "val/: empty",
        "notes.txt: no folder of a split",
        "train/bird/: empty",
        "train/dog/more: no PNG or JPEG",
        "train/dog/notes.txt: no PNG or JPEG",
        "train/stray.png: no folder of a class",
    ]
    assert "holds train/CLASS/FILE and test/CLASS/FILE" in lines[-1]


def test_folders_without_a_split(tmp_path):
    save(tmp_path / "cat" / "0.png", plain(1))
    save(tmp_path / "dog" / "0.png", plain(1))
    assert refused(tmp_path)[:-1] == [
        "train/: missing",
        "test/: missing",
        "cat: no folder of a split",
        "dog: no folder of a split",
    ]


def test_every_split_has_every_class(folder):
    save(folder / "train" / "bird" / "0.png", plain(1))
    save(folder / "test" / "fish" / "0.png", plain(1))
    assert refused(folder)[:-1] == ["test/: no class bird", "train/: no class fish"]
    assert refused(folder, ["cat", "dog"])[:-1] == ["test/: fish, not a class", "train/: bird, not a class"]


def test_one_class(tmp_path):
    for split in ("train", "test"):
        save(tmp_path / split / "cat" / "0.png", plain(1))
    assert refused(tmp_path)[0].endswith("one class, cat; a classifier needs a folder each of two or more")


def test_a_packed_archive_and_a_file(tmp_path):
    archive, file = tmp_path / "mine.zip", tmp_path / "mine.csv"
    archive.write_bytes(b"")
    file.write_text("path,label\n")
    for named in (archive, tmp_path):
        assert refused(named) == ["mine.zip: still packed; unpack it, and let data.cohort name the folder"]
    assert refused(file) == ["mine.csv: a file; let data.cohort name the folder that holds train/ and test/"]
