"""Settings of SeqMatch."""

from dataclasses import dataclass, field

from medistill.config.rules import require


@dataclass(frozen=True)
class SeqMatch:
    """SeqMatch (Du et al., NeurIPS 2023): subsets of the images are distilled one after another.

    The settings of trajectory matching hold for each subset, `distill.iterations` too.

    Attributes:
        subsets: how many; distill.ipc is shared out among them, the first ones get one more.
        starts: for each subset the epochs to start from, [first, last) with last exclusive; they take the place of
            distill.max_start_epoch and of the epochs of distill.difficulty. Empty: those hold for every subset.
        alphas: for each subset the start of its inner step size; empty: distill.alpha for all.
        experts: networks that each subset after the first is matched with; 0: as many as there are experts.
        epochs: passes of these over the training films, after they have learned from the earlier subsets.
        lr: their SGD step size on the films; better that of the experts.
        momentum: likewise.
        batch: films a step; likewise.
        student_steps: steps in which they learn from each union of earlier subsets beforehand; a student takes
            evaluate.steps / subsets.
        student_batch: images of such a step.
    """

    subsets: int = 2
    starts: list[list[int]] = field(default_factory=list)
    alphas: list[float] = field(default_factory=list)
    experts: int = 0
    epochs: int = 20
    lr: float = 0.01
    momentum: float = 0.0
    batch: int = 64
    student_steps: int = 500
    student_batch: int = 64

    def __post_init__(self) -> None:
        name = "distill.seqmatch"
        for option in ("subsets", "epochs", "batch", "student_steps", "student_batch"):
            require(getattr(self, option) >= 1, f"{name}.{option} is {getattr(self, option)}; give at least 1")
        require(self.experts >= 0, f"{name}.experts is {self.experts}; give 0 or more")
        require(self.lr > 0, f"{name}.lr is {self.lr}; give a positive step size")
        require(0 <= self.momentum < 1, f"{name}.momentum is {self.momentum}; give 0 up to below 1")
        for option in ("starts", "alphas"):
            count = len(getattr(self, option))
            require(
                count in (0, self.subsets),
                f"{name}.{option} holds {count} entries for {self.subsets} subsets; give one each, or none",
            )
        for pair in self.starts:
            require(
                len(pair) == 2 and 0 <= pair[0] < pair[1],
                f"{name}.starts holds {pair}; give [first, last) with 0 <= first < last",
            )
        require(
            all(alpha > 0 for alpha in self.alphas),
            f"{name}.alphas {self.alphas} must be positive; give numbers above 0",
        )
