"""The search for the real film nearest to an image, over flip, inversion, shift and scale, at several sizes.

Shift and scale along the axes are separable, so a warped image is A x Bᵀ with one resampling matrix an axis,
which also filters and resizes. ZNCC over the region where the warped image covers the film is then a matrix
product of (variants x pixels) and (pixels x films); inversion only turns its sign.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

SIZES = (32, 16)
SCALES = tuple(0.8 * (1.25 / 0.8) ** (step / 8) for step in range(9))
SHIFT = 0.05
SHIFT_STEPS = 5
CANDIDATES = 8
BLOCK = 32
WINDOW = 7
WINDOW_SIGMA = 1.5
_FLAT = 1e-4  # a region whose sd is below this is flat: less than a fortieth of an 8-bit grey value


@dataclass(frozen=True)
class Match:
    """The nearest film of M queries by one statistic, and the transformation of the query that lies on it.

    Attributes:
        value: (M,) float32, the highest value of the statistic.
        background: (M,) float32, the lowest value of the 8 candidates: what films reach by looking alike.
        index: (M,) int64, the film that reached the highest value.
        scale: (M,) float32, the factor that scaled the query: .8 for a copy cropped to .8 of the side.
        shift: (M, 2) float32, then moved down and right by this share of the side.
        flipped: (M,) bool, mirrored left and right before.
        inverted: (M,) bool, black and white exchanged.
    """

    value: Tensor
    background: Tensor
    index: Tensor
    scale: Tensor
    shift: Tensor
    flipped: Tensor
    inverted: Tensor


@dataclass(frozen=True)
class _Warps:
    """The resampling matrices of one size, for all scales (S), shifts (T) and flips (2)."""

    rows: Tensor  # (S, T, h, H)
    cols: Tensor  # (S, 2, T, w, W)
    row_inside: Tensor  # (S, T, h) 1 where the warped query covers the film
    col_inside: Tensor  # (S, T, w)
    shifts: Tensor  # (S, T)


def nearest_neighbours(queries: Tensor, reference: Tensor) -> dict[str, Match]:
    """The nearest reference film of each query by ZNCC and by SSIM, at full size, 32 and 16 px.

    Every query is tried against every film under 9 scales from .8 to 1.25, 5 x 5 shifts up to 5 % of the
    side (below scale .9 up to where the query touches the film's edge: wherever a crop may lie), flip and
    inversion. ZNCC is taken over the region that the warped query covers, all channels together; a flat
    region gives 0. SSIM is taken, at each size, on the 8 candidates of highest ZNCC only, each under its best
    transformation. Synthetic images leave [0, 1], so the query first gets the film's mean and sd over the
    covered region, whatever its units. Holdout films that go through this function meet the same rules:
    comparisons stay exchangeable.

    Args:
        queries: (M, C, H, W) float.
        reference: (N, C, H, W) float in [0, 1], H and W at least 16. The search runs on its device.

    Returns:
        One Match for each statistic, on the CPU: for 64 px films "zncc_64", "zncc_32", "zncc_16", "ssim_64"
        and so on; sizes above the full one are left out.

    Raises:
        ValueError: where the shapes do not fit, or a value is not finite.
    """
    if queries.shape[1:] != reference.shape[1:] or min(reference.shape[2:]) < min(SIZES) or not len(reference):
        raise ValueError(
            f"queries {tuple(queries.shape)} and reference {tuple(reference.shape)} must have films, one "
            f"shape, and at least {min(SIZES)} px a side"
        )
    if not (queries.isfinite().all() and reference.isfinite().all()):
        raise ValueError("queries and reference must be finite: a comparison with NaN would never fire")
    queries, reference = queries.to(reference), reference.float()
    zncc, ssim = {}, {}
    for size in _sizes(reference):
        name = max(size)
        zncc[f"zncc_{name}"], ssim[f"ssim_{name}"] = _search(queries.float(), reference, size)
    return zncc | ssim


def largest_zncc(queries: Tensor, reference: Tensor) -> Tensor:
    """(M, N) the ZNCC of each query with every film, largest over all transformations, at 32 px or the films' size.

    The first half of `nearest_neighbours`, for attacks that rank all films; same arguments. Inversion counts as
    likeness, so no value is negative. The result stays on the device of `reference`.
    """
    size = next(size for size in _sizes(reference) if max(size) <= max(SIZES))
    films, inverse_norms, warps = _prepared(reference.float(), size)
    blocks = queries.to(films).split(BLOCK)
    return torch.cat([_zncc(block, films, inverse_norms, warps)[0].abs() for block in blocks])


def resample(images: Tensor, scale: Tensor, shift: Tensor, flip: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale and shift each image about the frame's centre, then resize, in one step.

    Args:
        images: (B, C, H, W).
        scale: (B,) factor.
        shift: (B, 2) share of the side, down and right.
        flip: (B,) bool, mirror left and right first.
        size: (h, w) of the output.

    Returns:
        (B, C, h, w), zeros where the image does not reach. One scale, shift and flip serve all images too.
    """
    rows = _axis(scale, shift[:, 0], images.shape[2], size[0])[0]
    cols = _axis(scale, shift[:, 1], images.shape[3], size[1])[0]
    cols = torch.where(flip.view(-1, 1, 1), cols.flip(-1), cols)
    return rows[:, None] @ images @ cols[:, None].mT


def ssim_map(x: Tensor, y: Tensor) -> Tensor:
    """SSIM of x and y (B, C, H, W) at each place where the whole window fits: (B, C, H - 6, W - 6).

    Wang et al. (2004), eq. 13, data range 1, K = (.01, .03), Gaussian window of sd 1.5 over 7 x 7 pixels: at
    16 px the usual 11 would leave too few places.
    """
    offset = torch.arange(WINDOW, device=x.device, dtype=x.dtype) - WINDOW // 2
    window = torch.exp(-(offset**2) / (2 * WINDOW_SIGMA**2))
    window = window / window.sum()

    def smooth(z: Tensor) -> Tensor:
        z = F.conv2d(z.flatten(0, 1)[:, None], window.view(1, 1, -1, 1))
        return F.conv2d(z, window.view(1, 1, 1, -1)).view(*x.shape[:2], z.shape[2], -1)

    mean_x, mean_y = smooth(x), smooth(y)
    var_x, var_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    cov = smooth(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
    return luminance * (2 * cov + 0.03**2) / (var_x + var_y + 0.03**2)


def _sizes(images: Tensor) -> list[tuple[int, int]]:
    """(h, w) of the full size and of the smaller sizes, by the longer side, the largest first."""
    full = max(images.shape[2:])
    sides = [full, *(side for side in SIZES if side < full)]
    return [(round(images.shape[2] * side / full), round(images.shape[3] * side / full)) for side in sides]


def _axis(scale: Tensor, shift: Tensor, source: int, target: int) -> tuple[Tensor, Tensor]:
    """Resampling matrices (B, target, source) of one axis, and where they lie inside the image (B, target).

    A triangle as wide as the coarser of the two grids: bilinear when enlarging, antialiased when shrinking.
    """
    centre = (torch.arange(target, device=scale.device) + 0.5) / target - 0.5
    origin = (centre - shift[:, None]) / scale[:, None]  # (B, target), in shares of the side
    position = (origin + 0.5) * source - 0.5
    width = (source / (target * scale)).clamp_min(1).view(-1, 1, 1)
    distance = (position[:, :, None] - torch.arange(source, device=scale.device)).abs() / width
    weight = (1 - distance).clamp_min(0)
    inside = (origin.abs() <= 0.5 + 1e-6).to(weight)
    weight = weight / weight.sum(2, keepdim=True).clamp_min(1e-6)
    return weight * inside[:, :, None], inside


def _warps(source: tuple[int, int], target: tuple[int, int], device: torch.device) -> _Warps:
    """All resampling matrices from the full size to one of the sizes."""
    scale = torch.tensor(SCALES, device=device)
    reach = ((1 - scale) / 2).clamp_min(SHIFT)
    shifts = reach[:, None] * torch.linspace(-1, 1, SHIFT_STEPS, device=device)  # (S, T)
    flat = scale[:, None].expand_as(shifts).flatten()
    grid = (len(SCALES), SHIFT_STEPS)
    rows, row_inside = (m.unflatten(0, grid) for m in _axis(flat, shifts.flatten(), source[0], target[0]))
    cols, col_inside = (m.unflatten(0, grid) for m in _axis(flat, shifts.flatten(), source[1], target[1]))
    return _Warps(rows, torch.stack([cols, cols.flip(-1)], 1), row_inside, col_inside, shifts)


def _search(queries: Tensor, reference: Tensor, size: tuple[int, int]) -> tuple[Match, Match]:
    """The best match of each query by ZNCC and by SSIM at one size."""
    films, inverse_norms, warps = _prepared(reference, size)
    blocks = [_search_block(block, films, inverse_norms, warps) for block in queries.split(BLOCK)]
    zncc, ssim = zip(*blocks, strict=True)
    return _join(zncc), _join(ssim)


def _prepared(reference: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, _Warps]:
    """The films at one size (N, C, h, w), one over their norms in each region, and the warps of queries to it."""
    warps = _warps((reference.shape[2], reference.shape[3]), size, reference.device)
    still = torch.zeros(1, 2, device=reference.device)
    films = resample(reference, still[:, 0] + 1, still, still[:, 0] > 0, size)
    return films, _inverse_norms(films, warps), warps


def _search_block(queries: Tensor, films: Tensor, inverse_norms: Tensor, warps: _Warps) -> tuple[Match, Match]:
    """The best matches of a block of queries (B, C, H, W)."""
    signed, code = _zncc(queries, films, inverse_norms, warps)  # (B, N)
    index = signed.abs().topk(min(CANDIDATES, len(films)), dim=1).indices  # (B, K)
    signed, code = signed.gather(1, index), code.gather(1, index)
    inverted = signed < 0
    ssim = _ssim(queries, films[index], inverted, code, warps)
    return _match(signed.abs(), index, code, inverted, warps), _match(ssim, index, code, inverted, warps)


def _inverse_norms(films: Tensor, warps: _Warps) -> Tensor:
    """One over the norm of each film (N, C, h, w), centred, in each region: (S, T, T, N), 0 where flat.

    In double precision, as a small variance is the difference of two large sums.
    """
    channels = films.shape[1]
    rows, cols = warps.row_inside.double(), warps.col_inside.double()
    count = rows.sum(2)[:, :, None, None] * cols.sum(2)[:, None, :, None] * channels
    parts = []
    for part in films.split(1024):
        part = part.double()
        total = torch.einsum("sth,nhw,suw->stun", rows, part.sum(1), cols)
        square = torch.einsum("sth,nhw,suw->stun", rows, part.square().sum(1), cols)
        norm = (square - total**2 / count).clamp_min(0).sqrt()
        parts.append(torch.where(norm > _FLAT * count.sqrt(), 1 / norm, 0).float())
    return torch.cat(parts, 3)


def _zncc(queries: Tensor, films: Tensor, inverse_norms: Tensor, warps: _Warps) -> tuple[Tensor, Tensor]:
    """The ZNCC of largest size over all warps, with its sign (B, N), and its warp's code (B, N) int64."""
    best = torch.zeros(len(queries), len(films), device=films.device)
    code = torch.zeros_like(best, dtype=torch.int64)
    columns = films.flatten(1).T  # (C h w, N)
    for scale in range(len(SCALES)):
        for shift in range(SHIFT_STEPS):
            pixels = _normalised(queries, scale, shift, warps)  # (2, T, B, C h w)
            zncc = ((pixels @ columns) * inverse_norms[scale, shift][:, None]).flatten(0, 1)  # (2 T, B, N)
            largest, at = zncc.abs().max(0)
            better = largest > best.abs()
            best = torch.where(better, zncc.gather(0, at[None])[0], best)
            code = torch.where(better, at + (scale * SHIFT_STEPS + shift) * len(zncc), code)
    return best.clamp(-1, 1), code


def _normalised(queries: Tensor, scale: int, shift: int, warps: _Warps) -> Tensor:
    """Queries warped by one scale and vertical shift: zero mean, unit norm where they cover the film, else 0.

    Returns:
        (2, T, B, C h w): flips, horizontal shifts, queries, pixels.
    """
    lines = warps.rows[scale, shift] @ queries  # (B, C, h, W)
    warped = lines @ warps.cols[scale][:, :, None, None].mT  # (2, T, B, C, h, w)
    inside = warps.row_inside[scale, shift][:, None] * warps.col_inside[scale][:, None]  # (T, h, w)
    count = (inside.sum((1, 2)) * queries.shape[1]).view(1, -1, 1, 1)
    inside = inside[None, :, None, None].expand(-1, -1, -1, queries.shape[1], -1, -1).flatten(3)
    pixels = warped.flatten(3)
    pixels = (pixels - pixels.sum(3, keepdim=True) / count) * inside
    norm = pixels.norm(dim=3, keepdim=True)
    return pixels * torch.where(norm > _FLAT * count.sqrt(), 1 / norm, 0)


def _decode(code: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The index of scale, vertical shift, flip and horizontal shift of a warp's code."""
    code, right = code // SHIFT_STEPS, code % SHIFT_STEPS
    code, flip = code // 2, code % 2
    return code // SHIFT_STEPS, code % SHIFT_STEPS, flip, right


def _ssim(queries: Tensor, films: Tensor, inverted: Tensor, code: Tensor, warps: _Warps) -> Tensor:
    """Mean SSIM (B, K) of queries (B, C, H, W), warped by code (B, K), with films (B, K, C, h, w)."""
    scale, down, flip, right = _decode(code)
    rows, cols = warps.rows[scale, down][:, :, None], warps.cols[scale, flip, right][:, :, None]
    warped = rows @ queries[:, None] @ cols.mT  # (B, K, C, h, w)
    row_inside, col_inside = warps.row_inside[scale, down], warps.col_inside[scale, right]
    inside = (row_inside[..., :, None] * col_inside[..., None, :])[:, :, None]  # (B, K, 1, h, w)
    mean, sd = _moments(warped, inside)
    film_mean, film_sd = _moments(films, inside)
    slope = torch.where(inverted[..., None, None, None], -1.0, 1.0) * film_sd / sd.clamp_min(_FLAT)
    matched = (warped - mean) * slope + film_mean
    values = ssim_map(matched.flatten(0, 1), films.flatten(0, 1)).unflatten(0, code.shape)
    whole = -F.max_pool2d(-inside.flatten(0, 1), WINDOW, 1).unflatten(0, code.shape)
    return (values * whole).mean(2).sum((2, 3)) / whole.sum((2, 3, 4))


def _moments(images: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and sd of images (B, K, C, h, w) over a region (B, K, 1, h, w), all channels together."""
    count = inside.sum((2, 3, 4), keepdim=True) * images.shape[2]
    mean = (images * inside).sum((2, 3, 4), keepdim=True) / count
    return mean, (((images - mean) * inside).square().sum((2, 3, 4), keepdim=True) / count).sqrt()


def _match(value: Tensor, index: Tensor, code: Tensor, inverted: Tensor, warps: _Warps) -> Match:
    """The best of K candidates, all arguments (B, K), by value."""
    background = value.amin(1)
    best = value.argmax(1, keepdim=True)
    value, index, code, inverted = (tensor.gather(1, best)[:, 0] for tensor in (value, index, code, inverted))
    scale, down, flip, right = _decode(code)
    scales = torch.tensor(SCALES, device=code.device)[scale]
    shift = torch.stack([warps.shifts[scale, down], warps.shifts[scale, right]], 1)
    return Match(
        value.cpu(),
        background.cpu(),
        index.cpu(),
        scales.cpu(),
        shift.cpu(),
        (flip == 1).cpu(),
        inverted.cpu(),
    )


def _join(matches: Sequence[Match]) -> Match:
    """Matches of several blocks of queries, one after the other."""
    return Match(*(torch.cat([getattr(match, f.name) for match in matches]) for f in fields(Match)))
