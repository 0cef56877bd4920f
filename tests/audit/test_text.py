"""Check 9: planted words are found, pictures without are not, and blindness is no pass."""

import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from medistill.audit import text as module
from medistill.audit.check import Candidate, Private
from medistill.audit.text import Scale, check, judge, planted_words, random_phases
from medistill.data import phantom
from medistill.seeds import generator

SIDE = 48


@pytest.fixture(scope="module")
def lungs() -> Tensor:
    """Phantom films, lead letters and all."""
    return phantom.films(2, SIDE, 11)[0]


def test_evidence_by_hand() -> None:
    """Means (.4, .6), deviations (.1, .2) of the two kinds: the larger of each counts, and the most telling word."""
    low, high = torch.tensor([0.3, 0.4, 0.5]), torch.tensor([0.2, 0.6, 1.0])
    first = low[:, None].expand(3, 3)
    second = high[:, None].expand(3, 3)
    scale = Scale.of(first, second)
    assert scale.mean.tolist() == pytest.approx([0.6] * 3) and scale.deviation.tolist() == pytest.approx([0.4] * 3)
    scores = torch.tensor([[0.6, 1.0, 0.2], [0.6, 0.6, 2.6]])
    assert scale.evidence(scores).tolist() == pytest.approx([1, 5]) and scale.fired(scores) == 1


def verdict_of(images: list[float], planted: list[float], others: list[float]) -> tuple[str, float | None]:
    """The verdict where clean pictures score 0 with deviation 1."""
    clean = torch.tensor([-1.0, 0.0, 1.0])[:, None].expand(3, 3)
    scores = (torch.tensor(values)[:, None].expand(-1, 3) for values in (images, planted))
    found = judge(*scores, clean, clean, torch.tensor(others)[:, None].expand(-1, 3))
    return found.verdict, found.power


def test_the_rule() -> None:
    assert verdict_of([0, 3.9], [9] * 8 + [0] * 2, [0] * 20) == ("pass", 0.8)
    assert verdict_of([0, 4.1], [9] * 8 + [0] * 2, [0] * 20) == ("fail", 0.8)
    assert verdict_of([0, 3.9], [9] * 7 + [0] * 3, [0] * 20) == ("inconclusive", 0.7)
    assert verdict_of([0, 4.1], [0] * 10, [0] * 20) == ("fail", 0.0)
    assert verdict_of([0, 0], [9] * 10, [9] * 2 + [0] * 18) == ("inconclusive", 1.0)


def test_clean_pictures_pass_with_power(candidate: Callable[..., Candidate], private: Private, lungs: Tensor) -> None:
    found = check(candidate(lungs), private).check
    assert found.verdict == "pass" and found.power is not None and found.power >= 0.8
    assert found.statistic["with_text"] == 0 and found.interval is not None and found.interval[0] == 0
    assert isinstance(found.negative_control, dict) and found.negative_control["fired"] <= 1
    assert found.negative_control["pictures"] == 120
    json.dumps(found.to_json(), allow_nan=False)


def test_one_word_on_one_image_fails(candidate: Callable[..., Candidate], private: Private, lungs: Tensor) -> None:
    leak = torch.cat([lungs[:5], planted_words(lungs[5:], generator(3, "leak"))])
    found = check(candidate(leak), private).check
    assert found.verdict == "fail" and found.statistic["with_text"] == 1
    assert "1 of 6 synthetic images" in found.explanation


def test_noise_that_is_learned_pass(candidate: Callable[..., Candidate], private: Private) -> None:
    """Stripes and blobs, as distilled images have them, in units far from [0, 1]."""
    grid = torch.arange(SIDE).float()
    stripes = torch.stack([torch.sin(grid / period).expand(SIDE, SIDE) for period in (0.6, 0.8, 1.1)])[:, None]
    noise = torch.randn(3, 1, SIDE, SIDE, generator=generator(0, "noise"))
    found = check(candidate(3 * stripes + noise), private).check
    assert found.statistic["with_text"] == 0


def test_words_are_written_in_view(lungs: Tensor) -> None:
    pictures = lungs.repeat(10, 1, 1, 1)
    written = planted_words(pictures, generator(0, "words"))
    changed = (written - pictures).abs()
    assert torch.equal(written, planted_words(pictures, generator(0, "words")))
    for picture, before, difference in zip(written[:, 0], pictures[:, 0], changed[:, 0], strict=True):
        inked = torch.nonzero(difference > 0.1 * difference.max())
        height, width = (inked.amax(0) - inked.amin(0) + 1).tolist()
        assert 6 <= height <= 16 and 12 <= width <= SIDE
        low, high = before.quantile(0.01), before.quantile(0.99)
        assert difference.max() > 0.35 * (high - low)
        (top, left), (bottom, right) = inked.amin(0).tolist(), (inked.amax(0) + 1).tolist()
        grey = (before[top:bottom, left:right].mean() - low) / (high - low)
        if abs(grey - 0.5) > 0.1:  # nearer to the middle the margin decides
            ink = high if grey < 0.5 else low
            assert bool(((picture - ink).abs() <= (before - ink).abs() + 1e-6).all())


def test_words_are_names_dates_and_numbers() -> None:
    source = generator(0, "words")
    words = [module._word(source) for _ in range(300)]
    names = [word for word in words if word.isalpha()]
    dates = [word for word in words if "." in word]
    numbers = [word for word in words if word.isdigit()]
    assert len(names) + len(dates) + len(numbers) == 300 and min(map(len, (names, dates, numbers))) > 70
    assert {len(word) for word in names} == {4, 5, 6, 7} and {len(word) for word in numbers} == {5, 6, 7, 8}
    assert all(1930 <= int(word[6:]) <= 2024 and 1 <= int(word[3:5]) <= 12 for word in dates)


def test_random_phases_keep_the_spectrum(lungs: Tensor) -> None:
    textures = random_phases(lungs, generator(0, "phases"))
    before, after = (torch.fft.rfft2(each).abs() for each in (lungs, textures))
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)
    correlation = torch.corrcoef(torch.stack([lungs[0].flatten(), textures[0].flatten()]))[0, 1]
    assert correlation.abs() < 0.5


def test_no_room_for_letters_does_not_apply(candidate: Callable[..., Candidate], private: Private) -> None:
    found = check(candidate(torch.rand(2, 1, 16, 16)), private).check
    assert found.verdict == "not applicable" and "16 px" in found.explanation
