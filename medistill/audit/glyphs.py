"""The search for written words: letters and digits side by side on one line, found by correlation with a font.

One letter proves nothing: ribs look like an I, and a film's own L or R is no word. Four to six in a row, of one
height, evenly spaced and of one polarity do not come about by chance. Pictures and letters lose their coarse shades
first, which tell nothing of a letter and vary most in a film: of planted words .88 instead of .82 were found at 32 px,
.98 instead of .95 at 64 px.
"""

import math
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
FONT = "DejaVuSans.ttf"
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
LENGTHS = (4, 5, 6)
CAP = 8
"""Height of a template's capitals, pixels; pictures are resized to it."""
MIN_CAP = 7.0
"""The smallest capitals searched: the 5 x 7 grid is the coarsest on which letters and digits are told apart."""
STEP = 1.2
OVERSAMPLED = 4
COARSE = 2.0
"""Standard deviation of the blur that is taken away, pixels of the resized picture."""
SPACING = (-2, 1)
"""Steps from a letter to the next, less the template's width, which has a pixel of margin on either side."""
BLOCK = 16
_FLAT = 0.15  # of the picture's deviation: below it a patch holds no ink
_NEVER = -10.0


def word_scores(pictures: Tensor) -> Tensor:
    """How much each picture's most word-like line correlates with letters: (B, 3), for words of 4, 5 and 6.

    A line's score is the mean correlation of its letters with their templates; lines of any place, polarity and
    capital height from 7 px to a third of the side are tried, each letter up to a pixel above or below the last.

    Args:
        pictures: (B, C, H, W) in any units; channels are averaged.
    """
    return torch.cat([_scores_of_block(block) for block in pictures.mean(1, keepdim=True).split(BLOCK)]).cpu()


def cap_sizes(side: int) -> list[float]:
    """The capital heights that are searched, pixels."""
    steps = math.log(max(side / 3 / MIN_CAP, 1), STEP)
    return [MIN_CAP * STEP**i for i in range(math.floor(steps + 1e-9) + 1)]


def rendered(text: str, cap: float, font: str = FONT) -> Tensor:
    """The ink of a text, (h, w) in [0, 1], with a pixel of margin: drawn large and shrunk, as on a film made smaller.

    Args:
        text: what to write.
        cap: height of its capitals, pixels.
        font: a file of matplotlib's fonts; capitals of DejaVu's are .73 of the font's size.
    """
    drawer = ImageFont.truetype(FONTS / font, round(OVERSAMPLED * cap / 0.73))
    left, top, right, bottom = drawer.getbbox(text)
    width, height = (round((end - start) / OVERSAMPLED) + 2 for start, end in ((left, right), (top, bottom)))
    drawn = Image.new("L", (width * OVERSAMPLED, height * OVERSAMPLED))
    ImageDraw.Draw(drawn).text((OVERSAMPLED - left, OVERSAMPLED - top), text, 255, drawer)
    small = drawn.resize((width, height), Image.Resampling.BOX)
    return torch.from_numpy(np.array(small, dtype=np.float32)) / 255


@lru_cache(maxsize=1)
def templates() -> dict[int, Tensor]:
    """The alphabet by width: (n, CAP + 2, width) float32, each of mean 0 and norm 1."""
    found: dict[int, list[Tensor]] = {}
    for character in ALPHABET:
        ink = rendered(character, CAP)[: CAP + 2]
        ink = F.pad(ink, (0, 0, 0, CAP + 2 - len(ink)))
        pixels = sharpened(ink[None, None])[0, 0]
        pixels = pixels - pixels.mean()
        found.setdefault(pixels.shape[1], []).append(pixels / pixels.norm())
    return {width: torch.stack(glyphs) for width, glyphs in sorted(found.items())}


def correlations(pictures: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
    """The best letter of each width with its left upper corner at each place: white and black, (B, h, w) each.

    Normalised cross-correlation of sharpened pictures (B, 1, H, W), 0 where a patch is flat.
    """
    pictures = sharpened(pictures)
    ink = (_FLAT * pictures.std((1, 2, 3), keepdim=True)) ** 2
    found = {}
    for width, glyphs in templates().items():
        glyphs = glyphs.to(pictures)
        box = torch.ones_like(glyphs[:1, None])
        count = box.numel()
        total, square = F.conv2d(pictures, box), F.conv2d(pictures.square(), box)
        power = (square - total.square() / count).clamp_min(0)
        scale = torch.where(power > count * ink, power.clamp_min(1e-12).rsqrt(), 0)
        values = F.conv2d(pictures, glyphs[:, None]) * scale
        found[width] = values.amax(1), -values.amin(1)
    return found


def sharpened(pictures: Tensor) -> Tensor:
    """Pictures (B, 1, H, W) less a Gaussian blur of themselves, their borders continued."""
    radius = math.ceil(3 * COARSE)
    offset = torch.arange(-radius, radius + 1, device=pictures.device, dtype=pictures.dtype)
    kernel = (-0.5 * (offset / COARSE).square()).exp()
    kernel = kernel / kernel.sum()
    wide = F.pad(pictures, (radius,) * 4, mode="replicate")
    return pictures - F.conv2d(F.conv2d(wide, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))


def chains(letters: dict[int, Tensor]) -> Tensor:
    """The highest mean over 4, 5 and 6 letters in a row, (B, 3), from maps (B, h, w) of letters by width."""
    columns = max(each.shape[2] for each in letters.values())
    maps = {width: F.pad(each, (0, columns - each.shape[2]), value=_NEVER) for width, each in letters.items()}
    line = torch.stack(list(maps.values())).amax(0)
    means = []
    for length in range(2, max(LENGTHS) + 1):
        level = F.max_pool2d(line[:, None], (3, 1), 1, (1, 0))[:, 0]
        reach = F.pad(level, (0, SPACING[1] - SPACING[0]), value=_NEVER)
        reach = F.max_pool1d(reach, SPACING[1] - SPACING[0] + 1, 1)  # the best beginning SPACING[0] ... SPACING[1] on
        steps = {width: width + SPACING[0] for width in maps}
        following = {width: F.pad(reach[:, :, step:], (0, step), value=_NEVER) for width, step in steps.items()}
        line = torch.stack([maps[width] + following[width][:, :, :columns] for width in maps]).amax(0)
        if length in LENGTHS:
            means.append(line.amax((1, 2)) / length)
    return torch.stack(means, 1)


def _scores_of_block(pictures: Tensor) -> Tensor:
    """`word_scores` of pictures (B, 1, H, W)."""
    scores = torch.full((len(pictures), len(LENGTHS)), _NEVER, device=pictures.device)
    for cap in cap_sizes(max(pictures.shape[2:])):
        factor = CAP / cap
        size = [round(side * factor) for side in pictures.shape[2:]]
        resized = F.interpolate(pictures, size, mode="bilinear" if factor < 1 else "bicubic", antialias=factor < 1)
        if min(size[0] - CAP - 2, size[1] - max(templates())) < 0:
            continue
        found = correlations(resized)
        for polarity in (0, 1):
            scores = scores.maximum(chains({width: maps[polarity] for width, maps in found.items()}))
    return scores
