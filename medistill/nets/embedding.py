"""What a network sees in an image before it decides."""

from torch import Tensor, nn


def embedding(module: nn.Module, x: Tensor) -> Tensor:
    """(B, F) what the last linear layer receives for images x (B, C, H, W), differentiable in them.

    The last layer is the last one called, so it may stand anywhere in the module. Raises ValueError for a network
    without a linear layer.
    """
    seen: list[Tensor] = []

    def keep(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[:] = [inputs[0].flatten(1)]

    hooks = [layer.register_forward_pre_hook(keep) for layer in module.modules() if isinstance(layer, nn.Linear)]
    if not hooks:
        raise ValueError("embedding: the network has no linear layer")
    try:
        module(x)
    finally:
        for hook in hooks:
            hook.remove()
    return seen[0]
