"""The folder of a network alone, as `perceiver import` and `perceiver export --safetensors` write it.

config.yaml, model.safetensors    the network
run.yaml                          the configuration of the run that it comes from, which says how its inputs are read
classes.json, ...                 what is known besides
"""

from dataclasses import replace
from pathlib import Path

from omegaconf import OmegaConf

from configs.network import NetworkConfig
from configs.run import RunConfig, dump
from launch.run.trained import preprocessing
from launch.run.trained.network import RUN, WEIGHTS
from launch.run.trained.preprocessing import Surroundings
from model.config.initial_weights import InitialWeightsConfig
from model.network import AnyNetwork
from trainer.checkpoint import tensor_file


def write(folder: Path, network: AnyNetwork, around: Surroundings, run: RunConfig | None = None) -> None:
    """Write the files of a network, and of the run that it comes from if there is one."""
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(NetworkConfig(network.config))))
    tensor_file.write(folder / WEIGHTS, network.state_dict())
    preprocessing.keep(around, folder)
    if run is not None:
        # Its own first weights are no part of what it became.
        whole = replace(run, model=network.config, initial_weights=InitialWeightsConfig())
        (folder / RUN).write_text(dump(whole), encoding="utf-8")


def refuse_plugins(run: RunConfig | None) -> None:
    """Raise ValueError where a network needs code that such a folder does not hold."""
    if run is not None and run.plugins:
        names = ", ".join(Path(path).name for path in run.plugins)
        raise ValueError(
            f"--safetensors: the run needs its plug-ins ({names}), which a folder of weights does not hold; export "
            "its network as ONNX, or give the run itself to initial_weights.source"
        )
