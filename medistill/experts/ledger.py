"""The privacy ledger: the one account of all experts of a run, on disk before any noise is drawn.

What stands in it is public: the terms of the guarantee and how often noise was drawn. A step that was charged stays
spent, whether or not its run came to an end.
"""

import json
import math
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from filelock import FileLock, Timeout

from medistill.config import Experts
from medistill.errors import UserError
from medistill.experts.accountant import Mechanism, noise_multiplier, spent
from medistill.files import read_metadata, write_json

FILE = "privacy_ledger.json"

Unit = Literal["patient", "image"]

ASSUMPTIONS = (
    "neighbours differ by one unit of the training split, added or removed; which patient is in which split, and which "
    "films are one patient's, is taken as given",
    "the number of patients stated here is public",
    "the noise comes from the operating system and is independent of everything else",
    "covered are the experts' files, this ledger and what is made of them alone; evaluation and audit read patients "
    "and are outside epsilon",
    "another ledger on the same patients adds its epsilon and delta to these",
)


@dataclass(frozen=True)
class Terms:
    """What is promised and how it is to be kept; every number here is public.

    Attributes:
        unit: what one clipped gradient belongs to: a patient, or an image where no patients are known.
        patients: public number of units, at least the true one.
        epsilon: the most that may be spent.
        delta: of that epsilon.
        clip: C, the norm of a unit's gradient.
        rate: the chance of a unit to take part in a step.
        experts: number of experts.
        steps: of each expert.
        reserve: steps of all together that may be repeated.
        means: share of the budget for class means.
    """

    unit: Unit
    patients: int
    epsilon: float
    delta: float
    clip: float
    rate: float
    experts: int
    steps: int
    reserve: int
    means: float

    @classmethod
    def of(cls, settings: Experts, units: int, unit: Unit) -> "Terms":
        """The terms for a training set of so many units.

        Raises:
            UserError: when the public number is below the true one, or delta above 1 / (10 patients).
        """
        private = settings.private
        patients = private.patients or units
        if patients < units:
            raise UserError(
                f"experts.private.patients is {patients}, fewer than there are in the training split; give a public "
                "number that is not below theirs"
            )
        delta = private.delta or 1 / (10 * patients)
        if delta * 10 * patients > 1 + 1e-9:
            raise UserError(
                f"experts.private.delta is {delta:.3g}, above 1 / (10 patients) = {0.1 / patients:.3g}: a patient "
                "in ten such sets could be given away; lower it, or set it to 0"
            )
        return cls(
            unit=unit,
            patients=patients,
            epsilon=private.epsilon,
            delta=delta,
            clip=private.clip,
            rate=private.rate,
            experts=settings.count,
            steps=private.steps,
            reserve=private.reserve,
            means=private.means,
        )

    @property
    def expected_batch(self) -> float:
        """The constant by which every step's sum is divided."""
        return self.rate * self.patients

    @property
    def words(self) -> str:
        """The guarantee as a set's provenance states it."""
        return f"epsilon {self.epsilon:g}, delta {self.delta:.3g}, unit {self.unit}; see the privacy ledger"

    @property
    def all_steps(self) -> int:
        """Steps that the noise is made for."""
        return self.experts * self.steps + self.reserve


@dataclass(frozen=True)
class Noise:
    """Standard deviations over the clipping norm.

    Attributes:
        step: of a step of an expert.
        means: of the class means; 0: they are not drawn.
    """

    step: float
    means: float = 0.0

    @classmethod
    def solve(cls, terms: Terms) -> "Noise":
        """The least noise that keeps the terms, class means and reserve included.

        A share s of the budget for the means: their noise is that of a single release at (epsilon, delta) over the root
        of s, which is the share s of mu^2, exact at rate 1; the steps' noise is solved with the means composed.
        """
        means = noise_multiplier(terms.epsilon, terms.delta, 1, 1) / terms.means**0.5 if terms.means else 0.0
        also = [Mechanism(means, 1, 1)] if means else []
        return cls(noise_multiplier(terms.epsilon, terms.delta, terms.rate, terms.all_steps, also), means)


@dataclass(frozen=True)
class Entry:
    """Noise that was drawn, or was about to be.

    Attributes:
        what: `expert 3` or `class means`.
        first: number of the first of these steps.
        steps: how many.
        noise_multiplier: standard deviation over the clipping norm.
        rate: the chance of a unit to take part.
    """

    what: str
    first: int
    steps: int
    noise_multiplier: float
    rate: float

    @property
    def mechanism(self) -> Mechanism:
        """As the accountant takes it."""
        return Mechanism(self.noise_multiplier, self.rate, self.steps)


class Ledger:
    """The account of a run, kept in a file that is never behind it.

    Attributes:
        terms: what is promised.
        noise: what keeps it.
        entries: what was charged so far.
        id: a random name, which everything that was drawn on this account bears.
    """

    def __init__(self, path: Path, terms: Terms, noise: Noise, entries: list[Entry], id: str = ""):
        self.path, self.terms, self.noise, self.entries = path, terms, noise, entries
        self.id = id or secrets.token_hex(8)

    @classmethod
    @contextmanager
    def open(cls, folder: Path, terms: Terms) -> Iterator["Ledger"]:
        """The ledger of a folder, begun where there is none, and no other process's until the block ends.

        Raises:
            UserError: another process holds it, it was begun on other terms, or it is gone from among its experts.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE
        try:
            with FileLock(path.with_suffix(".lock"), timeout=0):
                if not path.exists() and any(file.suffix in (".safetensors", ".json") for file in folder.iterdir()):
                    raise UserError(
                        f"{folder.name}/{FILE}: is gone, but not what was drawn on its account; put "
                        "it back, or take all of its epsilon for spent and name another folder in `run`"
                    )
                yield cls._again(folder, terms) if path.exists() else cls._begin(path, terms)
        except Timeout as error:
            raise UserError(
                f"{folder.name}: another process is training these private experts, whose budget is one; wait for it"
            ) from error

    @classmethod
    def read(cls, folder: Path) -> "Ledger":
        """The ledger of a folder as it stands, to look at.

        Raises:
            UserError: there is none, or it is damaged.
        """
        record = recorded(folder)
        entries = [Entry(**entry) for entry in record["entries"]]
        return cls(folder / FILE, Terms(**record["terms"]), Noise(**record["noise"]), entries, record["id"])

    def require_own(self, files: Sequence[Path]) -> None:
        """Check that these files were drawn on this account.

        Raises:
            UserError: one bears another account's name, or none.
        """
        for file in files:
            if read_metadata(file).get("ledger") != self.id:
                raise UserError(
                    f"{file.parent.name}/{file.name}: was not drawn on the account of the {FILE} beside it, which "
                    "therefore says nothing of it; put back the file that was, or name another folder in `run`"
                )

    def charge(self, entry: Entry) -> None:
        """Write down noise that is about to be drawn; when this returns it is on disk.

        What goes on where the last entry ended lengthens it; what is drawn again stands for itself.

        Raises:
            UserError: with it epsilon would be exceeded; nothing is charged then.
        """
        *before, last = self.entries or [entry]
        follows = self.entries and entry == replace(last, first=last.first + last.steps, steps=entry.steps)
        after = [*before, replace(last, steps=last.steps + entry.steps)] if follows else [*self.entries, entry]
        cost = self._cost(after)
        if cost["epsilon"] > self.terms.epsilon:
            raise UserError(
                f"experts: the privacy budget is spent: {entry.steps} more steps would make epsilon "
                f"{cost['epsilon']:.4g}, {self.terms.epsilon:.4g} were promised and the reserve is used up. More needs "
                "a new run, with a larger experts.private.reserve, whose epsilon adds to this one's"
            )
        self._write(after, cost)
        self.entries = after

    def step_variance(self, lr: float) -> float:
        """The variance that the noise of one step of size `lr` gives each parameter of an expert; it is public."""
        return (lr * self.noise.step * self.terms.clip / self.terms.expected_batch) ** 2

    def charge_steps(self, expert: int, first: int, steps: int) -> None:
        """Charge steps of an expert."""
        self.charge(Entry(f"expert {expert}", first, steps, self.noise.step, self.terms.rate))

    def charge_means(self) -> None:
        """Charge one release of the class means."""
        self.charge(Entry("class means", 0, 1, self.noise.means, 1.0))

    def _cost(self, entries: list[Entry]) -> dict[str, Any]:
        """What these entries spend."""
        cost = spent([entry.mechanism for entry in entries], self.terms.delta)
        return {"epsilon": cost.prv, "epsilon_rdp": cost.rdp, "delta": cost.delta}

    def _write(self, entries: list[Entry], cost: dict[str, Any]) -> None:
        write_json(
            self.path,
            {
                "format": 1,
                "id": self.id,
                "terms": asdict(self.terms),
                "noise": asdict(self.noise),
                "accountant": "PRV (Gopi et al. 2021), RDP beside it (Mironov et al. 2019); opacus",
                "assumptions": list(ASSUMPTIONS),
                "entries": [asdict(entry) for entry in entries],
                "spent": cost,
            },
        )

    @classmethod
    def _begin(cls, path: Path, terms: Terms) -> "Ledger":
        ledger = cls(path, terms, Noise.solve(terms), [])
        ledger._write([], ledger._cost([]))
        return ledger

    @classmethod
    def _again(cls, folder: Path, terms: Terms) -> "Ledger":
        ledger = cls.read(folder)
        if ledger.terms != terms:
            raise UserError(
                f"{folder.name}/{FILE}: was begun on other terms, perhaps with other patients; a budget is not "
                "renegotiated: choose another folder in `run`, and add the two epsilons up if both are released"
            )
        return ledger


def recorded(folder: Path) -> dict[str, Any]:
    """What the ledger of a folder holds, as JSON.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = folder / FILE
    if not path.exists():
        raise UserError(f"{folder.name}/{FILE}: no such file; run `medistill experts` with the same options first")
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        require_form(record)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder.name}/{FILE}: damaged, so nobody knows what is spent, and deleting it would not bring that "
            "back; put back a copy, or take all of its epsilon for spent and name another folder in `run`"
        ) from error
    return record


def require_form(record: dict[str, Any]) -> None:
    """Raise an error of Python's when something is missing, is not known or is no number where one belongs."""
    terms, noise = asdict(Terms(**record["terms"])), asdict(Noise(**record["noise"]))
    entries = [asdict(Entry(**entry)) for entry in record["entries"]]
    texts = [record["id"], terms.pop("unit"), *(entry.pop("what") for entry in entries)]
    numbers = [value for part in (terms, noise, *entries, record["spent"]) for value in part.values()]
    if not all(isinstance(text, str) for text in texts) or record["terms"]["unit"] not in get_args(Unit):
        raise ValueError("a name is not one")
    if not all(type(number) in (int, float) and 0 <= number < math.inf for number in numbers):
        raise ValueError("a number is not one")
