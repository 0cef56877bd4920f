"""SeqMatch: what each subset starts from and matches, what is frozen, and a student's way through the result."""

import shutil
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from medistill import augment, seeds
from medistill.cli import configure
from medistill.config import Distill
from medistill.config.difficulty import Difficulty
from medistill.config.seqmatch import SeqMatch
from medistill.distill import iadd as matching
from medistill.distill import initial
from medistill.distill import seqmatch as module
from medistill.distill.course import Films, Given, load_checkpoint, save_checkpoint
from medistill.distill.distilled import Distilled
from medistill.distill.later_experts import Remembered, later_experts, students
from medistill.distill.matching import iadd
from medistill.distill.seqmatch import seqmatch, subsets
from medistill.distill.state import HISTORY
from medistill.errors import UserError
from medistill.evaluate.student import Recipe, fit_all
from medistill.experts.trajectory import Trajectories, save_trajectory
from medistill.nets import Architecture, flatten
from medistill.stages.distill import distill
from medistill.stages.evaluate import evaluate, evaluated
from medistill.stages.experts import experts
from medistill.stages.load import load
from medistill.stages.session import Session

CPU = torch.device("cpu")
OPERATIONS = ["color", "crop", "scale"]
OWN = SeqMatch(subsets=2, experts=2, epochs=3, lr=0.05, batch=8, student_steps=6, student_batch=4)
SETTINGS = Distill(
    method="seqmatch",
    ipc=3,
    iterations=4,
    inner_steps=3,
    expert_epochs=1,
    max_start_epoch=2,
    lr_images=10.0,
    alpha=0.05,
    importance="off",
    loss_limit=100.0,
    augment=OPERATIONS,
    seqmatch=OWN,
)


def given(folder, channels=1, dtype=torch.float32):
    """Two random walks as experts and 20 films of 3 classes."""
    architecture = Architecture("convnet", channels, 3, 16, 4, 2)
    files = []
    for index in range(2):
        g = seeds.generator(5, "toy expert", index)
        theta = [flatten(architecture.build(g)).to(dtype)]
        for _ in range(4):
            theta.append(theta[-1] + 0.02 * torch.randn(len(theta[0]), generator=g).to(dtype))
        files.append(folder / f"expert_{index}.safetensors")
        save_trajectory(files[-1], torch.stack(theta), architecture)
    g = seeds.generator(6, "films")
    films = Films(torch.randn(20, channels, 16, 16, generator=g).to(dtype), torch.arange(20) % 3)
    start = initial.noise((9, channels, 16, 16), 1.0, 0.0, seeds.generator(0, "start")).to(dtype)
    labels = F.one_hot(initial.labels_of(3, 3), 3).to(dtype)
    return Given(start, labels, architecture, 3, Trajectories.open(files), films)


def finished(given, settings):
    course = seqmatch(given, settings)
    for _ in course.run():
        pass
    return course


def test_each_subset_holds_every_class_and_the_first_get_one_more():
    """Published: 50 images a class as 17, 17 and 16."""
    first, second, third = subsets(50, 10, 3)
    assert [len(part) for part in (first, second, third)] == [170, 170, 160]
    assert first[:18].tolist() == [*range(17), 50] and third[-1] == 499 and second[0] == 17
    assert sorted(torch.cat([first, second, third]).tolist()) == list(range(500))
    assert [part.tolist() for part in subsets(3, 2, 2)] == [[0, 1, 3, 4], [2, 5]]
    with pytest.raises(UserError, match=r"distill\.ipc is 2, but each of distill\.seqmatch\.subsets 3"):
        subsets(2, 10, 3)


def test_one_subset_is_plain_matching_bit_for_bit(tmp_path):
    one = replace(SETTINGS, seqmatch=SeqMatch(subsets=1), importance="descend", soft_labels=True)
    material = given(tmp_path)
    course, plain = finished(material, one), iadd(material, one)
    for _ in plain.run():
        pass
    made, expected = course.made(), plain.made()
    assert torch.equal(made.images, expected.images) and torch.equal(made.labels, expected.labels)
    assert made.lr == expected.lr and made.sequence == ()
    assert torch.equal(course.history, plain.history)


def test_later_subsets_match_later_epochs_and_replay_uses_every_alpha(tmp_path, monkeypatch):
    """S_1 matches the experts' early epochs; S_2 late epochs of networks that know S_1. All three step sizes last."""
    asked, taught, later = [], [], module.later_experts

    def watch(kind):
        rows = kind.rows

        def watched(self, expert, *epochs):
            asked.append((kind, epochs))
            return rows(self, expert, *epochs)

        monkeypatch.setattr(kind, "rows", watched)

    def teach(images, labels, sequence, *others):
        taught.append(sequence)
        return later(images, labels, sequence, *others)

    watch(Trajectories)
    watch(Remembered)
    monkeypatch.setattr(module, "later_experts", teach)
    own = replace(OWN, subsets=3, starts=[[0, 1], [1, 2], [2, 3]], alphas=[0.05, 0.02, 0.01])
    material = given(tmp_path)
    course, before = seqmatch(material, replace(SETTINGS, seqmatch=own)), []
    for number, _ in enumerate(course.run(), start=1):
        if number % 4 == 0:
            before.append(course.begun.images.clone())
    assert asked == [(Trajectories, (0, 1))] * 4 + [(Remembered, (1, 2))] * 4 + [(Remembered, (2, 3))] * 4
    made = course.made()
    counts, alphas = zip(*made.sequence, strict=True)
    assert counts == (3, 6, 9) and made.lr == alphas[2] and len(set(alphas)) == 3
    # each alpha is where its subset's learning ended, which began at a start of its own
    ends = course.history[3::4, HISTORY.index("alpha")].tolist()
    assert alphas == pytest.approx(ends, rel=1e-6) and alphas == pytest.approx(own.alphas, rel=0.2)
    # the networks of subset k learned from every earlier union at its own alpha
    assert taught == [list(made.sequence[:1]), list(made.sequence[:2])]
    # earlier subsets stay as they were, later ones learn; class after class within each
    assert torch.equal(made.images[:3], before[0]) and torch.equal(made.images[:6], before[1])
    for k in range(3):
        start = material.start[k::3]
        assert not torch.equal(made.images[3 * k : 3 * k + 3], start)
        assert (made.images[3 * k : 3 * k + 3] - start).abs().max() < 1
        assert made.labels[3 * k : 3 * k + 3].argmax(1).tolist() == [0, 1, 2]

    recipe = Recipe(steps=30, batch=16, augment=())

    def student(sequence):
        ((_, net),) = fit_all(
            made.images, made.labels, material.architecture, 1e9, recipe, [seeds.generator(1)], CPU, sequence=sequence
        )
        return flatten(net)

    whole = student(made.sequence)
    for number in range(3):
        other = [*made.sequence]
        other[number] = (other[number][0], 2 * other[number][1])
        assert not torch.equal(student(other), whole)


@pytest.mark.parametrize("threads", [1, 2])
def test_later_networks_begin_as_a_student_of_the_earlier_subsets_ends(tmp_path, threads):
    """The oracle is evaluation's student of a sequence; a last pair of step size 0 undoes its falling rate."""
    torch.set_num_threads(threads)
    material = given(tmp_path, dtype=torch.float64)
    images, labels = material.start, material.labels
    sequence = [(3, 0.05), (9, 0.02)]
    found = students(images, labels, sequence, material.architecture, OWN, OPERATIONS, 2, seed=8)
    generators = [seeds.generator(8, "student", index) for index in range(2)]
    recipe = Recipe(steps=18, batch=4, augment=tuple(OPERATIONS))
    fitted = fit_all(
        images, labels, material.architecture, 1.0, recipe, generators, CPU, sequence=[*sequence, (9, 0.0)]
    )
    for number, net in fitted:
        assert torch.equal(found[number], flatten(net))


def test_later_networks_go_on_with_the_films_by_hand(tmp_path):
    material = given(tmp_path, dtype=torch.float64)
    images, labels = material.start, material.labels
    sequence = [(9, 0.05)]
    arguments = (images, labels, sequence, material.films, material.architecture, OWN, OPERATIONS, 2, 8)
    remembered = later_experts(*arguments)
    begun = students(images, labels, sequence, material.architecture, OWN, OPERATIONS, 2, seed=8)
    assert len(remembered) == 2 and (remembered.epochs, remembered.size) == (3, len(begun[0]))
    for index in range(2):
        g = seeds.generator(8, "expert", index)
        net = material.architecture.build(seeds.generator(0)).double()
        torch.nn.utils.vector_to_parameters(begun[index].clone(), net.parameters())
        expected = [flatten(net)]
        for _ in range(3):
            for batch in torch.randperm(20, generator=g).split(8):
                x = augment.apply(material.films.images[batch], augment.draw(OPERATIONS, len(batch), g))
                loss = F.cross_entropy(net(x), material.films.labels[batch])
                for p, d in zip(net.parameters(), torch.autograd.grad(loss, list(net.parameters())), strict=True):
                    p.data -= 0.05 * d
            expected.append(flatten(net))
        found = torch.stack(remembered.rows(index, 0, 1, 2, 3))
        assert (found - torch.stack(expected)).norm() < 1e-10 * found.norm()
    row = remembered.rows(0, 2)[0]
    row.zero_()
    assert remembered.rows(0, 2)[0].any(), "a row that is changed must not change the trajectory"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("stop", [2, 4, 6])
def test_stopped_in_any_stage_it_ends_with_the_same_bytes(tmp_path, stop, channels):
    """In the first subset, between two, and in the second; with learned labels and averaged pixels."""
    settings = replace(SETTINGS, soft_labels=True, ema=0.5, importance="descend", batch=4)
    material = given(tmp_path, channels)
    whole, stopped = finished(material, settings), seqmatch(material, settings)
    run, path = stopped.run(), tmp_path / "checkpoint.safetensors"
    for _ in range(stop):
        next(run)
    state = stopped.state()
    for _ in run:
        pass
    save_checkpoint(path, state, "key")
    resumed = seqmatch(material, settings)
    resumed.resume(load_checkpoint(path, "key"))
    assert resumed.iteration == stop
    for _ in resumed.run():
        pass
    for name, tensor in whole.state().items():
        assert torch.equal(resumed.state()[name], tensor), name
    made, again = whole.made(), resumed.made()
    assert torch.equal(made.images, again.images) and torch.equal(made.labels, again.labels)
    assert made.sequence == again.sequence and made.images.shape == (9, channels, 16, 16)


def test_a_finished_subset_teaches_with_its_averaged_pixels_and_learned_labels(tmp_path):
    settings = replace(SETTINGS, soft_labels=True, lr_labels=100.0, ema=0.5)
    course = seqmatch(given(tmp_path), settings)
    average = torch.zeros_like(course.begun.images)
    for number, _ in enumerate(course.run(), start=1):
        if number <= 4:
            average = average / 2 + course.begun.images / 2
            logits = course.begun.logits.clone()
    made = course.made()
    torch.testing.assert_close(made.images[:6], average / (1 - 0.5**4), rtol=1e-5, atol=1e-6)
    assert torch.equal(made.images[:6], course.begun.images[:6])
    assert torch.equal(made.labels[:6], logits.softmax(1)) and made.labels[:6].max(1).values.std() > 1e-3


def test_labels_of_an_expert_reach_every_subset(tmp_path):
    settings = replace(SETTINGS, soft_labels=True, lr_labels=0.0, iterations=1, difficulty=Difficulty(labels="expert"))
    material = given(tmp_path)
    made = finished(material, settings).made()
    order = torch.cat(subsets(3, 3, 2))
    expected = material.experts().answers(material.start[order]).softmax(1)
    torch.testing.assert_close(made.labels, expected)


def test_what_a_set_says_of_itself(tmp_path):
    told = finished(given(tmp_path), replace(SETTINGS, iterations=1)).made().provenance
    assert told == {"importance": "off", "subsets": 2, "experts": 2, "later_experts": 2}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"subsets": 0}, r"seqmatch\.subsets is 0; give at least 1"),
        ({"alphas": [0.1]}, r"alphas holds 1 entries for 2 subsets; give one each, or none"),
        ({"starts": [[0, 1], [2, 2]]}, r"starts holds \[2, 2\]; give \[first, last\)"),
        ({"starts": [[0, 1], [2]]}, r"starts holds \[2\]"),
        ({"alphas": [0.1, -1]}, r"alphas \[0\.1, -1\] must be positive"),
        ({"lr": 0}, r"seqmatch\.lr is 0; give a positive"),
        ({"momentum": 1}, r"seqmatch\.momentum is 1; give 0 up to below 1"),
        ({"experts": -1}, r"seqmatch\.experts is -1"),
    ],
)
def test_wrong_settings_are_one_sentence(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        SeqMatch(**changes)


def test_epochs_beyond_a_trajectory_and_diverging_networks_are_one_sentence(tmp_path):
    material = given(tmp_path)
    with pytest.raises(UserError, match=r"max_start_epoch 4 .* reaches epoch 4 of subset 2, .*seqmatch\.epochs 3"):
        seqmatch(material, replace(SETTINGS, max_start_epoch=4))
    late = replace(OWN, starts=[[0, 5], [0, 1]])
    with pytest.raises(UserError, match=r"seqmatch\.starts 5 .* reaches epoch 5 of subset 1, .*experts\.epochs 4"):
        seqmatch(material, replace(SETTINGS, seqmatch=late))
    arguments = (material.films, material.architecture)
    with pytest.raises(UserError, match=r"the first 1 subsets at their step sizes \(1e\+30\); lower distill\.alpha"):
        later_experts(material.start, material.labels, [(9, 1e30)], *arguments, OWN, OPERATIONS, 1, 0)
    with pytest.raises(UserError, match=r"diverge on the films; lower distill\.seqmatch\.lr 1e\+30"):
        fast = replace(OWN, lr=1e30)
        later_experts(material.start, material.labels, [(9, 0.01)], *arguments, fast, OPERATIONS, 1, 0)


def test_the_shipped_config_has_the_published_settings():
    settings = configure("run", ["--config", "configs/cifar10_seqmatch.yaml"]).distill
    own = settings.seqmatch
    assert settings.method == "seqmatch" and settings.importance == "off" and settings.ipc == 50
    assert (settings.inner_steps, settings.expert_epochs, settings.lr_images, settings.lr_alpha) == (30, 2, 100, 1e-5)
    assert own.starts == [[0, 20], [0, 20], [0, 10]] and own.alphas == [0.001, 0.01, 0.01]


def test_from_end_to_end_killed_in_the_second_subset(tiny, tmp_path, monkeypatch):
    """Through the stages: the same bytes after a kill, evaluated in its order, with every step size in its file."""
    words = {"method": "seqmatch", "ipc": 2, "iterations": 4, "importance": "off"}
    own = {"epochs": 3, "student_steps": 10, "batch": 16, "lr": 0.05}
    named = [*words.items(), *((f"seqmatch.{name}", value) for name, value in own.items())]
    options = [word for name, value in named for word in (f"--distill.{name}", str(value))]
    evaluation = ("--track", "false", "--evaluate.baselines", "false")

    run = Session(configure("run", tiny.options(tmp_path, *evaluation, *options)), lambda line: None)
    experts(run)
    update, calls = matching.update, []

    def killed(*arguments):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        update(*arguments)

    monkeypatch.setattr(matching, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        distill(run)
    distill(run)
    assert len(calls) == 7 + 2
    (file,) = tmp_path.glob("distill-*/distilled.safetensors")
    stopped = file.read_bytes()
    shutil.rmtree(file.parent)
    distill(run)
    assert file.read_bytes() == stopped
    final = Distilled.load(file)
    assert [n for n, _ in final.sequence] == [3, 6] and final.provenance["method"] == "SeqMatch"
    assert final.targets.tolist() == [0, 1, 2, 0, 1, 2]
    evaluate(run)
    assert evaluated(run, load(run))[1]["arms"]["distilled"]["mean"]["accuracy"] > 0
