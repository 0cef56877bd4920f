"""The table of checks: their numbers, names, questions in plain words, and which of them are quick."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from medistill.audit.check import Candidate, Outcome, Private


@dataclass(frozen=True)
class Row:
    """One check of the table.

    Attributes:
        number: 0 to 11.
        name: as in `Check.name`.
        question: what it asks, for a reader who is no engineer.
        module: the file in this folder that answers it.
        quick: it takes seconds.
    """

    number: int
    name: str
    question: str
    module: str
    quick: bool

    @property
    def check(self) -> Callable[[Candidate, Private], Outcome]:
        """The check itself, imported when it is wanted."""
        found: Callable[[Candidate, Private], Outcome] = import_module(f"medistill.audit.{self.module}").check
        return found


TABLE = (
    Row(
        0,
        "provenance",
        "Did patients' films, or numbers taken from them, go into the set directly?",
        "provenance",
        True,
    ),
    Row(1, "nearest real neighbour", "Is a synthetic image a patient's film in disguise?", "nearest", True),
    Row(
        2,
        "seed re-identification",
        "Can one tell which film a synthetic image started from?",
        "seed_reidentification",
        True,
    ),
    Row(
        3,
        "distance to closest record",
        "Does the set lie nearer to the patients in it than to other patients?",
        "closest_record",
        True,
    ),
    Row(
        4,
        "patient re-identification",
        "Does a network that recognises patients recognise one in a synthetic image?",
        "reidentification",
        False,
    ),
    Row(
        5,
        "membership inference",
        "Can one tell from the set whether a given patient's films were used?",
        "membership",
        False,
    ),
    Row(
        6,
        "membership inference, experts",
        "And from the networks behind it, which stay in the house?",
        "membership_experts",
        False,
    ),
    Row(7, "canaries", "Does the noise that was promised protect planted, worst-case patients?", "canaries", False),
    Row(
        8,
        "attribute inference",
        "Does the set tell more about the diagnosis of its own patients than of others?",
        "attribute",
        True,
    ),
    Row(9, "text", "Can names, dates or numbers be read in a synthetic image?", "text", True),
    Row(10, "DP statement", "Is there a mathematical guarantee, and does its account add up?", "dp_statement", True),
    Row(
        11,
        "trajectory inversion",
        "Can films be reconstructed from networks trained on the set?",
        "inversion",
        False,
    ),
)
