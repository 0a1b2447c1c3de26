"""Perceiver: read, think, answer."""

from jaxtyping import Float
from torch import Tensor, nn

from model.config import PerceiverConfig
from model.decoders import MeanClassifier
from model.encoder import Encoder
from model.inputs import Inputs
from model.parameters import draw_parameters


class Perceiver(nn.Module):
    """A network whose weights are a pure function of its config and seed."""

    def __init__(self, config: PerceiverConfig, *, seed: int) -> None:
        super().__init__()
        problems = [f"{key}: {sentence}" for key, sentence in config.problems()]
        if problems:
            raise ValueError("\n".join(problems))
        self.config = config
        self.inputs = Inputs(config)
        self.encoder = Encoder(config)
        assert config.outputs.label is not None
        self.decoder = MeanClassifier(config.latent_width, config.outputs.label.num_classes)
        draw_parameters(self, seed)

    def encode(self, inputs: dict[str, Tensor], lengths: dict[str, Tensor] | None = None) -> Float[Tensor, "B N D"]:
        """Return the latents; see `forward` for the arguments."""
        latents_BND: Tensor = self.encoder(self.inputs(inputs, lengths, self.encoder.latents.weight.dtype))
        return latents_BND

    def forward(self, inputs: dict[str, Tensor], lengths: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return the answer of every task by its name: "label" is logits (B, classes).

        `inputs` holds every modality of the config, as the loader delivers it; `lengths` how many entries along each
        modality's first axis are valid, 0 where a sample lacks it, and may be left out if all are there.
        """
        return {"label": self.decoder(self.encode(inputs, lengths))}
