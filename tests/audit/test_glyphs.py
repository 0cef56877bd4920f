"""The search for words: correlations and chains against plain loops, and words drawn on purpose."""

from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from medistill.audit import glyphs
from medistill.audit.glyphs import ALPHABET, CAP, cap_sizes, chains, correlations, rendered, templates, word_scores
from medistill.seeds import generator


def drawn(word: str, cap: float, side: int = 64, ink: float = 0.5) -> Tensor:
    """A word on a grey ground with a little noise, (1, 1, side, side)."""
    picture = 0.5 + 0.02 * torch.randn(1, 1, side, side, generator=generator(0, word))
    written = rendered(word, cap)
    picture[0, 0, 20 : 20 + written.shape[0], 4 : 4 + written.shape[1]] += ink * written[:, : side - 4]
    return picture


def test_text_is_as_high_as_it_says() -> None:
    for cap in (7.0, 8.0, 12.0, 20.0):
        ink = rendered("HEX7", cap)
        rows = torch.nonzero(ink.amax(1) > 0.5)
        assert abs(rows.max() - rows.min() + 1 - cap) <= 1 and ink.max() > 0.9
        assert ink[0].max() < 0.1 and ink[:, 0].max() < 0.1


def test_every_letter_has_a_template_of_mean_0_and_norm_1() -> None:
    found = templates()
    assert sum(len(each) for each in found.values()) == len(ALPHABET) == 36
    for width, each in found.items():
        assert each.shape[1:] == (CAP + 2, width)
        torch.testing.assert_close(each.mean((1, 2)), torch.zeros(len(each)), atol=1e-6, rtol=0)
        torch.testing.assert_close(each.norm(dim=(1, 2)), torch.ones(len(each)))


def test_correlations_are_pearsons() -> None:
    picture = torch.rand(1, 1, 20, 24, generator=generator(0, "picture"))
    sharp = glyphs.sharpened(picture)[0, 0]
    white_black = correlations(picture)
    for width, each in templates().items():
        for y, x in ((0, 0), (5, 7), (10, 24 - width)):
            patch = sharp[y : y + CAP + 2, x : x + width].flatten().numpy()
            values = [np.corrcoef(patch, glyph.flatten())[0, 1] for glyph in each]
            white, black = (maps[0, y, x].item() for maps in white_black[width])
            assert white == pytest.approx(max(values), abs=1e-4) and black == pytest.approx(-min(values), abs=1e-4)


def test_a_flat_patch_is_no_letter() -> None:
    picture = 1e-3 * torch.rand(1, 1, 40, 40, generator=generator(0, "grain"))
    picture[:, :, 25:] = torch.rand(15, 40, generator=generator(0, "picture"))
    for white, black in correlations(picture).values():
        assert white[:, :5].abs().max() == 0 and black[:, :5].abs().max() == 0


def test_chains_are_the_best_of_all_rows_of_letters() -> None:
    """Against a plain enumeration: widths 3 and 5, the next letter width - 2 to width + 1 on, a pixel up or down."""
    source = generator(0, "maps")
    letters = {3: torch.rand(2, 3, 24, generator=source), 5: torch.rand(2, 3, 22, generator=source)}

    steps = list(product((-1, 0, 1), (-2, -1, 0, 1)))

    @cache
    def best(picture: int, y: int, x: int, length: int) -> float:
        values = [-10.0]
        for width, maps in letters.items():
            if 0 <= y < 3 and x < maps.shape[2]:
                rest = max(best(picture, y + up, x + width + gap, length - 1) for up, gap in steps) if length > 1 else 0
                values.append(maps[picture, y, x].item() + rest)
        return max(values)

    expected = [max(best(picture, y, x, 4) for y in range(3) for x in range(24)) / 4 for picture in (0, 1)]
    torch.testing.assert_close(chains(letters)[:, 0], torch.tensor(expected))


@pytest.mark.parametrize("cap", [7.0, 8.0, 11.0, 16.0])
@pytest.mark.parametrize("ink", [0.5, -0.5])
def test_a_word_of_any_size_and_polarity_stands_out(cap: float, ink: float) -> None:
    text = word_scores(drawn("A7K2", cap, ink=ink))[0, 0]
    noise = word_scores(torch.rand(20, 1, 64, 64, generator=generator(0, "noise")))[:, 0]
    assert text > 0.67 > 0.55 > noise.max()


def test_longer_words_are_told_by_more_letters() -> None:
    four, six = word_scores(torch.cat([drawn("WARD", 8), drawn("WARD21", 8)]))
    assert four[0] > 0.7 > 0.65 > four[2] and six.min() > 0.7


def test_a_lone_letter_is_no_word() -> None:
    lone, word = word_scores(torch.cat([drawn("R", 8), drawn("RLRL", 8)]))
    assert lone.max() < 0.6 < 0.7 < word[0]


def test_sizes_go_from_seven_pixels_to_a_third_of_the_side() -> None:
    assert cap_sizes(16) == [7]
    assert cap_sizes(64) == pytest.approx([7 * 1.2**i for i in range(7)]) and cap_sizes(64)[-1] <= 64 / 3


def test_blocks_do_not_change_the_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = torch.rand(5, 3, 32, 40, generator=generator(0, "picture"))
    whole = word_scores(pictures)
    monkeypatch.setattr(glyphs, "BLOCK", 2)
    torch.testing.assert_close(word_scores(pictures), whole)
