"""MGDD: closed-form labels, the generator and its file, tasks, stopping and going on, and the stage."""

import pickle
from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from medistill import seeds
from medistill.cli import configure
from medistill.config import Distill
from medistill.config.mgdd import Mgdd
from medistill.distill import generator as network
from medistill.distill.course import Films, Given
from medistill.distill.distilled import Distilled
from medistill.distill.mgdd import ADAPT, LABELS, META, digests, mgdd
from medistill.distill.ridge import centred, feature_map, probabilities, solve
from medistill.errors import UserError
from medistill.nets import Architecture
from medistill.stages.distill import distill
from medistill.stages.session import Session

SIZE = 16


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def answers(synthetic, real, ridge):
    """R S^T (S S^T + l I)^-1, written out."""
    kernel = synthetic @ synthetic.T
    penalty = ridge * kernel.diagonal().mean() * torch.eye(len(kernel), dtype=kernel.dtype)
    return real @ synthetic.T @ torch.linalg.inv(kernel + penalty)


@pytest.mark.parametrize("ridge", [0.0, 1e-6, 0.3])
def test_labels_and_error_are_those_of_lstsq(ridge):
    s, r, t = normal(0, 6, 20), normal(1, 40, 20), normal(2, 40, 3)
    labels, error = solve(s, r, t, ridge)
    a = answers(s, r, ridge)
    expected = torch.linalg.lstsq(a, t).solution
    torch.testing.assert_close(labels, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(error, (a @ expected - t).square().sum(1).mean(), rtol=1e-9, atol=0)


def test_gradients_through_the_labels_are_those_of_finite_differences():
    s, r, t = normal(0, 4, 6).requires_grad_(), normal(1, 9, 6).requires_grad_(), normal(2, 9, 2)
    assert torch.autograd.gradcheck(lambda s, r: solve(s, r, t, 0.2), (s, r))


def test_with_a_small_ridge_labels_are_what_least_squares_on_all_features_answers():
    """Eight images span the five features, so nothing is lost by regressing on them."""
    s, r, t = normal(0, 8, 5), normal(1, 50, 5), normal(2, 50, 2)
    weights = np.linalg.lstsq(r.numpy(), t.numpy(), rcond=None)[0]
    labels, error = solve(s, r, t, 1e-9)
    np.testing.assert_allclose(labels, s.numpy() @ weights, atol=1e-5)
    np.testing.assert_allclose(error, ((r.numpy() @ weights - t.numpy()) ** 2).sum(1).mean(), rtol=1e-6)


def test_two_equal_images_keep_labels_and_gradients_finite():
    s = normal(0, 3, 8)
    s = torch.cat([s, s[:1]]).requires_grad_()
    labels, error = solve(s, normal(1, 20, 8), normal(2, 20, 2), 1e-6)
    error.backward()
    assert labels.isfinite().all() and s.grad.isfinite().all()
    once = solve(s[:3].detach(), normal(1, 20, 8), normal(2, 20, 2), 1e-6)[1]
    torch.testing.assert_close(error, once, rtol=1e-6, atol=0)


def test_labels_as_probabilities_by_hand():
    labels = torch.tensor([[1.0, -1.0], [-0.2, 0.2], [1.5, 0.5], [-1.0, -1.0]])
    expected = torch.tensor([[1.0, 0.0], [0.3, 0.7], [2 / 3, 1 / 3], [0.5, 0.5]])
    torch.testing.assert_close(probabilities(labels), expected)
    torch.testing.assert_close(centred(torch.tensor([1]), 4), torch.tensor([[-0.25, 0.75, -0.25, -0.25]]))


@pytest.mark.parametrize("name", ["convnet", "resnet18", "vit"])
def test_features_are_what_the_last_linear_layer_receives(name):
    architecture = Architecture(name, 1, 3, 32, 32, 4)
    seen = feature_map(architecture, torch.Generator().manual_seed(4), torch.device("cpu"))
    whole = architecture.build(torch.Generator().manual_seed(4)).eval()
    *_, last = (layer for layer in whole.modules() if isinstance(layer, nn.Linear))
    x = normal(0, 2, 1, 32, 32).float()
    torch.testing.assert_close(last(seen(x)), whole(x))
    assert not seen(x).requires_grad


def moved(channels, width):
    """A generator that no longer answers its start images."""
    made = network.fresh(channels, width, torch.Generator().manual_seed(0))
    nn.init.normal_(made.last.weight, generator=torch.Generator().manual_seed(1))
    return made


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 33)])
def test_the_generator_begins_as_its_start_and_makes_each_image_on_its_own(channels, size):
    start, classes = normal(0, 5, channels, size, size).float(), torch.tensor([0, 1, 1, 2, 2])
    assert torch.equal(network.fresh(channels, 4, torch.Generator().manual_seed(0))(start, classes), start)
    made = moved(channels, 4)
    images = made(start, classes)
    for index in range(5):
        torch.testing.assert_close(made(start[[index]], classes[[index]])[0], images[index], rtol=1e-4, atol=1e-4)
    assert (made(start, torch.zeros(5, dtype=torch.int64))[1:] - images[1:]).abs().amin((1, 2, 3)).max() > 0


def test_a_generator_comes_back_from_its_file(tmp_path):
    made, other = moved(1, 4), network.fresh(1, 4, torch.Generator().manual_seed(9))
    save_file(made.state_dict(), tmp_path / "learned.safetensors")
    network.load(tmp_path / "learned.safetensors", other)
    assert all(torch.equal(part, other.state_dict()[name]) for name, part in made.state_dict().items())


def test_files_that_do_not_fit_are_told_in_a_sentence(tmp_path):
    into, path = network.fresh(1, 4, torch.Generator().manual_seed(9)), tmp_path / "learned.safetensors"
    broken = moved(1, 4).state_dict()
    broken["last.bias"] = torch.tensor([float("nan")])
    wrong = {
        "not finite": broken,
        "down.0.0.bias of shape (5,), this run's generator has (4,)": moved(1, 5).state_dict(),
        "down.0.0.weight of shape (4, 11, 3, 3), this run's generator has (4, 9, 3, 3)": moved(3, 4).state_dict(),
        "images of shape (1,), this run's generator has None": {**moved(1, 4).state_dict(), "images": torch.ones(1)},
    }
    for sentence, tensors in wrong.items():
        save_file(tensors, path)
        with pytest.raises(UserError) as told:
            network.load(path, into)
        assert sentence in str(told.value) and "learned.safetensors" in str(told.value)
    path.write_bytes(pickle.dumps(moved(1, 4).state_dict()))
    with pytest.raises(UserError, match="no safetensors file"):
        network.load(path, into)
    with pytest.raises(UserError, match="cannot be read"):
        network.load(tmp_path, into)


def given(channels=1, classes=2, ipc=1, seed=0, each=40):
    """Films of a bright bar whose place is the class, on noise."""
    labels = torch.arange(classes).repeat_interleave(each)
    images = 0.5 * normal(seed, classes * each, channels, SIZE, SIZE).float()
    for index, label in enumerate(labels.tolist()):
        images[index, :, 2 + 3 * label : 5 + 3 * label] += 1.5
    start = normal(seed + 1, classes * ipc, channels, SIZE, SIZE).float()
    onehot = nn.functional.one_hot(torch.arange(classes).repeat_interleave(ipc), classes).float()
    return Given(start, onehot, Architecture("convnet", channels, classes, SIZE, 8, 2), 7, films=Films(images, labels))


def settings(ipc=1, start="noise", **own):
    few = {"adapt": 3, "batch": 32, "width": 4, "maps": 2}
    return Distill(method="mgdd", ipc=ipc, start=start, mgdd=Mgdd(**{**few, **own}))


def run(course, steps=None):
    for _ in islice(course.run(), steps):
        pass
    return course


@pytest.mark.parametrize(("channels", "start", "stop"), [(1, "noise", 1), (3, "real", 4), (1, "phantom", 5)])
def test_resumed_it_ends_with_the_same_bytes(channels, start, stop):
    """Stopped in the meta-training, in the adaptation, and before the labels."""
    inputs, chosen = given(channels), settings(start=start, meta=2, inner=2)
    whole = run(mgdd(inputs, chosen))
    begun = run(mgdd(inputs, chosen), stop)
    state = begun.state()
    kept = {name: part.clone() for name, part in state.items()}
    run(begun)
    assert all(torch.equal(state[name], kept[name]) for name in kept)
    again = mgdd(inputs, chosen)
    again.resume(state)
    run(again)
    expected, found = whole.state(), again.state()
    assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)
    assert torch.equal(whole.made().images, again.made().images)
    assert whole.history[:, 1].tolist() == [META] * 2 + [ADAPT] * 3 + [LABELS]
    assert torch.equal(begun.state()["labels"], expected["labels"])


def test_one_adaptation_serves_any_number_of_images():
    """Adapted on one image a class, the error falls for three a class and other start images too."""
    course = mgdd(given(ipc=3), settings(ipc=3, ipcs=[1], adapt=60, width=8, batch=64))
    starts, classes = normal(50, 6, 1, SIZE, SIZE).float(), torch.arange(2).repeat_interleave(3)
    before = [course.generate(starts[part], classes[part])[2] for part in ([0, 3], slice(None))]
    run(course)
    after = [course.generate(starts[part], classes[part])[2] for part in ([0, 3], slice(None))]
    assert after[0] < 0.1 * before[0] and after[1] < 0.25 * before[1]


def test_labels_are_the_mean_of_least_squares_over_random_networks():
    inputs = given(ipc=2)
    course = run(mgdd(inputs, settings(ipc=2, features=6)))
    made, films = course.made(), inputs.real()
    mean = torch.zeros(4, 2, dtype=torch.float64)
    for number in range(2):
        random = seeds.generator(inputs.seed, "mgdd labels", number)
        index = torch.cat([40 * k + torch.randint(40, (40,), generator=random) for k in range(2)])
        seen = replace(inputs.architecture, width=6).build(random)[:-1]
        with torch.no_grad():
            s, r = seen(made.images).double(), seen(films.images[index]).double()
        targets = nn.functional.one_hot(films.labels[index], 2).double() - 0.5
        mean += torch.linalg.lstsq(answers(s, r, 1e-6), targets).solution / 2
    torch.testing.assert_close(made.labels, probabilities(mean).float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made.labels.sum(1), torch.ones(4))
    images, labels, error = course.generate(inputs.start, inputs.labels.argmax(1))
    assert torch.equal(images, made.images) and torch.equal(labels, made.labels)
    assert error == course.history[-1, 0] == made.provenance["ridge_error"]


def test_reptile_goes_a_share_of_the_way_to_a_tasks_generator():
    def parameters(**own):
        course = mgdd(given(), settings(meta=1, inner=3, **own))
        return nn.utils.parameters_to_vector(run(course, own.pop("steps", 1)).generator.parameters()).detach()

    start = mgdd(given(), settings(meta=1)).generator
    begun = nn.utils.parameters_to_vector(start.parameters()).detach()
    whole, quarter = parameters(meta_lr=1.0), parameters(meta_lr=0.25)
    assert (whole - begun).abs().max() > 1e-3
    torch.testing.assert_close(quarter - begun, 0.25 * (whole - begun), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("classes", "chosen"), [(2, 2), (3, 3), (5, 2)])
def test_a_task_is_a_random_half_of_the_films_seen_through_one_operation(classes, chosen):
    course = mgdd(given(classes=classes), settings(meta=1, batch=32))
    orders, films = Counter(), normal(0, 1, 1, SIZE, SIZE).float().expand(4, -1, -1, -1)
    changed = 0
    for number in range(12):
        task = course._task(torch.Generator().manual_seed(number))
        orders[tuple(task.names)] += 1
        assert len(task.names) == len(set(task.names)) == chosen
        for name, pool in zip(task.names, task.pools, strict=True):
            assert len(pool) == len(pool.unique()) == 20
            assert (course.given.real().labels[pool] == name).all()
        seen = task.seen(films)
        assert torch.equal(seen, seen[:1].expand_as(seen))
        changed += not torch.equal(seen, films)
    assert len(orders) > 1 and changed > 6


def test_batches_hold_every_class_alike():
    course = mgdd(given(classes=3), settings(batch=32))
    index = course._balanced(course.pools, 32, torch.Generator().manual_seed(0))
    assert torch.bincount(course.given.real().labels[index]).tolist() == [10, 10, 10]


@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        ({"lr": 0.0}, "distill.mgdd.lr is 0.0; give a positive number"),
        ({"maps": 0}, "distill.mgdd.maps is 0; give at least 1"),
        ({"ridge": -1.0}, "distill.mgdd.ridge is -1.0; give 0 or more"),
        ({"meta_lr": 1.5}, "distill.mgdd.meta_lr is 1.5"),
        ({"ipcs": [1, 0]}, r"distill.mgdd.ipcs is \[1, 0\]"),
        ({"adapt": 0}, "nothing is learned"),
    ],
)
def test_wrong_settings(own, sentence):
    with pytest.raises(UserError, match=sentence):
        Mgdd(**own)


def test_sizes_that_do_not_go_together():
    with pytest.raises(UserError, match=r"batch is 32, but a step makes 40 images"):
        mgdd(given(), settings(ipcs=[1, 20]))
    with pytest.raises(UserError, match=r"distill.ipc is 40: 80 images"):
        mgdd(given(ipc=40), settings(ipc=40, ipcs=[1]))
    with pytest.raises(UserError, match=r"distill.start is class_mean"):
        mgdd(given(ipc=2), settings(ipc=2, start="class_mean"))
    two = given(classes=2)
    lacking = replace(two, films=Films(two.real().images[:40], two.real().labels[:40]))
    with pytest.raises(UserError, match="class number 1 has no training film"):
        mgdd(lacking, settings())
    with pytest.raises(UserError, match=r"gone.safetensors: no such file"):
        digests(settings(generator="gone.safetensors"))


def test_the_whole_way_and_a_second_run_from_its_generator(tiny, tmp_path):
    """The second run adapts nothing, so it makes the first one's images; another file makes another run."""
    own = ["--track", "false", "--distill.method", "mgdd", "--distill.mgdd.width", "4", "--distill.mgdd.maps", "2"]

    def made(*more):
        said = []
        distill(Session(configure("run", tiny.options(tmp_path / "run", *own, *more)), said.append))
        folder = (tmp_path / "run").glob("distill-*/distilled.safetensors")
        newest = max(folder, key=lambda path: path.stat().st_mtime_ns)
        return newest.parent, Distilled.load(newest), said

    folder, first, said = made("--distill.mgdd.adapt", "4", "--distill.mgdd.meta", "1")
    assert "distill: 6 iterations" in said
    assert first.images.shape == (3, 1, 16, 16) and first.provenance["method"] == "MGDD"
    assert (first.images - load_file(folder / "distilled.safetensors")["images"]).abs().max() == 0
    file = tmp_path / "learned.safetensors"
    file.write_bytes((folder / "learned.safetensors").read_bytes())
    again = ("--distill.mgdd.adapt", "0", "--distill.mgdd.generator", str(file))
    second_folder, second, _ = made(*again)
    assert torch.equal(second.images, first.images) and second_folder != folder
    assert len(second.provenance["generator"]) == 64
    save_file({name: 2 * part for name, part in load_file(file).items()}, file)
    third_folder, third, _ = made(*again)
    assert third_folder not in (folder, second_folder) and not torch.equal(third.images, first.images)
