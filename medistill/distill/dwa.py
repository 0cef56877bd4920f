"""DWA (Du et al., NeurIPS 2024): a teacher learns the films, images are recovered from it, and it labels them."""

import copy
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medistill.config import Distill
from medistill.distill.course import Course, Given, Made, empty_history, require_finite
from medistill.distill.dwa_teacher import answers, learn, perturbed, teacher_named, with_batch_norms
from medistill.resources import Used, watch
from medistill.seeds import generator

ROLL = 4
"""Pixels by which images are rolled down and to the right, at most."""

BETAS = (0.5, 0.9)
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
"""Of the teacher's SGD."""

AT_ONCE = 256
"""Images labelled at once."""


class DirectedWeights(Course):
    """Squeeze, recover, relabel; a round of the teacher over the films is an iteration, and so is a step on pixels.

    Recovery takes the numbers of an image within its class one after another: one start image a class is a batch, the
    teacher's parameters are moved up the batch's loss, and the pixels are moved down cross entropy and the distance
    between the batch's statistics and the teacher's. Every number begins at the teacher as the squeeze left it and at
    its own start images, so numbers do not depend on each other. With two classes a batch is two images, whose
    statistics are held to those of all films: on PneumoniaMNIST the result was worse than its real start.

    What leaks: the running means and variances of the films' features, on which images are drawn, the range of the
    films' values in each channel, at which pixels are clipped, and the teacher's opinion of each image, with all that
    it remembers of single films; a real start begins at patients' films, and pixels that hardly move still show them.

    Own choices: pixels are clipped to the training films' range, channel by channel, where the published code clips to
    that of bytes, which whitened images do not have; the start batch that perturbs the teacher is not rolled; the
    teacher is augmented by `distill.augment`; labels are those of the images as they are, stored once, for ordinary
    cross entropy, where the paper's students ask the teacher anew about every mixed-up batch (KL, temperature 30).

    Args:
        given: with films.
        settings: of the distillation.
    """

    columns = ("loss", "cross_entropy", "statistics", "number")
    """`number` is 0 while the teacher learns, then that of the image within its class, from 1."""

    def __init__(self, given: Given, settings: Distill):
        self.given, self.augment, self.own = given, settings.augment, settings.dwa
        self.classes, self.ipc = given.labels.shape[1], len(given.start) // given.labels.shape[1]
        self.total = self.own.teacher_epochs + self.ipc * self.own.iterations
        self.history = empty_history(self.columns)
        self.architecture = teacher_named(self.own.teacher, given.architecture)
        fresh = with_batch_norms(self.architecture, generator(given.seed, "dwa teacher"))
        self.teacher = fresh.to(given.start)
        self.sgd = self._sgd(self.teacher)
        self.images = given.start
        self.live: dict[str, Tensor] = {}  # the pixels under way, (K, C, H, W), and Adam's moments
        films = given.real().images
        self.least, self.most = films.amin((0, 2, 3), keepdim=True), films.amax((0, 2, 3), keepdim=True)

    def run(self) -> Iterator[None]:
        """The squeeze, then the recovery."""
        for epoch in range(self.iteration, self.own.teacher_epochs):
            self._squeeze(epoch)
            yield
        self.sgd.state.clear()
        while self.iteration < self.total:
            yield from self._recover(*divmod(self.iteration - self.own.teacher_epochs, self.own.iterations))

    def state(self) -> dict[str, Tensor]:
        """Copies of what later iterations change in place: the teacher is so no longer when the recovery has begun."""
        learned = {f"teacher.{name}": tensor for name, tensor in self.teacher.state_dict().items()}
        momentum = {
            f"momentum.{name}": self.sgd.state[parameter]["momentum_buffer"].clone()
            for name, parameter in self.teacher.named_parameters()
            if parameter in self.sgd.state
        }
        if self.iteration < self.own.teacher_epochs:
            learned = {name: tensor.clone() for name, tensor in learned.items()}
        live = {f"live.{name}": tensor.detach().clone() for name, tensor in self.live.items()}
        return {"history": self.history, "images": self.images, **learned, **momentum, **live}

    def resume(self, state: dict[str, Tensor]) -> None:
        """Go on from it."""

        def under(prefix: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(prefix): tensor.to(self.given.start.device, copy=True)
                for name, tensor in state.items()
                if name.startswith(prefix)
            }

        self.history, self.images = state["history"], state["images"].to(self.given.start.device)
        self.teacher.load_state_dict(under("teacher."))
        self.live, momentum = under("live."), under("momentum.")
        for name, parameter in self.teacher.named_parameters():
            if name in momentum:
                self.sgd.state[parameter]["momentum_buffer"] = momentum[name]

    def made(self) -> Made:
        """The images with the teacher's probabilities for them."""
        labels = self._labels()
        said = f"the teacher's probabilities at temperature {self.own.temperature:g}"
        told = {
            "teacher": f"{self.architecture.name}:{self.architecture.width} with batch norms",
            "teacher_loss": self.history[self.own.teacher_epochs - 1, 0].item(),
            "soft_labels": said,
            "agreement": (labels.argmax(1) == self.given.labels.argmax(1)).double().mean().item(),
        }
        return Made(self.images, labels, self.own.lr_students, provenance=told)

    def rehearse(self) -> Used:
        """A step of the teacher and one on pixels, times all that are left of each."""
        device, films = self.given.start.device, self.given.real()
        teacher = copy.deepcopy(self.teacher)
        sgd, batch = self._sgd(teacher), torch.arange(min(self.own.teacher_batch, len(films.labels)))
        pixels = self._numbered(self.given.start, 0).clone().requires_grad_()
        adam = self._adam(pixels)

        def both() -> float:
            epochs = max(0, self.own.teacher_epochs - self.iteration)
            with watch(device, memory=False) as learning:
                learn(teacher, sgd, films, [batch], self.augment, generator(self.given.seed, "rehearsal"))
            with watch(device, memory=False) as moving:
                self._step(teacher, pixels, adam, 0, 0)
            rounds = epochs * math.ceil(len(films.labels) / self.own.teacher_batch)
            return rounds * learning.seconds + (self.total - self.iteration - epochs) * moving.seconds

        with watch(device) as everything:
            both()  # warms up
            seconds = both()
        return Used(seconds, everything.bytes)

    def _squeeze(self, epoch: int) -> None:
        """One round of the teacher over the films."""
        own, films, draw = self.own, self.given.real(), generator(self.given.seed, "dwa teacher", epoch)
        self.sgd.param_groups[0]["lr"] = _cosine(own.teacher_lr, epoch, own.teacher_epochs)
        batches = torch.randperm(len(films.labels), generator=draw).split(own.teacher_batch)
        loss = learn(self.teacher, self.sgd, films, batches, self.augment, draw)
        require_finite(loss, f"dwa: the teacher's loss in round {epoch + 1}", "lower distill.dwa.teacher_lr")
        self.record(loss, loss, 0.0, 0.0)

    def _recover(self, number: int, first: int) -> Iterator[None]:
        """The steps from `first` on for the images of that number within their classes."""
        own, start = self.own, self._numbered(self.given.start, number)
        teacher = perturbed(self.teacher, start, self._numbered(self.given.labels, number), own.rho, own.steps)
        pixels = self.live.get("pixels", start).clone().requires_grad_()
        adam = self._adam(pixels)
        if self.live:
            moments = {name: self.live[name] for name in ("exp_avg", "exp_avg_sq")}
            adam.state[pixels] = {"step": torch.tensor(float(first)), **moments}
        for step in range(first, own.iterations):
            losses = self._step(teacher, pixels, adam, number, step)
            require_finite(losses[0], f"dwa: the loss of the images {number + 1}", "lower distill.dwa.lr")
            moments = {name: adam.state[pixels][name] for name in ("exp_avg", "exp_avg_sq")}
            self.live = {"pixels": pixels, **moments}
            if step + 1 == own.iterations:
                self.images, self.live = self._with(pixels.detach(), number), {}
            self.record(*losses, number + 1)
            yield

    def _step(
        self, teacher: nn.Module, pixels: Tensor, adam: torch.optim.Adam, number: int, step: int
    ) -> tuple[float, float, float]:
        """One step on pixels (K, C, H, W), in place; the loss before it and its two parts."""
        own = self.own
        down, right = torch.randint(ROLL + 1, (2,), generator=generator(self.given.seed, "dwa", number, step)).tolist()
        logits, statistics = answers(teacher, pixels.roll((down, right), (2, 3)), own.r_var)
        entropy = F.cross_entropy(logits, self._numbered(self.given.labels, number))
        loss = entropy + own.r_bn * statistics
        (pixels.grad,) = torch.autograd.grad(loss, [pixels])
        adam.param_groups[0]["lr"] = _cosine(own.lr, step, own.iterations)
        adam.step()
        with torch.no_grad():
            pixels.clamp_(self.least, self.most)
        return loss.item(), entropy.item(), statistics.item()

    @torch.no_grad()
    def _labels(self) -> Tensor:
        """(M, K) the teacher's probabilities for the images."""
        logits = torch.cat([self.teacher(part) for part in self.images.split(AT_ONCE)])
        return (logits / self.own.temperature).softmax(1)

    def _numbered(self, rows: Tensor, number: int) -> Tensor:
        """(K, ...) of rows (M, ...) the ones of that number within their classes."""
        return rows.unflatten(0, (self.classes, self.ipc))[:, number]

    def _with(self, pixels: Tensor, number: int) -> Tensor:
        """(M, C, H, W) other images with these (K, C, H, W) at that number within their classes."""
        images = self.images.clone()
        images.unflatten(0, (self.classes, self.ipc))[:, number] = pixels
        return images

    def _sgd(self, teacher: nn.Module) -> torch.optim.SGD:
        return torch.optim.SGD(teacher.parameters(), self.own.teacher_lr, MOMENTUM, weight_decay=WEIGHT_DECAY)

    def _adam(self, pixels: Tensor) -> torch.optim.Adam:
        return torch.optim.Adam([pixels], self.own.lr, BETAS)


def _cosine(lr: float, step: int, steps: int) -> float:
    """The step size of a step, counted from 0, on the way down to 0 after the last."""
    return lr * (1 + math.cos(math.pi * step / steps)) / 2


def dwa(given: Given, settings: Distill) -> DirectedWeights:
    """DWA of the training films."""
    return DirectedWeights(given, settings)
