"""Shadow distillations: who is in which, experts and queries against plain torch, and going on after a kill."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from medistill import augment
from medistill.audit import shadow_training, shadows
from medistill.audit.check import Private
from medistill.audit.shadow_noise import noisy_trainer
from medistill.audit.shadow_pool import Pool
from medistill.audit.shadow_training import recipe_of, side_by_side, slope_norms, students_on, train_on_parts
from medistill.audit.shadows import run_shadows
from medistill.config import Audit, Config, Data, Distill, Evaluate, Experts, Net
from medistill.config.audit import Shadows as Budget
from medistill.data import phantom
from medistill.data.imageset import ImageSet
from medistill.errors import UserError
from medistill.evaluate.student import fit_all, predict
from medistill.nets import Architecture, Flat, flatten
from medistill.seeds import generator

SIDE, CLASSES = 16, ("Normal", "Pneumonia", "COVID")
ARCHITECTURE = Architecture("convnet", 1, 3, SIDE, 4, 2)
CONFIG = Config(
    seed=3,
    data=Data(size=SIDE),
    net=Net(width=4, depth=2),
    experts=Experts(epochs=3, lr=0.05, batch=8),
    distill=Distill(iterations=3, inner_steps=2, max_start_epoch=2, expert_epochs=1, lr_images=5.0),
    evaluate=Evaluate(steps=6, lr=0.05),
    audit=Audit(shadows=Budget(count=16, experts=1, students=2)),
)


def imageset(first: int, patients: int, split: str) -> ImageSet:
    """Two films of each patient; every third patient has a class."""
    groups = torch.arange(patients).repeat_interleave(2)
    images = torch.rand(2 * patients, 1, SIDE, SIDE, generator=generator(first, "films"))
    return ImageSet(images, (groups + first) % 3, 7 * groups + 100, CLASSES, "toy", split, (0.5,), (0.25,))


def private(**changes: Any) -> Private:
    return replace(Private(imageset(0, 14, "train"), imageset(1, 10, "holdout"), CONFIG), **changes)


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool.of(private())


def test_patients_of_both_sets_are_numbered_apart(pool: Pool) -> None:
    assert pool.patient.tolist() == [n // 2 for n in range(48)]
    assert pool.member.tolist() == [True] * 14 + [False] * 10
    assert torch.equal(pool.pixels[:28], private().train.pixels())
    assert torch.equal(pool.pixels[28:], private().holdout.pixels())
    assert pool.kind.tolist() == [n % 3 for n in range(14)] + [(n + 1) % 3 for n in range(10)]


def test_halves_share_out_the_patients_of_each_class(pool: Pool) -> None:
    inside = pool.halves(200, seed=0)
    assert inside.shape == (400, 24) and torch.equal(inside[::2], ~inside[1::2])
    for label in range(3):
        count = int((pool.kind == label).sum())
        sizes = inside[:, pool.kind == label].sum(1)
        assert set(sizes.tolist()) <= {count // 2, count - count // 2}
    assert inside[::2].double().mean(0).sub(0.5).abs().max() < 0.13
    together = torch.corrcoef(inside[::2].T.double())
    assert together.fill_diagonal_(0).abs().max() < 0.35
    assert torch.equal(inside[:4], pool.halves(2, seed=0)) and not torch.equal(inside[:4], pool.halves(2, seed=1))
    parts = pool.parts(inside[:2])
    assert sorted(torch.cat(parts).tolist()) == list(range(48))
    assert all(inside[0, pool.patient[film]] for film in parts[0])


def test_starts_are_of_the_runs_kind_and_from_the_part_alone(pool: Pool) -> None:
    part = pool.parts(pool.halves(1, 0))[0]

    def start(kind: str, number: int = 0) -> Tensor:
        settings = replace(CONFIG.distill, start=kind, ipc=2)
        images, labels = pool.start(part, private(), settings, number)
        assert labels.argmax(1).tolist() == [0, 0, 1, 1, 2, 2] and labels.sum() == 6
        return images

    for image, label in zip(start("real"), [0, 0, 1, 1, 2, 2], strict=True):
        (film,) = torch.nonzero((pool.pixels == image).flatten(1).all(1)).flatten().tolist()
        assert film in part.tolist() and pool.labels[film] == label
    mine = part[pool.labels[part] == 1]
    torch.testing.assert_close(start("class_mean")[2], pool.pixels[mine].mean(0))
    assert not torch.equal(start("noise"), start("noise", number=1)) and abs(start("noise").mean()) < 0.1
    lightest = start("phantom").amin()
    assert start("phantom").shape == (6, 1, SIDE, SIDE) and lightest >= -2 and start("phantom").amax() <= 2
    assert phantom.CLASSES == CLASSES


def test_planted_films_are_of_the_part_and_of_different_patients(pool: Pool) -> None:
    part = pool.parts(pool.halves(1, 0))[0]
    films = pool.planted(part, ipc=3, seed=0, number=0)
    assert pool.labels[films].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] and len(pool.patient[films].unique()) == 9
    assert set(films.tolist()) <= set(part.tolist())
    fewest = min(int(count) for count in torch.bincount(pool.kind[pool.patient[part].unique()]))
    assert len(pool.planted(part, ipc=50, seed=0, number=0)) == 3 * fewest


def test_patients_too_few_to_share_out_are_said_so(pool: Pool) -> None:
    assert pool.unfit(CONFIG.distill) == "" and pool.unfit(replace(CONFIG.distill, ipc=5)) == ""
    assert "has 8 patients" in pool.unfit(replace(CONFIG.distill, ipc=5, start="real"))
    alone = replace(pool, labels=torch.where(pool.patient == 0, 2, pool.labels % 2))
    assert pool.unfit(CONFIG.distill) == "" and "class COVID has 1 patients" in alone.unfit(CONFIG.distill)


def by_the_book(images: Tensor, labels: Tensor, part: Tensor, settings: Experts, g: torch.Generator) -> Tensor:
    """An expert on a part of the films by torch's own optimiser, 7 films an epoch."""
    module = ARCHITECTURE.build(g).to(images.dtype)
    optimizer = torch.optim.SGD(module.parameters(), lr=settings.lr, momentum=settings.momentum)
    rows = [flatten(module)]
    for _ in range(settings.epochs):
        for batch in part[torch.randperm(len(part), generator=g)[:7]].split(settings.batch):
            drawn = augment.draw(settings.augment, len(batch), g)
            optimizer.zero_grad()
            F.cross_entropy(module(augment.apply(images[batch], drawn)), labels[batch]).backward()
            optimizer.step()
        rows.append(flatten(module))
    return torch.stack(rows)


@pytest.mark.parametrize("threads", [1, 2])
def test_experts_on_parts_equal_plain_torch(threads: int, pool: Pool) -> None:
    settings = Experts(epochs=2, lr=0.1, momentum=0.5, batch=4)
    parts = [torch.tensor([1, 3, 5, 7, 9, 11, 13, 15]), torch.tensor([0, 2, 4, 6, 8, 10, 12])]
    images = pool.pixels.double()
    torch.set_num_threads(threads)
    generators = [generator(0, "expert", n) for n in range(2)]
    found = dict(train_on_parts(images, pool.labels, parts, ARCHITECTURE, settings, generators, films=7))
    for number, part in enumerate(parts):
        expected = by_the_book(images, pool.labels, part, settings, generator(0, "expert", number))
        torch.testing.assert_close(found[number], expected, atol=1e-9, rtol=0)
    assert torch.get_num_threads() == threads


def test_an_experts_loss_that_is_not_finite_is_refused(pool: Pool) -> None:
    settings = Experts(epochs=2, lr=1e30, batch=4)
    with pytest.raises(UserError, match=r"lower experts\.lr"):
        list(
            train_on_parts(pool.pixels, pool.labels, [torch.arange(9)], ARCHITECTURE, settings, [generator(0)], films=9)
        )


def test_slopes_are_autograds(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ARCHITECTURE.build(generator(0, "net")).double()
    images = pool.pixels[:5].double()
    targets = F.one_hot(pool.labels[:5], 3).double()
    expected = []
    for image, label in zip(images, pool.labels, strict=False):
        loss = F.cross_entropy(module(image[None]), label[None])
        slope = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(module.parameters()))])
        expected.append(float(slope.norm()))
    net = Flat(ARCHITECTURE).to(torch.device("cpu"), torch.float64)
    for held in (2**24, 1):
        monkeypatch.setattr(shadow_training, "GRADIENTS", held)
        assert slope_norms(net, flatten(module), images, targets).tolist() == pytest.approx(expected)


def jobs_that(fail: int | None) -> list[Callable[[threading.Event], int]]:
    def job(number: int) -> int:
        if number == fail:
            raise UserError("no")
        return torch.get_num_threads() * 100 + number

    return [lambda stop, n=n: job(n) for n in range(6)]


def test_jobs_side_by_side_share_out_the_threads() -> None:
    torch.set_num_threads(4)
    assert dict(side_by_side(jobs_that(None), 2)) == {n: 200 + n for n in range(6)}
    assert list(side_by_side(jobs_that(None), 1)) == [(n, 400 + n) for n in range(6)]
    with pytest.raises(UserError):
        list(side_by_side(jobs_that(3), 2))
    assert torch.get_num_threads() == 4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, shadows.Shadows, list[str]]:
    """All shadows of the toy, on two threads, with their folder and what was said."""
    folder, said = tmp_path_factory.mktemp("private"), list[str]()
    torch.set_num_threads(2)
    return folder, run_shadows(private(folder=folder, say=said.append)), said


def same(a: shadows.Shadows, b: shadows.Shadows) -> bool:
    names = ("inside", "students", "planted", "planted_students", "experts", "slopes")
    return all(torch.allclose(getattr(a, name), getattr(b, name), atol=1e-4) for name in names)


def test_shadows_hold_what_their_networks_answer(made: tuple[Path, shadows.Shadows, list[str]], pool: Pool) -> None:
    folder, found, said = made
    assert found.inside.shape == (16, 24) and not found.noisy
    assert found.students.shape == found.planted_students.shape == (16, 2, 48, 3)
    assert found.experts.shape == (16, 1, 3, 48, 3) and found.slopes.shape == (16, 1, 48)
    for answers in (found.students, found.planted_students, found.experts):
        torch.testing.assert_close(answers.sum(-1), torch.ones(answers.shape[:-1]))
    part = pool.parts(found.inside)[5]
    settings = replace(CONFIG.experts, count=1)
    parts, films = [part], min(len(part) for part in pool.parts(found.inside))
    place = ("audit", "shadows", "expert", 5, 0)
    g = generator(CONFIG.seed, *place)
    ((_, rows),) = train_on_parts(pool.pixels, pool.labels, parts, ARCHITECTURE, settings, [g], films)
    module = ARCHITECTURE.build(generator(0))
    torch.nn.utils.vector_to_parameters(rows[-1], module.parameters())
    torch.testing.assert_close(found.experts[5, 0, -1], predict(module, pool.pixels, torch.device("cpu")))
    targets = F.one_hot(pool.labels, 3).float()
    slopes = slope_norms(Flat(ARCHITECTURE), rows[-1], pool.pixels, targets)
    torch.testing.assert_close(found.slopes[5, 0], slopes, rtol=1e-4, atol=1e-4)
    own = load_file(folder / "shadows" / "shadow_005.safetensors")
    assert own["images"].shape == (3, 1, SIDE, SIDE) and own["lr"].item() == pytest.approx(0.01, rel=0.2)
    students = students_on(private(), pool, own["images"], own["labels"], own["lr"].item(), ("shadow", 5))
    torch.testing.assert_close(found.students[5], students)
    planted = pool.planted(part, 1, CONFIG.seed, 5)
    assert torch.nonzero(found.planted[5]).flatten().tolist() == sorted(pool.patient[planted].tolist())
    assert said[0].startswith("16 experts of shadows, about") and said[1].startswith("16 shadow distillations, about")
    assert said[-1] == "16 of 16 shadows distilled"


def test_students_are_those_of_the_evaluation(pool: Pool) -> None:
    images, targets = pool.pixels[:3], pool.labels[:3]
    found = students_on(private(), pool, images, targets, 0.05, ("place",))
    generators = [generator(3, "audit", "place", number) for number in range(2)]
    recipe = recipe_of(private())
    cpu = torch.device("cpu")
    expected = dict(fit_all(images, targets, ARCHITECTURE, 0.05, recipe, generators, cpu))
    for number, student in expected.items():
        torch.testing.assert_close(found[number], predict(student, pool.pixels, cpu))
    assert recipe.steps == 6


def test_a_second_call_reads_what_the_first_has_made(
    made: tuple[Path, shadows.Shadows, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, first, _ = made
    assert len(list((folder / "shadows").iterdir())) == 3 * 16  # no expert is kept
    monkeypatch.setattr(shadows, "train_on_parts", None)
    monkeypatch.setattr(shadows, "students_on", None)
    assert same(first, run_shadows(private(folder=folder)))


def test_a_killed_audit_goes_on_where_it_was(
    made: tuple[Path, shadows.Shadows, list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder, first, _ = made
    kept = tmp_path / "shadows"
    copytree(folder / "shadows", kept)
    for name in ("shadow_003", "shadow_014", "students_003", "planted_009"):
        (kept / f"{name}.safetensors").unlink()
    original = shadows.side_by_side

    def killed(jobs: Any, workers: int) -> Any:
        yield next(original(jobs, 1))
        raise KeyboardInterrupt

    monkeypatch.setattr(shadows, "side_by_side", killed)
    with pytest.raises(KeyboardInterrupt):
        run_shadows(private(folder=tmp_path))
    monkeypatch.setattr(shadows, "side_by_side", original)
    assert (kept / "shadow_003.safetensors").exists() and not (kept / "shadow_014.safetensors").exists()
    assert [file.name for file in kept.glob("expert*")] == ["expert_014_0.safetensors"]
    said: list[str] = []
    monkeypatch.setattr(shadows, "train_on_parts", None)  # its expert is there
    assert same(first, run_shadows(private(folder=tmp_path, say=said.append)))
    assert said[0].startswith("1 shadow distillations") and not list(kept.glob("expert*"))


def test_other_settings_make_other_shadows(made: tuple[Path, shadows.Shadows, list[str]], tmp_path: Path) -> None:
    folder, _, _ = made
    run = private(folder=folder)
    base = shadows._Run(run, tmp_path, None).key
    ledger = {"terms": TERMS, "noise": {"step": 1.0, "means": 0.0}}
    keys = {
        base,
        shadows._Run(run, tmp_path, ledger).key,
        shadows._Run(replace(run, holdout=imageset(2, 10, "holdout")), tmp_path, None).key,
        shadows._Run(replace(run, config=replace(CONFIG, seed=4)), tmp_path, None).key,
        shadows._Run(
            replace(run, config=replace(CONFIG, distill=replace(CONFIG.distill, lr_images=6.0))), tmp_path, None
        ).key,
    }
    assert len(keys) == 5
    assert base == shadows._Run(replace(run, device=torch.device("cpu")), folder, None).key


def test_a_shorter_budget_keeps_to_its_trajectories() -> None:
    short = replace(CONFIG, audit=Audit(shadows=Budget(epochs=2, iterations=1)))
    experts, settings = shadows._settings(private(config=short))
    assert (experts.count, experts.epochs, settings.iterations, settings.max_start_epoch) == (2, 2, 1, 2)
    wide = replace(CONFIG.distill, expert_epochs=2)
    for budget in (1, 2):
        shorter = replace(CONFIG, distill=wide, audit=Audit(shadows=Budget(epochs=budget)))
        experts, settings = shadows._settings(private(config=shorter))
        assert (experts.epochs, settings.max_start_epoch) == (2, 1)
    for wrong in ({"count": 15}, {"count": 17}, {"students": 0}, {"epochs": -1}):
        with pytest.raises(UserError, match=r"audit\.shadows"):
            Budget(**wrong)


TERMS = {
    "unit": "patient",
    "patients": 24,
    "epsilon": 8.0,
    "delta": 1e-3,
    "clip": 1.0,
    "rate": 1.0,
    "experts": 2,
    "steps": 4,
    "reserve": 0,
    "means": 0.0,
}


def test_shadows_of_a_private_run_are_clipped_and_noised_and_charge_nothing(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medistill.config import Private as PrivateExperts

    monkeypatch.chdir(tmp_path)
    settings = Experts(lr=0.5, batch=64, augment=[], private=PrivateExperts(epsilon=8, steps=4, rows=2))
    part = torch.arange(0, 24)  # twelve patients

    def rows(noise: float, unit: str = "patient") -> Tensor:
        ledger = {"terms": TERMS | {"unit": unit}, "noise": {"step": noise, "means": 0.0}}
        train = noisy_trainer(ledger, pool.patient)
        generators = [generator(0, "x")]
        ((number, found),) = train(
            pool.pixels, pool.labels, [part], ARCHITECTURE, settings, generators, films=5, compiled=None, told=None
        )
        assert number == 0 and found.shape == (3, Flat(ARCHITECTURE).size)
        return found

    still = rows(0.0)
    assert (still[1] - still[0]).norm() <= 2 * 0.5 + 1e-5  # two steps of mean gradients of norm 1 at most
    step = (rows(50.0)[1] - still[1]).std()
    assert step == pytest.approx(0.5 * 50 / 12 * 2**0.5, rel=0.15)  # two steps, of twelve patients
    assert (rows(50.0, "image")[1] - still[1]).std() == pytest.approx(0.5 * 50 / 24 * 2**0.5, rel=0.15)
    assert not list(tmp_path.iterdir())


def test_a_method_that_reads_films_is_given_those_of_the_shadows_patients_alone(tmp_path: Path) -> None:
    distill = replace(CONFIG.distill, method="dm")
    run = shadows._Run(private(config=replace(CONFIG, distill=distill)), tmp_path, None)
    start = run.pool.start(run.parts[3], run.private, run.settings, 3)
    given = run._course(3, start).given
    own = run.inside[3][run.pool.patient]
    assert torch.equal(given.films.images, run.pool.pixels[own]) and torch.equal(
        given.films.labels, run.pool.labels[own]
    )
    assert given.trajectories is None
