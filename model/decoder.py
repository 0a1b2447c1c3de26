"""Latents to outputs: the mean of the latents, or queries that attend to them in one shared cross-attention.

B samples, N latents, D channels of a latent, O queries, E channels of a query
"""

from collections.abc import Callable, Collection

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from model.attention.layers import CrossAttend
from model.attention.norms import normalised
from model.config.perceiver import PerceiverConfig
from model.modalities.byte_array import Paddings, Tokens
from model.parameters import ByName, Projection
from model.training.dropout import LayerDraws, layer_draws


class Decoder(nn.Module):
    """Every output of a network.

    Queries read the latents and not each other, so each output is decoded alone, with the same weights: what the
    papers do in one array of queries, without building that array.
    """

    def __init__(self, config: PerceiverConfig, embedding: Callable[[str], Tensor]) -> None:
        super().__init__()
        answers = config.answers()
        widths = {name: output.own_width(config) for name, output in answers.items()}
        pooled = {name: output for name, output in answers.items() if not widths[name]}
        latent_width = config.latent_width
        self.means = ByName({name: output.head(latent_width, config, embedding) for name, output in pooled.items()})
        asked = {name: output for name, output in answers.items() if widths[name]}
        width, decoder, self.norm = config.decoder_width, config.decoder, config.norm
        self.queries = ByName({name: output.queries(config) for name, output in asked.items()})
        self.paddings = Paddings({name: widths[name] for name in asked}, width)
        self.asks_along = {name: output.asks_along() for name, output in asked.items()}
        self.asked_at = {name: output.asked_at() for name, output in asked.items()}
        self.answering_points = frozenset(name for name, output in asked.items() if output.answers_points())
        # A network that only averages its latents has no decoder: its parameters would never get a gradient.
        if asked:
            self.cross_attend = CrossAttend(
                width,
                latent_width,
                decoder.cross_attend,
                config.gelu,
                query_residual=decoder.query_residual,
                has_mlp=decoder.has_mlp,
                dropout=config.dropout,
                norm=config.norm,
                mlp=config.mlp,
            )
        # After those of the encoder: each output draws as a layer of its own.
        self.first_layer = config.num_layers
        self.project = Projection(width, decoder.output_width) if decoder.output_width else nn.Identity()
        row_width = decoder.output_width or width
        self.heads = ByName({name: output.head(row_width, config, embedding) for name, output in asked.items()})

    def forward(
        self,
        latents_BND: Float[Tensor, "B N D"],
        tokens: Tokens,
        places: dict[str, Tensor] | None = None,
        *,
        points: dict[str, Int[Tensor, " O"]] | None = None,
        outputs: Collection[str] | None = None,
        chunk: int = 0,
        draws_B2: Int[Tensor, "B 2"] | None = None,
    ) -> dict[str, Tensor]:
        """Return every answer by its output's name.

        `places` holds the arrays of coordinates that some outputs are asked at, by their input. `points` asks for some
        queries of an output only, by their number, such as the index in a flattened grid; `chunk` is the number of
        queries that are decoded at once, all of them for 0. `draws_B2` are the numbers that a training step draws from.
        """
        answers = {name: mean(latents_BND) for name, mean in self.means.items() if outputs is None or name in outputs}
        heads = {name: head for name, head in self.heads.items() if outputs is None or name in outputs}
        # Once for all outputs and chunks: the latents do not change while they are asked.
        keys_values = self.cross_attend.keys_values(normalised(latents_BND, self.norm)) if heads else None
        drawn = self._draws(draws_B2)
        for name, task_head in heads.items():
            asked = (points or {}).get(name)
            at = self.asked_at[name]
            own = self.queries[name](tokens, asked, *([(places or {})[at]] if at else []))
            queries_BOE = self.paddings(name, own)
            # A place without a byte asks nothing: the released code masks such queries, Hugging Face's does not.
            followed = self.asks_along[name]
            asking_BO = tokens.valid_of(followed) if followed else None
            rows_BOE = self._read(queries_BOE, keys_values, asking_BO, chunk or queries_BOE.shape[1], drawn.get(name))
            by_points = {"whole": asked is None} if name in self.answering_points else {}
            answers[name] = task_head(rows_BOE, **by_points)
        return answers

    def _draws(self, draws_B2: Tensor | None) -> dict[str, LayerDraws]:
        if draws_B2 is None:
            return {}
        # Of all outputs, also of those that are not asked: what an output draws does not depend on the others.
        return dict(zip(self.heads, layer_draws(draws_B2, len(self.heads), first=self.first_layer), strict=True))

    def _read(
        self,
        queries_BOE: Float[Tensor, "_B O E"],
        keys_values: tuple[Tensor, Tensor] | None,
        asking_BO: Bool[Tensor, "B O"] | None,
        chunk: int,
        draws: LayerDraws | None,
    ) -> Float[Tensor, "B O F"]:
        assert keys_values is not None
        assert draws is None or chunk >= queries_BOE.shape[1], "chunks would all drop the same values"
        rows = []
        for start in range(0, queries_BOE.shape[1], chunk):
            part = slice(start, start + chunk)
            asking = None if asking_BO is None else asking_BO[:, part]
            # Each chunk by itself is exact: queries read the latents and not each other.
            read = self.cross_attend(queries_BOE[:, part], *keys_values, asking_BN=asking, draws=draws)
            rows.append(self.project(read))
        return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)
