"""What `medistill train` is asked for: the options, completed by what the release says of itself."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from medistill.config.train import NONE, Train
from medistill.errors import UserError
from medistill.evaluate.student import Recipe
from medistill.files import digest_of
from medistill.nets import Architecture, architecture_named
from medistill.release.load import ReleasedSet, load
from medistill.release.reading import Reading, common, readings_of, section

RATES = {"convnet": 0.01, "resnet18": 0.03, "vgg11": 0.01, "alexnet": 0.01, "densenet121": 0.1, "vit": 0.01}
"""Step size of a kind of network that a set was not distilled on; docs/using.md says where it is from."""

STEPS, BATCH = 1000, 64


@dataclass(frozen=True)
class Order:
    """All that decides what is trained.

    Attributes:
        data: the release.
        name: the name of its data set.
        reading: how films are read for it.
        positive: the class that its evaluation looks for; None where it does not say.
        architecture: of the networks.
        recipe: how they are trained.
        lr: the step size.
        sequence: (n, lr) pairs of an ordered set.
        seed: the base seed.
        students: how many networks.
        source: {"name", "digest", "fingerprint" of the key that signed it, "trusted": whether --pub names that key,
            "verdict", "licence", "citation"} of the release.
    """

    data: ReleasedSet
    name: str
    reading: Reading
    positive: str | None
    architecture: Architecture
    recipe: Recipe
    lr: float
    sequence: tuple[tuple[int, float], ...]
    seed: int
    students: int
    source: dict[str, Any]

    @property
    def training(self) -> dict[str, Any]:
        """What model.json says of the training, with its key."""
        said = {
            "recipe": asdict(self.recipe) | {"augment": list(self.recipe.augment)},
            "lr": self.lr,
            "sequence": [list(pair) for pair in self.sequence],
            "seed": self.seed,
            "students": self.students,
            "images": len(self.data),
        }
        decides = said | {"release": self.source["digest"], "architecture": asdict(self.architecture)}
        return said | {"key": digest_of(decides)}


def order_of(settings: Train, say: Callable[[str], None]) -> Order:
    """What the options and the release ask for; the release is verified first."""
    data = load(settings.folder, settings.pub or None)
    digest, config = data.digest, data.config
    readings = readings_of(config, data.architecture.size)
    reading = common(readings)
    if any(one.mask != reading.mask for one in readings):
        say(f"note: the parts of this release had different masks; films get the largest, {reading.mask:g} of a side")
    said, evaluated = section(config, "data"), section(config, "evaluate")
    name = _text(said.get("name")) or f"release-{digest[:8]}"
    own = architecture_named(settings.arch, data.architecture, "--arch") if settings.arch else data.architecture
    positive = said.get("positive", data.evaluation.get("positive"))
    source = {
        "name": name,
        "digest": digest,
        "fingerprint": data.fingerprint,
        "trusted": bool(settings.pub),
        "verdict": _text(data.audit.get("verdict")) or "unknown",
        "licence": _text(said.get("licence")),
        "citation": _text(said.get("citation")),
    }
    lr = settings.lr or (data.lr if own.name == data.architecture.name else RATES[own.name])
    sequence = data.sequence
    if sequence and (settings.lr or own.name != data.architecture.name):
        sequence = tuple((count, lr) for count, _ in sequence)
    say(f"release: {name}, {len(data)} images of {len(data.classes)} classes; audit: {source['verdict']}")
    return Order(
        data,
        name,
        reading,
        positive if positive in data.classes else None,
        own,
        _recipe(settings, evaluated),
        lr,
        sequence,
        settings.seed,
        settings.students,
        source,
    )


def _text(found: Any) -> str:
    """A text of a config from elsewhere on one line, without what could write on a terminal; "" where it is none."""
    line = " ".join(found.split())[:500] if isinstance(found, str) else ""
    return "".join(letter for letter in line if letter.isprintable())


def _recipe(settings: Train, evaluated: Mapping[str, Any]) -> Recipe:
    """How networks are trained: as the options say, else as the release evaluated itself, else by default."""

    def number(name: str, default: float, most: float) -> Any:
        found = evaluated.get(name, default)
        sound = type(found) in {int, type(default)} and 0 <= found <= most
        return found if sound else default

    said = evaluated.get("augment")
    theirs = said if isinstance(said, list) else list(Recipe.augment)
    chosen = [] if settings.augment == NONE else settings.augment or theirs
    try:
        return Recipe(
            steps=settings.steps or max(1, number("steps", STEPS, 10**6)),
            batch=settings.batch or max(1, number("batch", BATCH, 10**5)),
            momentum=number("momentum", Recipe.momentum, 0.9999),
            weight_decay=number("weight_decay", Recipe.weight_decay, 1.0),
            augment=tuple(chosen),
        )
    except (ValueError, TypeError) as error:
        raise UserError(f"config.yaml: evaluate.augment: {error}; give --augment") from error
