"""The head of a card, which Hugging Face's hub and library read."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from medistill.release.pictures import FOLDER, METADATA

# The hub's identifiers of licences as sources write them; what is not among them is "other" with its name.
LICENCES = {
    "apache20": "apache-2.0",
    "cc010": "cc0-1.0",
    "cc0": "cc0-1.0",
    "ccby30": "cc-by-3.0",
    "ccby40": "cc-by-4.0",
    "ccbync30": "cc-by-nc-3.0",
    "ccbync40": "cc-by-nc-4.0",
    "ccbyncnd40": "cc-by-nc-nd-4.0",
    "ccbyncsa40": "cc-by-nc-sa-4.0",
    "ccbysa30": "cc-by-sa-3.0",
    "ccbysa40": "cc-by-sa-4.0",
    "mit": "mit",
}

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def front_matter(name: str, images: int, overview: Mapping[str, Any]) -> str:
    """YAML between two lines of three hyphens.

    Args:
        name: of the set, shown on the hub.
        images: how many.
        overview: the source, as `medistill.release.card.card` takes it.
    """
    head = {
        "pretty_name": " ".join(name.split()),
        **_licence(str(overview.get("licence") or "")),
        "task_categories": ["image-classification"],
        "annotations_creators": ["machine-generated"],
        "size_categories": [next((label for most, label in SIZES if images < most), "1M<n<10M")],
        "tags": ["dataset-distillation", "synthetic", "not-for-diagnosis"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": [f"{FOLDER}/{METADATA}", f"{FOLDER}/**/*.png"]}],
            }
        ],
    }
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n"


def _licence(called: str) -> dict[str, str]:
    """The source's terms as the hub names them."""
    if not called:
        return {"license": "unknown"}
    known = LICENCES.get(re.sub(r"[^a-z0-9]", "", called.lower()))
    return {"license": known} if known else {"license": "other", "license_name": " ".join(called.split())}
