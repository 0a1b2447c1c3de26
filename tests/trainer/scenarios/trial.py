"""Print how many graphs are compiled by the trial of a micro-batch, and how many by the first step after it."""

import json
import sys
from dataclasses import replace

import torch
from stem import CONFIG, GLOBAL_BATCH, GOAL, OPTIMIZER, images

import model.training.compilation
from model.perceiver import Perceiver
from trainer.config import TrainConfig
from trainer.distributed.world import World
from trainer.engine.engine import Engine
from trainer.engine.memory import fitting

compiled: list[torch.fx.GraphModule] = []


def backend(graph: torch.fx.GraphModule, _inputs: object) -> object:
    compiled.append(graph)
    return graph.forward


model.training.compilation.frugal_inductor = backend
world = World.from_environment(60.0)
network = Perceiver(replace(CONFIG, compile=True), seed=0)
train = TrainConfig(global_batch=GLOBAL_BATCH, precision="bf16", steps=2)
fitting(network, GOAL, images(0), train, world)
by_trial = len(compiled)
trained = Engine(network, GOAL, optimizer=OPTIMIZER, train=train, world=world)
trained.step(images(0))
trained.close()
world.close()
sys.stdout.write(json.dumps([by_trial, len(compiled) - by_trial]))
