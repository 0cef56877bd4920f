from itertools import chain

import pytest
import torch
import torch.nn.functional as F

from medistill import augment
from medistill.errors import UserError
from medistill.evaluate.student import Recipe, fit, fit_all, predict
from medistill.nets import Architecture, flatten

CPU = torch.device("cpu")
NET = Architecture("convnet", channels=1, classes=2, size=8, width=4, depth=2)


def gen(seed):
    return torch.Generator().manual_seed(seed)


def films(count, seed=0):
    """Two classes told apart by the bright half."""
    labels = torch.arange(count) % 2
    images = 0.3 * torch.randn(count, 1, 8, 8, generator=gen(seed))
    images[labels == 0, :, :4] += 1
    images[labels == 1, :, 4:] += 1
    return images, labels


def test_fit_learns_what_is_separable_and_predict_gives_probabilities():
    images, labels = films(20)
    module = fit(images, labels, NET, 0.05, Recipe(steps=60, augment=()), gen(0), CPU)
    unseen, truth = films(50, seed=1)
    probabilities = predict(module, unseen, CPU, batch=7)
    assert (probabilities.argmax(1) == truth).all()
    torch.testing.assert_close(probabilities, module(unseen).softmax(1).detach())
    torch.testing.assert_close(probabilities.sum(1), torch.ones(50))


def test_equal_generators_give_equal_students_and_the_global_seed_does_not_matter():
    images, labels = films(20)
    recipe = Recipe(steps=6, batch=8)
    torch.manual_seed(1)
    first = flatten(fit(images, labels, NET, 0.05, recipe, gen(3), CPU))
    torch.manual_seed(2)
    assert torch.equal(first, flatten(fit(images, labels, NET, 0.05, recipe, gen(3), CPU)))
    assert not torch.allclose(first, flatten(fit(images, labels, NET, 0.05, recipe, gen(4), CPU)))


@pytest.mark.parametrize("steps", [1, 4, 5])
def test_fit_follows_sgd_written_by_hand(steps):
    """Momentum, weight decay, a tenth of the rate in the second half, and the draws replayed in order."""
    images, labels = films(6)
    targets = F.one_hot(labels, 2).float() * 0.8 + 0.1
    recipe = Recipe(steps=steps, momentum=0.7, weight_decay=0.02)
    student = fit(images, targets, NET, 0.1, recipe, gen(5), CPU)

    replay = gen(5)
    module = NET.build(replay)
    velocity = [torch.zeros_like(p) for p in module.parameters()]
    for step in range(steps):
        rate = 0.1 if step < steps / 2 else 0.01
        x = augment.apply(images, augment.draw(augment.OPERATIONS, 6, replay))
        loss = -(targets * module(x).log_softmax(1)).sum(1).mean()
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        with torch.no_grad():
            for p, g, v in zip(module.parameters(), gradients, velocity, strict=True):
                v.mul_(0.7).add_(g + 0.02 * p)
                p.sub_(rate * v)
    torch.testing.assert_close(flatten(student), flatten(module), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
def test_several_students_equal_torch_sgd_with_equal_draws(threads, dtype, within):
    torch.set_num_threads(threads)
    images, labels = films(10)
    images = images.to(dtype)
    recipe = Recipe(steps=20, batch=4, momentum=0.9, weight_decay=5e-3)
    steps = []
    students = dict(fit_all(images, labels, NET, 0.05, recipe, [gen(s) for s in (5, 6, 7)], CPU, steps.append))
    assert sorted(students) == [0, 1, 2] and steps == [20, 20, 20]
    for number, student in students.items():
        replay = gen(5 + number)
        module = NET.build(replay).to(dtype)
        optimizer = torch.optim.SGD(module.parameters(), 0.05, momentum=0.9, weight_decay=5e-3)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [10])
        queue = []
        for _ in range(20):
            queue = queue or list(torch.randperm(10, generator=replay).split(4))
            index = queue.pop(0)
            x = augment.apply(images[index], augment.draw(augment.OPERATIONS, len(index), replay))
            optimizer.zero_grad()
            F.cross_entropy(module(x), labels[index]).backward()
            optimizer.step()
            schedule.step()
        expected = flatten(module)
        assert not student.training and (flatten(student) - expected).norm() < within * expected.norm()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("steps", [2, 7, 10])
def test_an_ordered_set_is_learned_pair_after_pair_by_hand(threads, steps):
    """Steps are shared out evenly; a tenth of the last rate after half of its steps; momentum and draws go on."""
    torch.set_num_threads(threads)
    images, labels = films(10)
    images = images.double()
    sequence = [(4, 0.05), (10, 0.02)]
    recipe = Recipe(steps=steps, batch=4, momentum=0.9, weight_decay=5e-3)
    fitted = fit_all(images, labels, NET, 1e9, recipe, [gen(5), gen(6)], CPU, sequence=sequence)
    # (images, rate) of each step: 7 steps are 4 (the half of 7 rounded to the even) and 3, of which 2 before the fall
    rates = {
        2: [(4, 0.05), (10, 0.02)],
        7: [*[(4, 0.05)] * 4, *[(10, 0.02)] * 2, (10, 0.002)],
        10: [*[(4, 0.05)] * 5, *[(10, 0.02)] * 3, *[(10, 0.002)] * 2],
    }[steps]
    for number, student in fitted:
        replay = gen(5 + number)
        module = NET.build(replay).double()
        optimizer = torch.optim.SGD(module.parameters(), 1.0, momentum=0.9, weight_decay=5e-3)
        queue, among = [], 0
        for count, rate in rates:
            if count != among:
                queue, among = [], count
            if not queue:
                whole = torch.arange(count)
                queue = [whole] if count <= 4 else list(torch.randperm(count, generator=replay).split(4))
            index = queue.pop(0)
            x = augment.apply(images[index], augment.draw(augment.OPERATIONS, len(index), replay))
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            F.cross_entropy(module(x), labels[index]).backward()
            optimizer.step()
        expected = flatten(module)
        assert (flatten(student) - expected).norm() < 1e-9 * expected.norm()


def test_a_sequence_of_one_pair_is_no_sequence_bit_for_bit():
    images, labels = films(10)
    for steps in (1, 9, 10):
        recipe = Recipe(steps=steps, batch=4)
        ((_, plain),) = fit_all(images, labels, NET, 0.05, recipe, [gen(5)], CPU)
        ((_, ordered),) = fit_all(images, labels, NET, 1e9, recipe, [gen(5)], CPU, sequence=[(10, 0.05)])
        assert torch.equal(flatten(plain), flatten(ordered))


def test_every_pair_of_a_sequence_counts():
    """Each of three step sizes and each of three counts changes the student."""
    images, labels = films(12)
    recipe, sequence = Recipe(steps=9, batch=16, augment=()), [(4, 0.05), (8, 0.04), (12, 0.03)]

    def student(pairs):
        ((_, net),) = fit_all(images, labels, NET, 1e9, recipe, [gen(5)], CPU, sequence=pairs)
        return flatten(net)

    whole = student(sequence)
    for number, (count, rate) in enumerate(sequence):
        for other in ((count, rate / 2), (count - 2, rate)):
            assert not torch.equal(student([*sequence[:number], other, *sequence[number + 1 :]]), whole)


def test_progress_counts_the_steps_of_all_students():
    told = []
    recipe = Recipe(steps=250, batch=4, augment=())
    assert len(dict(fit_all(*films(4), NET, 0.01, recipe, [gen(0), gen(1)], CPU, told.append))) == 2
    assert told == [100, 100, 50] * 2


def test_soft_targets_of_certainty_equal_classes():
    images, labels = films(6)
    recipe = Recipe(steps=3)
    hard = fit(images, labels, NET, 0.1, recipe, gen(0), CPU)
    soft = fit(images, F.one_hot(labels, 2).float(), NET, 0.1, recipe, gen(0), CPU)
    torch.testing.assert_close(flatten(hard), flatten(soft))


def test_an_epoch_of_minibatches_sees_every_image_once(monkeypatch):
    images = torch.arange(10.0).view(10, 1, 1, 1).expand(10, 1, 8, 8)
    seen = []

    def record(x, drawn):
        seen.append(x[:, 0, 0, 0].tolist())
        return x

    monkeypatch.setattr(augment, "apply", record)
    fit(images, torch.arange(10) % 2, NET, 0.0, Recipe(steps=6, batch=4), gen(0), CPU)
    assert [len(batch) for batch in seen] == [4, 4, 2, 4, 4, 2]
    first, second = list(chain(*seen[:3])), list(chain(*seen[3:]))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_a_diverging_student_is_the_users_to_mend():
    images, labels = films(6)
    with pytest.raises(UserError, match=r"learning rate 1e\+30.*lower the learning rate"):
        fit(images, labels, NET, 1e30, Recipe(steps=20), gen(0), CPU)


def test_a_single_step_that_overflows_is_noticed():
    """The loss of the only step is finite; the parameters after it are not."""
    images, labels = films(6)
    with pytest.raises(UserError, match="diverged within 1 steps"):
        fit(images, labels, NET, 3e38, Recipe(steps=1, weight_decay=1e3), gen(0), CPU)


def test_finite_parameters_whose_answers_are_not_are_noticed():
    """One step of 1e20 times a gradient is finite in float32; products of such weights are not."""
    images, labels = films(6)
    with pytest.raises(UserError, match="diverged within 1 steps"):
        fit(images, labels, NET, 1e20, Recipe(steps=1, weight_decay=0, augment=()), gen(0), CPU)


def test_a_recipe_knows_its_operations():
    with pytest.raises(ValueError, match="'blur' is not one of"):
        Recipe(augment=("blur",))
