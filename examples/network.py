"""The Perceiver alone: build it, load its weights, call it.

python examples/network.py [WEIGHTS.safetensors]
"""

import sys

import torch
from safetensors.torch import load_file

from perceiver_trainer import Perceiver, network_config

network = Perceiver(network_config("pictures"), seed=0).eval()
if sys.argv[1:]:
    network.load_state_dict(load_file(sys.argv[1]))
answers = network({"image": torch.zeros(2, 32, 32, 3, dtype=torch.uint8)})
print({name: tuple(answer.shape) for name, answer in answers.items()})
