"""Downloads without a network: torchvision's own fetching is replaced by an archive made here."""

import hashlib
import pickle
import shutil
import socket
import tarfile
from http.client import IncompleteRead
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100, utils

from medistill.data import cifar
from medistill.data.download import fetch
from medistill.errors import UserError

LAYOUTS = {"CIFAR10": (cifar.CIFAR10, CIFAR10), "CIFAR100": (cifar.CIFAR100, CIFAR100)}


@pytest.fixture(params=LAYOUTS)
def published(request, tmp_path, monkeypatch):
    """(layout, archive): a little set whose checksums torchvision is made to list, packed as the official one is."""
    layout, listed = LAYOUTS[request.param]
    home = tmp_path / "server"
    folder = home / layout.folder
    folder.mkdir(parents=True)
    images = np.zeros((layout.classes, 3072), np.uint8)
    for name in (*layout.train, layout.test):
        batch = {b"data": images, layout.labels: [*range(layout.classes)]}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    names = [b"class %d" % number for number in range(layout.classes)]
    (folder / layout.meta).write_bytes(pickle.dumps({layout.names: names}, protocol=2))
    archive = home / listed.filename
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(folder, layout.folder)
    md5 = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in [archive, *folder.iterdir()]}
    monkeypatch.setattr(listed, "tgz_md5", md5[archive.name])
    monkeypatch.setattr(listed, "train_list", [[name, md5[name]] for name in layout.train])
    monkeypatch.setattr(listed, "test_list", [[layout.test, md5[layout.test]]])
    monkeypatch.setattr(listed, "meta", {"filename": layout.meta, "md5": md5[layout.meta]})
    return layout, archive


@pytest.fixture
def server(published, monkeypatch):
    """torchvision's transfer copies the archive instead; the list tells what was asked for."""
    asked = []

    def transfer(url, filename, *more):
        asked.append((url, socket.getdefaulttimeout()))
        shutil.copy(published[1], filename)

    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, max_hops: url)
    monkeypatch.setattr(utils, "_urlretrieve", transfer)
    return asked


def broken(monkeypatch, error):
    """torchvision's transfer fails after some bytes."""

    def transfer(url, filename, *more):
        Path(filename).write_bytes(b"a few bytes")
        raise error

    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, max_hops: url)
    monkeypatch.setattr(utils, "_urlretrieve", transfer)


def refused(place, layout):
    with pytest.raises(UserError) as caught:
        fetch(place, layout)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("named", ["folder", "parent", "parent that is there"])
def test_the_official_files_arrive_whole(published, server, tmp_path, named):
    """In the folder that was named or below it, with nothing else beside; a second call asks for nothing."""
    layout, _ = published
    parent = tmp_path / "new" / "data"
    if named == "parent that is there":
        parent.mkdir(parents=True)
    place = parent / layout.folder if named == "folder" else parent
    for _ in range(2):
        fetch(place, layout)
        assert [path.name for path in parent.iterdir()] == [layout.folder]
        assert {path.name for path in (tmp_path / "new").iterdir()} == {"data"}
        assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "new", tmp_path / "server"])
    content = cifar.read(cifar.files(place, layout), (), layout)
    assert content.notes == () and content.classes[3] == "class 3"
    assert len(server) == 1 and server[0][0].endswith(published[1].name)
    assert server[0][1] == 60 and socket.getdefaulttimeout() is None


@pytest.mark.parametrize(
    "error",
    [URLError(OSError(101, "Network is unreachable")), TimeoutError("timed out"), IncompleteRead(b"x", 9)],
    ids=["no network", "silence", "cut off"],
)
def test_a_transfer_that_fails_leaves_nothing_behind(published, tmp_path, monkeypatch, error):
    layout, _ = published
    broken(monkeypatch, error)
    told = refused(tmp_path / "new" / layout.folder, layout)
    assert told.startswith(f"data.download: {layout.title} could not be fetched (") and "with a network" in told
    assert [path.name for path in tmp_path.iterdir()] == ["server"] and socket.getdefaulttimeout() is None


def test_another_archive_than_the_official_one_leaves_nothing_behind(published, server, tmp_path):
    layout, archive = published
    archive.write_bytes(archive.read_bytes() + b"x")
    assert "could not be fetched (File not found or corrupted.)" in refused(tmp_path / "new", layout)
    assert [path.name for path in tmp_path.iterdir()] == ["server"]


def test_a_file_of_the_archive_with_another_checksum(published, server, tmp_path, monkeypatch):
    layout, _ = published
    monkeypatch.setattr(LAYOUTS[layout.torchvision][1], "test_list", [[layout.test, "0" * 32]])
    assert f"{layout.test} has another checksum" in refused(tmp_path / "new", layout)
    assert [path.name for path in tmp_path.iterdir()] == ["server"]


def test_what_is_there_is_never_touched(published, server, tmp_path):
    """A subset is left alone, however its folder is called; half a folder is told."""
    layout, _ = published
    subset = tmp_path / "new" / layout.folder
    shutil.copytree(tmp_path / "server" / layout.folder, subset)
    (subset / layout.test).write_bytes(b"other")
    renamed = shutil.copytree(subset, tmp_path / "mine")
    for place in (subset, subset.parent, renamed):
        fetch(place, layout)
    assert (subset / layout.test).read_bytes() == b"other" and len(list(renamed.iterdir())) == len(
        list(subset.iterdir())
    )
    (subset / layout.meta).unlink()
    told = refused(subset.parent, layout)
    assert told.startswith(f"{layout.folder}: no {layout.meta} in it; move it away") and server == []


def test_a_read_only_place_is_one_sentence(published, server, tmp_path):
    layout, _ = published
    (tmp_path / "file").write_text("no folder")
    assert "could not be fetched (" in refused(tmp_path / "file" / "data", layout)
