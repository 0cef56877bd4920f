import csv
import filecmp
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from scipy.ndimage import map_coordinates
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import cross_entropy

from medistill.data import phantom_files
from medistill.data.film import read_film
from medistill.data.phantom import CLASSES, START, film, films
from medistill.data.phantom_anatomy import Pose, draw_pose
from medistill.data.phantom_files import NOTICE, SITES, Study, dataset, study, write_cohort
from medistill.errors import UserError
from medistill.nets import Architecture

COHORT = {"patients": 18, "films": 2, "size": 64, "seed": 3}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("phantom") / "cohort", **COHORT)


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def indices(row: dict[str, str]) -> tuple[int, int]:
    patient, number = Path(row["path"]).stem.split("_")
    return int(patient[1:]), int(number)


def drawn(row: dict[str, str]) -> np.ndarray:
    return film(COHORT["seed"], *indices(row), CLASSES.index(row["label"]), COHORT["size"])


def test_a_film_is_its_indices_alone():
    first = film(7, 4, 1, 2, 48)
    film(8, 5, 0, 1, 48)
    assert first.dtype == np.float32 and np.array_equal(first, film(7, 4, 1, 2, 48))
    for other in ((8, 4, 1, 2), (7, 5, 1, 2), (7, 4, 2, 2), (7, 4, 1, 1)):
        assert not np.array_equal(first, film(*other, 48))


@pytest.mark.parametrize("size", [32, 64, 129])
def test_values_fill_the_range_and_stay_in_it(size: int):
    stack = np.stack([film(0, patient, 0, patient % 3, size) for patient in range(9)])
    assert stack.shape == (9, size, size) and stack.min() >= 0 and stack.max() <= 1
    assert np.all(np.ptp(stack, axis=(1, 2)) > 0.6)


def test_air_is_dark_and_the_spine_bright():
    """Centre of each lung against the spine between them and the air beside the neck, averaged over films."""
    mean = np.mean([film(0, patient, 0, 0, 64) for patient in range(40)], axis=0)
    right, spine, left, air = mean[22, 20], mean[22, 32], mean[22, 44], mean[2, 10]
    assert air < 0.15 < min(right, left) and max(right, left) < spine - 0.25


def test_size_changes_the_sampling_and_not_the_film():
    small, large = film(1, 2, 0, 2, 64), film(1, 2, 0, 2, 128)
    pooled = large.reshape(64, 2, 64, 2).mean((1, 3))
    assert np.corrcoef(small.ravel(), pooled.ravel())[0, 1] > 0.98


def test_the_label_changes_the_lungs_only():
    """Anatomy and exposure are the patient's and the film's: a finding brightens, and lungs alone."""
    for patient in range(6):
        normal, pneumonia, covid = (film(0, patient, 0, label, 64) for label in range(3))
        for sick in (pneumonia, covid):
            assert (sick - normal).max() > 0.1 and (sick - normal).min() > -0.05
            assert np.mean(np.abs(sick - normal) > 1e-3) < 0.4


def test_covid_is_bilateral_and_pneumonia_is_not():
    def shares(label: int) -> np.ndarray:
        """The part of the added density that lies in the fainter half, one number a patient."""
        added = np.stack([film(0, p, 0, label, 64) - film(0, p, 0, 0, 64) for p in range(40)])
        halves = np.stack([added[:, :, :32].sum((1, 2)), added[:, :, 32:].sum((1, 2))])
        return halves.min(0) / halves.sum(0)

    assert np.median(shares(2)) > 0.25 and np.median(shares(1)) < 0.02


def test_films_of_one_patient_resemble_each_other():
    """Pairs of one patient correlate more than pairs of two, and far more so once the pose is undone."""
    places = list(product(range(60), range(3)))
    plain = [film(0, patient, number, 0, 48) for patient, number in places]
    undone = [upright(each, draw_pose(0, *place)) for each, place in zip(plain, places, strict=True)]
    owner = np.array([patient for patient, _ in places])
    same, different = likeness(np.stack(plain), owner)
    assert same > different + 0.005
    same, different = likeness(np.stack(undone), owner)
    assert same > 0.9 and same > different + 0.03


def upright(image: np.ndarray, pose: Pose) -> np.ndarray:
    """The middle of the film in the patient's coordinates: pixels of [-.6, .6]^2."""
    v, u = np.mgrid[-0.6:0.6:36j, -0.6:0.6:36j]
    cos, sin = pose.scale * np.cos(pose.angle), pose.scale * np.sin(pose.angle)
    x, y = cos * u - sin * v + pose.shift[0], sin * u + cos * v + pose.shift[1]
    return map_coordinates(image, [(y + 1) * len(image) / 2 - 0.5, (x + 1) * len(image) / 2 - 0.5], order=1)


def likeness(stack: np.ndarray, owner: np.ndarray) -> tuple[float, float]:
    """Mean correlation of one patient's films, and of different patients'."""
    table, same = np.corrcoef(stack.reshape(len(stack), -1)), owner[:, None] == owner
    return table[same & ~np.eye(len(stack), dtype=bool)].mean(), table[~same].mean()


def test_the_public_start_shares_no_patient_with_a_cohort():
    images, labels = films(2, 32, seed=5)
    assert images.shape == (6, 1, 32, 32) and images.dtype == torch.float32
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert np.array_equal(images[3, 0].numpy(), film(5, START + 3, 0, 1, 32))
    assert not np.array_equal(images[3, 0].numpy(), film(5, 3, 0, 1, 32))
    assert films(0, 32, seed=5)[0].shape == (0, 1, 32, 32)


def test_classes_formats_sites_and_patients_are_balanced(cohort: Path):
    table = rows(cohort)
    assert tuple(table[0]) == ("path", "label", "patient_id", "view", "sex", "age", "site")
    assert Counter(row["label"] for row in table) == dict.fromkeys(CLASSES, 12)
    assert set(Counter(row["patient_id"] for row in table).values()) == {2}
    facts = [study(COHORT["seed"], *indices(row)) for row in table]
    formats = Counter((row["label"], fact.kind) for row, fact in zip(table, facts, strict=True))
    assert formats == dict.fromkeys(product(CLASSES, ("PNG", "MONOCHROME1", "MONOCHROME2")), 4)
    assert Counter((row["label"], row["site"]) for row in table) == dict.fromkeys(
        product(CLASSES, ("north", "south", "west")), 4
    )
    assert {row["view"] for row in table} == {"PA", "AP"} and {row["sex"] for row in table} == {"F", "M"}


def test_one_film_a_patient_does_not_tie_the_format_to_class_or_site():
    kinds = Counter((patient % 3, study(0, patient, 0).kind, study(0, patient, 0).site.name) for patient in range(27))
    assert len(kinds) == 27


def test_every_file_says_that_it_is_synthetic(cohort: Path):
    assert "SYNTHETIC PHANTOM" in (cohort.parent / "README.txt").read_text()
    for row in rows(cohort):
        path = cohort.parent / row["path"]
        if path.suffix == ".png":
            assert Image.open(path).text["Comment"] == NOTICE
            continue
        ds = pydicom.dcmread(path)
        assert ds.SyntheticData == "YES" and str(ds.PatientName).startswith("PHANTOM^")
        assert ds.SeriesDescription == ds.ImageComments == NOTICE
        assert (ds.PatientID, ds.ViewPosition, ds.PatientSex) == (row["patient_id"], row["view"], row["sex"])
        assert ds.PatientAge == f"{int(row['age']):03d}Y"
        assert (ds.BitsAllocated, ds.BitsStored, ds.HighBit) == (16, 12, 11)
        assert ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID


def test_uids_are_unique(cohort: Path):
    sets = [pydicom.dcmread(path) for path in cohort.parent.glob("films/*.dcm")]
    uids = [uid for ds in sets for uid in (ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID)]
    assert len(set(uids)) == 3 * 24 and all(uid.is_valid for uid in uids)


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
def test_both_encodings_of_a_film_agree_after_inversion(site):
    pixels = film(0, 1, 0, 1, 64)
    one, two = (
        dataset(pixels, Study(0, 1, 0, site, "PA", "F", 40), f"MONOCHROME{k}").pixel_array.astype(int) for k in (1, 2)
    )
    assert np.abs((site.black + site.white - one) - two).max() <= 1  # each rounds on its own
    assert np.corrcoef(one.ravel(), pixels.ravel())[0, 1] < -0.999
    assert two.min() >= 0 and two.max() <= 4095


def test_the_door_gives_back_what_was_drawn(cohort: Path):
    """Within half a step of the stored values, whatever rescale, window and inversion a film has.

    A PNG carries no window, so the reader's own window applies to it.
    """
    seen = set()
    for row in rows(cohort):
        got, fact = read_film(cohort.parent / row["path"]), study(COHORT["seed"], *indices(row))
        if fact.kind == "PNG":
            centre, width = got.choices["window_centre"], got.choices["window_width"]
            expected, step = (drawn(row) * 255 - centre) / width + 0.5, width
        else:
            expected, step = drawn(row), fact.site.white - fact.site.black
            assert got.choices["inverted"] == (fact.kind == "MONOCHROME1")
        assert np.abs(got.pixels - expected.clip(0, 1)).max() <= 0.5 / step + 1e-5
        seen.add((fact.kind, fact.site.name))
    assert len(seen) == 9


def test_bytes_are_the_same_and_a_complete_folder_is_left_alone(cohort: Path, tmp_path: Path, monkeypatch):
    again = write_cohort(tmp_path / "again", **COHORT)
    names = sorted(str(p.relative_to(again.parent)) for p in again.parent.rglob("*") if p.is_file())
    assert len(names) == 38
    same, different, errors = filecmp.cmpfiles(cohort.parent, again.parent, names, shallow=False)
    assert (len(same), different, errors) == (38, [], [])
    monkeypatch.setattr(phantom_files, "_write", lambda *_: pytest.fail("written twice"))
    assert write_cohort(tmp_path / "again", **COHORT) == again


def test_another_cohort_in_the_folder_is_the_users_to_mend(cohort: Path):
    with pytest.raises(UserError, match="not the phantom cohort asked for"):
        write_cohort(cohort.parent, **(COHORT | {"films": 3}))


def test_an_interrupted_cohort_is_absent(tmp_path: Path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(phantom_files, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        write_cohort(tmp_path / "cohort", **COHORT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("size", "patients"), [(32, 120), (64, 150)])
def test_a_convnet_learns_what_a_linear_classifier_does_not(size: int, patients: int):
    """The cohort's difficulty: ridge on pixels < .85, a ConvNet >= .90, on unseen patients."""
    owner = np.repeat(np.arange(patients), 3)
    x = np.stack([film(0, p, number % 3, p % 3, size) for number, p in enumerate(owner)])
    y = owner % 3
    train = np.isin(owner, np.random.default_rng(0).permutation(patients)[: int(0.6 * patients)])
    linear = ridge(x[train].reshape(train.sum(), -1), y[train], owner[train])
    assert 0.5 < linear.score(x[~train].reshape((~train).sum(), -1), y[~train]) < 0.85
    assert convnet_accuracy(torch.from_numpy(x)[:, None], torch.from_numpy(y), torch.from_numpy(train)) >= 0.90


def ridge(x: np.ndarray, y: np.ndarray, owner: np.ndarray) -> GridSearchCV:
    """Ridge on standardised pixels, its strength by cross-validation over patients."""
    return GridSearchCV(
        make_pipeline(StandardScaler(), RidgeClassifier()),
        {"ridgeclassifier__alpha": [10.0, 100.0, 1e3, 1e4]},
        cv=GroupKFold(3),
    ).fit(x, y, groups=owner)


def convnet_accuracy(x: torch.Tensor, y: torch.Tensor, train: torch.Tensor) -> float:
    """Test accuracy of ConvNet-3 of width 16 after 20 epochs of SGD with momentum .9."""
    generator = torch.Generator().manual_seed(0)
    net = Architecture("convnet", 1, 3, x.shape[-1], 16, 3).build(generator)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
    x, index = (x - 0.5) / 0.25, train.nonzero().squeeze(1)
    for _ in range(20):
        for batch in index[torch.randperm(len(index), generator=generator)].split(32):
            optimiser.zero_grad()
            cross_entropy(net(x[batch]), y[batch]).backward()
            optimiser.step()
    with torch.no_grad():
        return (net(x[~train]).argmax(1) == y[~train]).float().mean().item()
