"""What the last linear layer receives."""

import pytest
import torch
from torch import nn

from medistill.nets import NETWORKS, Architecture
from medistill.nets.embedding import embedding


@pytest.mark.parametrize("name", NETWORKS)
def test_the_logits_follow_from_it_and_a_gradient_reaches_every_image(name):
    net = Architecture(name, 1, 3, 32, 32, 4).build(torch.Generator().manual_seed(0))
    x = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
    features = embedding(net, x)
    last = [layer for layer in net.modules() if isinstance(layer, nn.Linear)][-1]
    assert torch.allclose(last(features), net(x), atol=1e-6)
    (slope,) = torch.autograd.grad(features.square().sum(), x)
    assert (slope.abs().sum((1, 2, 3)) > 0).all()
    assert not any(layer._forward_pre_hooks for layer in net.modules())


def test_a_network_without_a_linear_layer_has_none():
    with pytest.raises(ValueError, match="the network has no linear layer"):
        embedding(nn.Flatten(), torch.zeros(1, 1, 2, 2))
