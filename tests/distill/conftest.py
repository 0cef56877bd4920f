"""Toy experts: random walks that stand for trajectories."""

import pytest
import torch

from medistill import seeds
from medistill.experts.trajectory import Trajectories, save_trajectory
from medistill.nets import Architecture, flatten

ARCHITECTURE = Architecture("convnet", 1, 3, 16, 4, 2)


@pytest.fixture(scope="session")
def trajectories(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experts")
    files = []
    for index in range(2):
        g = seeds.generator(5, "toy expert", index)
        theta = [flatten(ARCHITECTURE.build(g)).double()]
        for _ in range(5):
            theta.append(theta[-1] + 0.02 * torch.randn(len(theta[0]), generator=g).double())
        files.append(folder / f"expert_{index}.safetensors")
        save_trajectory(files[-1], torch.stack(theta), ARCHITECTURE)
    return Trajectories.open(files)
