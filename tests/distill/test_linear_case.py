"""The engine where everything is known: linear regression, whose matching loss has its gradient in closed form.

f(x) = <theta, x> under the mean of (f - y)^2 / 2 has the slope A theta - b with A = X^T X / M and b = X^T y / M.
J steps of size alpha end at theta_J = F(A) theta_0 + G(A) b, where F(l) = (1 - alpha l)^J and
G(l) = alpha sum_{k<J} (1 - alpha l)^k.
"""

import pytest
import torch

from medistill.distill.unroll import draw_steps, matching_gradient
from medistill.seeds import generator


class Linear:
    """Slope and adjoint of linear regression: <slope, v> = <v, X^T (X theta - y)> / M, differentiated by hand."""

    def slope(self, theta, x, y):
        return x.T @ (x @ theta - y[:, 0]) / len(x)

    def adjoint(self, theta, x, y, v):
        along = x @ v
        dx = (torch.outer(x @ theta - y[:, 0], v) + torch.outer(along, theta)) / len(x)
        return x.T @ along / len(x), dx, -along[:, None] / len(x)


def problem(samples, inner_steps, d=6, alpha=0.3):
    g = generator(0, "linear", samples)
    x = torch.randn(samples, d, generator=g, dtype=torch.float64)
    y = torch.randn(samples, 1, generator=g, dtype=torch.float64)
    start, target = torch.randn(2, d, generator=g, dtype=torch.float64)
    weight = torch.rand(d, generator=g, dtype=torch.float64) + 0.5
    steps = draw_steps(samples, 0, inner_steps, (), g)
    return start, target, x, y, torch.tensor(alpha, dtype=torch.float64), weight, steps


def closed_form(start, target, x, y, alpha, weight, steps):
    """Loss and gradients in x, y and alpha through the eigenvectors of A (Daleckii and Krein's formula).

    With A = Q diag(l) Q^T, dF(A) = Q (K o Q^T dA Q) Q^T, where K holds the divided differences of F at the eigenvalues;
    those of p^k at p = 1 - alpha l are -alpha sum_{i<k} p_a^i p_b^(k-1-i).
    """
    count, samples = len(steps), len(x)
    values, q = torch.linalg.eigh(x.T @ x / samples)
    b = q.T @ (x.T @ y[:, 0]) / samples
    start, p = q.T @ start, 1 - alpha * values
    f, g = p**count, alpha * sum(p**k for k in range(count))
    residual = q @ (f * start + g * b) - target
    distance = (q @ start - target).square().sum()
    v = q.T @ (2 * weight**2 * residual / distance)

    differences = [-alpha * sum(torch.outer(p**i, p ** (k - 1 - i)) for i in range(k)) for k in range(count + 1)]
    of_f, of_g = differences[count], alpha * sum(differences[:count])
    d_matrix = q @ (of_f * torch.outer(v, start) + of_g * torch.outer(v, b)) @ q.T
    d_b = q @ (g * v)
    dx = (x @ (d_matrix + d_matrix.T) + torch.outer(y[:, 0], d_b)) / samples
    # dG/d alpha: l G = 1 - F, so it is J p^(J-1), as it is where l is 0
    steepness = count * p ** (count - 1)
    d_alpha = (v * steepness * (b - values * start)).sum()
    return (weight * residual).square().sum() / distance, dx, (x @ d_b)[:, None] / samples, d_alpha


def by_autograd(start, target, x, y, alpha, weight, steps):
    """Loss and gradients by autograd through the steps, written once more."""
    leaves = [leaf.clone().requires_grad_() for leaf in (x, y, alpha)]
    theta = start
    for _ in steps:
        theta = theta - leaves[2] * leaves[0].T @ (leaves[0] @ theta - leaves[1][:, 0]) / len(x)
    loss = (weight * (theta - target)).square().sum() / (start - target).square().sum()
    return loss, *torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("oracle", [closed_form, by_autograd])
@pytest.mark.parametrize("samples", [3, 6, 20], ids=["fewer samples than inputs", "as many", "more"])
@pytest.mark.parametrize("inner_steps", [1, 2, 15])
def test_the_engine_meets_the_closed_form(oracle, samples, inner_steps):
    given = problem(samples, inner_steps)
    found = matching_gradient(Linear(), *given)
    for ours, exact in zip((found.loss, found.images, found.labels, found.alpha), oracle(*given), strict=True):
        assert (ours - exact).norm() < 1e-9 * exact.norm()


def test_many_steps_forget_the_start():
    """With more samples than inputs theta_J nears least squares, whatever theta_0: the loss no longer feels alpha."""
    start, target, x, y, alpha, weight, _ = problem(20, 1)
    steps = draw_steps(20, 0, 400, (), generator(0, "many"))
    found = matching_gradient(Linear(), start, target, x, y, alpha, weight, steps)
    solution = torch.linalg.lstsq(x, y).solution[:, 0]
    torch.testing.assert_close(found.residual + target, solution, rtol=1e-9, atol=1e-9)
    assert found.alpha.abs() < 1e-9
