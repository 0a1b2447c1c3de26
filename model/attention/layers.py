"""The two layers built from attention.

B samples, H heads, N queries, M keys, K channels of a head's queries and keys, V of its values
D channels of what asks (latents), C channels of what is read (tokens)
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from model.attention.absorbed.tiled import read_tokens
from model.attention.absorbed.token_sources import TokenSource
from model.attention.alignment import FromHeads, ToHeads, widened
from model.attention.dispatch import attend
from model.attention.mlp import Gelu, Mlp
from model.attention.norms import HeadNorm, RmsNorm, norm_of, token_norm
from model.attention.rotary import angles, rotated
from model.config.attention import AttentionConfig, MlpKind, NormKind, ResidualDtype
from model.training.compilation import Compile, Regions
from model.training.dropout import ATTENTION, MLP, LayerDraws, dropped


def in_autocast(tokens: Float[Tensor, "*S C"]) -> Float[Tensor, "*S C"]:
    """Return the tokens in the precision in which autocast would multiply them, if it is on."""
    device = tokens.device.type
    if tokens.dtype != torch.float32 or not torch.amp.is_autocast_available(device):
        return tokens
    return tokens.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else tokens


class Attention(nn.Module):
    """The four projections around `attend`."""

    def __init__(self, query_width: int, token_width: int, config: AttentionConfig, *, default_width: int) -> None:
        super().__init__()
        qk_width, value_width = config.widths(default_width)
        self.num_heads = config.num_heads
        self.scale = (qk_width // config.num_heads) ** -0.5
        # Three layers and not one: LAMB has a trust ratio for each tensor, so joined weights would train otherwise than
        # the papers'. Joining them for one product was measured: it costs what the product saves.
        heads, has_bias = config.num_heads, config.qkv_bias
        self.query = ToHeads(query_width, qk_width, heads, has_bias=has_bias)
        self.key = ToHeads(token_width, qk_width, heads, has_bias=has_bias)
        self.value = ToHeads(token_width, value_width, heads, has_bias=has_bias)
        self.output = FromHeads(value_width, query_width, config.num_heads)
        head_width = qk_width // config.num_heads
        # Without the option there is no module: names, and what a seed draws, are those of the papers' network.
        if config.qk_norm:
            self.norm_query, self.norm_key = HeadNorm(head_width), HeadNorm(head_width)
        self.qk_norm, self.num_pairs = config.qk_norm, head_width // 2

    def heads(self, values: Float[Tensor, "B S C"]) -> Float[Tensor, "B H S c"]:
        """Split the channels into heads, contiguous groups of them."""
        return values.reshape(*values.shape[:2], self.num_heads, -1).transpose(1, 2)

    def queries(self, values: Float[Tensor, "B S D"]) -> Float[Tensor, "B H S K"]:
        """Return the queries of normalised values."""
        heads = self.heads(self.query(values))
        if self.qk_norm:
            heads = self.norm_query(heads)
        return heads

    def keys(self, projected: Float[Tensor, "B S F"]) -> Float[Tensor, "B H S K"]:
        """Return the keys that their projection gives."""
        heads = self.heads(projected)
        if self.qk_norm:
            heads = self.norm_key(heads)
        return heads

    def answer(self, heads: Float[Tensor, "B H N V"]) -> Float[Tensor, "B N D"]:
        """Join the heads and project them to the width of what asked."""
        out: Tensor = self.output(heads.transpose(1, 2).flatten(start_dim=2))
        return out


class KeysValues:
    """The keys and values of what came before, to which each use adds its own."""

    def __init__(self) -> None:
        self.pair: tuple[Tensor, ...] = ()

    @property
    def num_places(self) -> int:
        """Places that came before."""
        return self.pair[0].shape[2] if self.pair else 0

    def join(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return all keys and values, the given ones as the last."""
        pair = keys, values
        if self.pair:
            pair = torch.cat([self.pair[0], keys], dim=2), torch.cat([self.pair[1], values], dim=2)
        self.pair = pair
        return pair


class SelfAttend(nn.Module):
    """A pre-norm transformer layer over the latents, each of which sees all or, if `causal`, no later ones."""

    def __init__(
        self,
        width: int,
        config: AttentionConfig,
        gelu: Gelu,
        *,
        dropout: float = 0.0,
        compile: Compile = False,  # noqa: A002  # the config's key
        residual_dtype: ResidualDtype = "fp32",
        causal: bool = False,
        norm: NormKind = "layer",
        mlp: MlpKind = "gelu",
    ) -> None:
        super().__init__()
        self.region, self.causal, self.dropout = Regions(compile), causal, dropout
        make_norm, self.rotary = norm_of(norm, residual_dtype), config.rotary
        self.norm_attention = make_norm(width)
        self.attention = Attention(width, width, config, default_width=width)
        self.norm_mlp = make_norm(width)
        self.mlp = Mlp(width, config.mlp_ratio, gelu, mlp)

    def forward(
        self, latents_BND: Float[Tensor, "B N D"], draws: LayerDraws | None = None, before: KeysValues | None = None
    ) -> Float[Tensor, "B N D"]:
        """Return the latents after one layer; with `before` they are the last ones, and see those before them too."""
        if before is not None:
            return self._thought(latents_BND, draws, before)
        return self.region(SelfAttend._thought, latents_BND.device)(self, latents_BND, draws)

    def _thought(self, latents_BND: Tensor, draws: LayerDraws | None, before: KeysValues | None = None) -> Tensor:
        # One cast for all three: each would keep a copy of its own for the backward pass.
        attention, normed = self.attention, in_autocast(self.norm_attention(latents_BND))
        q, k = attention.queries(normed), attention.keys(attention.key(normed))
        v = attention.heads(attention.value(normed))
        if self.rotary:
            first = before.num_places if before is not None else 0
            turns_NP = angles((first + q.shape[2],), attention.num_pairs, q.device)[first:]
            q, k = rotated(q, turns_NP), rotated(k, turns_NP)
        if before is not None:
            k, v = before.join(k, v)
        answer_BND = attention.answer(attend(q, k, v, scale=attention.scale, causal=self.causal))
        latents_BND = latents_BND + dropped(answer_BND, draws, ATTENTION, self.dropout)
        out: Tensor = latents_BND + dropped(self.mlp(self.norm_mlp(latents_BND)), draws, MLP, self.dropout)
        return out


class CrossAttend(nn.Module):
    """A pre-norm layer in which latents (or queries) read tokens.

    It takes the tokens normalised but not yet scaled: that part is the same for all layers that read them.
    """

    def __init__(
        self,
        query_width: int,
        token_width: int,
        config: AttentionConfig,
        gelu: Gelu,
        *,
        query_residual: bool = True,
        has_mlp: bool = True,
        dropout: float = 0.0,
        compile: Compile = False,  # noqa: A002  # the config's key
        residual_dtype: ResidualDtype = "fp32",
        norm: NormKind = "layer",
        mlp: MlpKind = "gelu",
    ) -> None:
        super().__init__()
        self.region, self.dropout = Regions(compile), dropout
        self.query_residual = query_residual
        make_norm = norm_of(norm, residual_dtype)
        self.norm_query = make_norm(query_width)
        self.norm_tokens = token_norm(norm, token_width)
        # As wide as the tokens and not as the latents: shape_for_attn='kv' of the released code.
        self.attention = Attention(query_width, token_width, config, default_width=token_width)
        self.has_mlp = has_mlp
        if has_mlp:
            self.norm_mlp = make_norm(query_width)
            self.mlp = Mlp(query_width, config.mlp_ratio, gelu, mlp)

    def keys_values(
        self, normalised_BMC: Float[Tensor, "B M _"], turns_MP: Float[Tensor, "M P"] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return keys and values of normalised tokens; layers that are shared need them once.

        The tokens may have zeros after their channels. The keys are turned by the angles of their places, if given.
        """
        attention, norm = self.attention, self.norm_tokens
        # The norm's scale and offset move into the projections, and both are one product: one pass over the tokens.
        key_weight, key_bias = attention.key.aligned_rows()
        value_weight, value_bias = attention.value.aligned_rows()
        weight = torch.cat([key_weight, value_weight])
        bias = None if key_bias is None or value_bias is None else torch.cat([key_bias, value_bias])
        if not isinstance(norm, RmsNorm):
            offset = weight @ norm.bias
            bias = offset if bias is None else bias + offset
        both = functional.linear(normalised_BMC, widened(weight * norm.weight, normalised_BMC.shape[-1]), bias)
        # Unlike two slices, whose gradients are arrays of their own as large as both.
        keys, values = torch.split(both, [len(key_weight), len(value_weight)], dim=-1)
        keys = attention.keys(keys)
        return keys if turns_MP is None else rotated(keys, turns_MP), attention.heads(values)

    def absorbed(
        self,
        queries_BND: Float[Tensor, "#B N D"],
        source: TokenSource,
        values_BMC: Float[Tensor, "B M C"] | None,
        valid_BM: Bool[Tensor, "B M"] | None,
        draws: LayerDraws | None = None,
    ) -> Float[Tensor, "B N D"]:
        """Return the queries after reading in one head, with the tokens' norm and projections moved to the queries.

        Queries times keys is (query, key's weight, scale) times normalised token, up to numbers that are the same for
        all tokens and leave softmax alone; shares add up to 1, so that values can be projected after they are mixed.
        """
        asked_BNC = self.region(CrossAttend._asked, queries_BND.device)(self, queries_BND, source.num_channels)
        mixed_BNC = read_tokens(asked_BNC.expand(source.num_samples, -1, -1), source, valid_BM, values_BMC)
        answered = self.region(CrossAttend._answered, queries_BND.device)
        return answered(self, queries_BND, mixed_BNC, valid_BM, draws)

    def _asked(self, queries_BND: Tensor, num_channels: int) -> Tensor:
        attention = self.attention
        q_BNF = attention.query(self.norm_query(queries_BND)) * attention.key.out_features**-0.5
        key_weight, _ = attention.key.aligned_rows()
        scale_C = widened(self.norm_tokens.weight, num_channels)
        asked_BNC: Tensor = (q_BNF @ widened(key_weight, num_channels)) * scale_C
        return asked_BNC

    def _answered(
        self, queries_BND: Tensor, mixed_BNC: Tensor, valid_BM: Tensor | None, draws: LayerDraws | None
    ) -> Tensor:
        attention, norm = self.attention, self.norm_tokens
        # The keys' bias is among the numbers that are the same for all tokens: its gradient is 0, not absent.
        offset = torch.zeros_like(norm.weight) if isinstance(norm, RmsNorm) else norm.bias
        offset_C = offset if attention.key.bias is None else offset + 0 * attention.key.bias.sum()
        scale_C, offset_C = (widened(part, mixed_BNC.shape[-1]) for part in (norm.weight, offset_C))
        heads_BNV = attention.value(mixed_BNC * scale_C + offset_C)
        if valid_BM is not None:
            # Before the output's projection: what reads nothing still gets its bias, as in the released code.
            heads_BNV = heads_BNV * valid_BM.any(dim=1)[:, None, None]
        return self._after(queries_BND, attention.output(heads_BNV), draws)

    def forward(
        self,
        queries_BND: Float[Tensor, "#B N D"],
        k_BHMK: Float[Tensor, "B H M K"],
        v_BHMV: Float[Tensor, "B H M V"],
        valid: Bool[Tensor, "B M"] | Bool[Tensor, "b N M"] | None = None,
        asking_BN: Bool[Tensor, "B N"] | None = None,
        draws: LayerDraws | None = None,
        turns_bNP: Float[Tensor, "b N P"] | None = None,
    ) -> Float[Tensor, "B N D"]:
        """Return the queries after reading; queries that all samples share come as a batch of one.

        `valid` says which tokens are there, or which each query sees. Queries that do not ask read 0, as those without
        a valid token do. They are turned by the angles of their places, if given.
        """
        read = self.region(CrossAttend._read, queries_BND.device)
        return read(self, queries_BND, k_BHMK, v_BHMV, valid, asking_BN, draws, turns_bNP)

    def _read(
        self,
        queries_BND: Tensor,
        k_BHMK: Tensor,
        v_BHMV: Tensor,
        valid: Tensor | None,
        asking_BN: Tensor | None,
        draws: LayerDraws | None,
        turns_bNP: Tensor | None,
    ) -> Tensor:
        q_BHNK = self.attention.queries(self.norm_query(queries_BND))
        if turns_bNP is not None:
            q_BHNK = rotated(q_BHNK, turns_bNP)
        # Only now, as a view: queries that all samples share are normalised, projected and turned once, not once a
        # sample.
        q_BHNK = q_BHNK.expand(k_BHMK.shape[0], -1, -1, -1)
        heads = attend(q_BHNK, k_BHMK, v_BHMV, valid, self.attention.scale)
        # As rows without a valid key in the released code: 0 before the projection, whose bias they still get.
        if asking_BN is not None:
            heads = heads * asking_BN[:, None, :, None]
        return self._after(queries_BND, self.attention.answer(heads), draws)

    def _after(
        self, queries_BND: Float[Tensor, "#B N D"], read_BND: Float[Tensor, "B N D"], draws: LayerDraws | None
    ) -> Tensor:
        read_BND = dropped(read_BND, draws, ATTENTION, self.dropout)
        if self.query_residual:
            read_BND = queries_BND + read_BND
        if not self.has_mlp:
            return read_BND
        out: Tensor = read_BND + dropped(self.mlp(self.norm_mlp(read_BND)), draws, MLP, self.dropout)
        return out
