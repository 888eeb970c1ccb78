"""The Mistral architecture (arXiv 2310.06825): a decoder whose layers are stacked and scanned.

Shapes, here and wherever a name ends in capitals:
  B rows   T positions   S cached positions   L layers   D model width   V vocabulary
  H query heads   G key-value heads   K width of a head   F feed-forward width

Split once into structure and arrays, the model is a pure function of its parameters:

    weights = split(Decoder(config, rngs=nnx.Rngs(0)))      # or Weights.of(config, params)
    x_BTD = merge(weights)(tokens_BT, positions_BT, segment_ids_BT)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name

from hare_jax.config import AttentionKernel, Matmul, Model, Remat
from hare_jax.model.attention import RESIDUAL, attention
from hare_jax.model.constraints import on_mesh, share_rows
from hare_jax.model.linear import linear, precision_of
from hare_jax.model.rope import rope_rows, rope_tables, rotate, tables_of_layer

Params = dict[str, Any]  # nested: {"embedding": float32 [V, D], "layers": {...}, ...}


@jax.tree_util.register_dataclass
@dataclass(slots=True)
class KVCache:
    """A cache of the keys and values of the tokens read so far, in slots 0 .. used - 1."""

    k_LBSGK: Array
    v_LBSGK: Array
    positions_BS: Array  # int32: 0, 1, ... for the tokens of a row
    segments_BS: Array  # int32: 1 for a token, 0 for padding and empty slots
    used: Array  # int32 []: filled slots


@jax.tree_util.register_dataclass
@dataclass(slots=True)
class Dropout:
    """Dropout on what each layer adds to the residual stream."""

    rate: Array  # float32 [], in [0, 1): share of elements that become zero
    key: Array  # of jax.random

    def of_layer(self, index: Array) -> Callable[[Array, int], Array]:
        """Returns the dropout of one layer: (x, block) -> x with dropout.

        `block` is 0 for attention and 1 for feed-forward, so that both drop different elements.
        """
        key = jax.random.fold_in(self.key, index)

        def drop(x: Array, block: int) -> Array:
            keep = jax.random.bernoulli(jax.random.fold_in(key, block), 1 - self.rate, x.shape)
            # Kept elements are scaled by 1 / (1 - rate), so that the expectation stays.
            return jnp.where(keep, x / (1 - self.rate).astype(x.dtype), jnp.zeros((), x.dtype))

        return drop


class RMSNorm(nnx.Module):
    """Root mean square normalization (arXiv 1910.07467)."""

    def __init__(self, width: int, eps: float):
        """Creates scales of 1; `eps` is added to the mean square."""
        self.scale = nnx.Param(jnp.ones((width,), jnp.float32))
        self.eps = eps

    def __call__(self, x: Array) -> Array:
        """Computes x / rms(x) * scale over the last axis in float32; returns the dtype of `x`."""
        exact = x.astype(jnp.float32)
        inverse_rms = jax.lax.rsqrt(jnp.mean(exact * exact, axis=-1, keepdims=True) + self.eps)
        scale = jnp.expand_dims(self.scale[...], range(x.ndim - 1))
        return (exact * inverse_rms * scale).astype(x.dtype)


class Attention(nnx.Module):
    """The four matrices of grouped-query attention (arXiv 2305.13245).

    The attention itself is a function that the caller passes: see `Layer`.
    """

    def __init__(self, config: Model, *, rngs: nnx.Rngs):
        """Draws the matrices."""
        c, width = config, config.num_heads * config.head_dim
        self.q_DHK = _matrix(rngs, (c.d_model, c.num_heads, c.head_dim), c.d_model)
        self.k_DGK = _matrix(rngs, (c.d_model, c.num_kv_heads, c.head_dim), c.d_model)
        self.v_DGK = _matrix(rngs, (c.d_model, c.num_kv_heads, c.head_dim), c.d_model)
        self.o_HKD = _matrix(rngs, (c.num_heads, c.head_dim, c.d_model), width * 2 * c.num_layers)
        if c.qk_norm:
            self.q_norm = RMSNorm(c.head_dim, c.norm_eps)
            self.k_norm = RMSNorm(c.head_dim, c.norm_eps)
        self.config = config

    def qkv(self, x_BTD: Array, rope: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        """Computes queries, keys and values; queries and keys are rotated by position."""
        q_BTHK = self._linear(x_BTD, self.q_DHK)
        k_BTGK = self._linear(x_BTD, self.k_DGK)
        v_BTGK = self._linear(x_BTD, self.v_DGK)
        if self.config.qk_norm:
            q_BTHK, k_BTGK = self.q_norm(q_BTHK), self.k_norm(k_BTGK)
        q_BTHK, k_BTGK = rotate(q_BTHK, rope), rotate(k_BTGK, rope)
        return _saved(q_BTHK), _saved(k_BTGK), _saved(v_BTGK)

    def out(self, mixed_BTHK: Array) -> Array:
        """Projects the heads back to the model width, [B, T, D]."""
        return self._linear(mixed_BTHK, self.o_HKD, inputs=2)

    def _linear(self, x: Array, weight: nnx.Param, inputs: int = 1) -> Array:
        return linear(x, weight[...], inputs, self.config.matmul, self.config.reduce_dtype)


class FeedForward(nnx.Module):
    """SwiGLU (arXiv 2002.05202): down(silu(gate(x)) * up(x))."""

    def __init__(self, config: Model, *, rngs: nnx.Rngs):
        """Draws the three matrices."""
        c = config
        self.gate_DF = _matrix(rngs, (c.d_model, c.d_ff), c.d_model)
        self.up_DF = _matrix(rngs, (c.d_model, c.d_ff), c.d_model)
        self.down_FD = _matrix(rngs, (c.d_ff, c.d_model), c.d_ff * 2 * c.num_layers)
        self.config = config

    def __call__(self, x_BTD: Array) -> Array:
        """Returns what the block adds to the residual stream, [B, T, D]."""
        gate_BTF = _saved(self._linear(x_BTD, self.gate_DF))
        up_BTF = _saved(self._linear(x_BTD, self.up_DF))
        return self._linear(_gated(gate_BTF, up_BTF), self.down_FD)

    def _linear(self, x: Array, weight: nnx.Param) -> Array:
        return linear(x, weight[...], 1, self.config.matmul, self.config.reduce_dtype)


@jax.checkpoint  # its inputs are saved anyway, and an elementwise product is cheap to recompute
def _gated(gate_BTF: Array, up_BTF: Array) -> Array:
    """Computes silu(gate) * up; the result is recomputed in the backward pass."""
    return jax.nn.silu(gate_BTF) * up_BTF


class Layer(nnx.Module):
    """One layer: x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: Model, *, rngs: nnx.Rngs):
        """Draws the parameters."""
        self.attention_norm = RMSNorm(config.d_model, config.norm_eps)
        self.attention = Attention(config, rngs=rngs)
        self.feed_forward_norm = RMSNorm(config.d_model, config.norm_eps)
        self.feed_forward = FeedForward(config, rngs=rngs)

    def __call__(
        self,
        x_BTD: Array,
        rope: tuple[Array, Array],
        attend: Callable[..., Array],
        drop: Callable[[Array, int], Array] = lambda x, block: x,
    ) -> Array:
        """Computes the layer.

        Args:
          x_BTD: the residual stream.
          rope: cos and sin of the positions.
          attend: (q, k, v) -> [B, T, H, K]; with a cache it reads more keys than are passed.
          drop: dropout, from Dropout.of_layer; none by default.

        Returns:
          The residual stream after the layer, [B, T, D].
        """
        q_BTHK, k_BTGK, v_BTGK = self.attention.qkv(self.attention_norm(x_BTD), rope)
        x_BTD += drop(self.attention.out(attend(q_BTHK, k_BTGK, v_BTGK)), 0)
        x_BTD += drop(self.feed_forward(self.feed_forward_norm(x_BTD)), 1)
        return x_BTD


class Decoder(nnx.Module):
    """The decoder: tokens -> hidden states after the last norm; `logits` applies the head.

    Parameters are float32, drawn from a normal distribution with standard deviation 1/sqrt(inputs)
    (0.02 for embedding and head). The matrices whose result is added to the residual stream, o and
    down, have a standard deviation that is smaller by a factor sqrt(2 L).
    """

    def __init__(self, config: Model, *, rngs: nnx.Rngs):
        """Draws the parameters; raises ValueError if the fields of `config` do not fit."""
        _check(config)
        self.config = config
        self.embedding_VD = _matrix(rngs, (config.vocab_size, config.d_model), 0.02**-2)

        # Each parameter of the layers gets a first axis L, drawn from L independent seeds.
        @nnx.split_rngs(splits=config.num_layers)
        @nnx.vmap(in_axes=0, out_axes=0)
        def stack(rngs: nnx.Rngs) -> Layer:
            return Layer(config, rngs=rngs)

        self.layers = stack(rngs)
        self.final_norm = RMSNorm(config.d_model, config.norm_eps)
        if not config.tied_head:
            self.head_DV = _matrix(rngs, (config.d_model, config.vocab_size), 0.02**-2)

    def __call__(
        self,
        tokens_BT: Array,
        positions_BT: Array,
        segment_ids_BT: Array | None,
        dropout: Dropout | None = None,
    ) -> Array:
        """Computes the hidden states after the last norm.

        Args:
          tokens_BT: int32.
          positions_BT: int32 positions within the segment, below T; a higher one gives NaN.
          segment_ids_BT: int32 document of each token, 0 for padding; None: each row is one
            document.
          dropout: None: no dropout.

        Returns:
          [B, T, D] in the compute dtype.
        """
        c = self.config
        segments = None if segment_ids_BT is None else (segment_ids_BT, segment_ids_BT)

        def attend(q_BTHK: Array, k_BTGK: Array, v_BTGK: Array) -> Array:
            return attention(
                q_BTHK,
                k_BTGK,
                v_BTGK,
                positions=(positions_BT, positions_BT),
                segments=segments,
                window=c.sliding_window,
                kernel=c.attention,
                max_segments=c.max_segments,
            )

        return self.hidden(tokens_BT, positions_BT, attend, dropout)

    def hidden(
        self,
        tokens_BT: Array,
        positions_BT: Array,
        attend: Callable[[Array, Array, Array], Array],
        dropout: Dropout | None = None,
    ) -> Array:
        """Computes the hidden states with any attention.

        Args:
          tokens_BT: int32.
          positions_BT: int32, below T.
          attend: (q_BTHK, k_BTGK, v_BTGK) -> [B, T, H, K], called in each layer.
          dropout: None: no dropout.

        Returns:
          [B, T, D] in the compute dtype, after the last norm.
        """
        c = self.config
        rope = rope_rows(positions_BT, c)
        graph, layers = nnx.split(self.layers)

        def layer(x_BTD: Array, scanned: tuple[Any, Array]) -> tuple[Array, None]:
            params, index = scanned
            # `index` gives each layer its own dropout.
            drop = () if dropout is None else (dropout.of_layer(index),)
            tables = tables_of_layer(rope, index, c.nope_every)
            return share_rows(nnx.merge(graph, params)(x_BTD, tables, attend, *drop)), None

        layer = _remat(layer, c)
        x_BTD, indices = self.embed(tokens_BT), jnp.arange(c.num_layers)
        if c.scan_layers:
            x_BTD, _ = jax.lax.scan(layer, x_BTD, (layers, indices))
        else:
            for index, params in enumerate(_unstacked(layers, c.num_layers)):
                x_BTD, _ = layer(x_BTD, (params, indices[index]))
        return self.final_norm(x_BTD)

    def head(self) -> Array:
        """Returns the output matrix, float32 [D, V]."""
        return self.embedding_VD[...].T if self.config.tied_head else self.head_DV[...]

    def logits(self, x: Array) -> Array:
        """Computes the logits of hidden states [..., D], float32 [..., V]."""
        return jnp.einsum(
            "...d,dv->...v",
            x,
            self.head().astype(x.dtype),
            precision=precision_of(x),
            preferred_element_type=jnp.float32,
        )

    def init_cache(self, batch: int, length: int) -> KVCache:
        """Creates an empty cache of `length` slots for each of `batch` rows."""
        c = self.config
        shape = (c.num_layers, batch, length, c.num_kv_heads, c.head_dim)
        return KVCache(
            k_LBSGK=jnp.zeros(shape, c.compute_dtype.value),
            v_LBSGK=jnp.zeros(shape, c.compute_dtype.value),
            positions_BS=jnp.zeros((batch, length), jnp.int32),
            segments_BS=jnp.zeros((batch, length), jnp.int32),
            used=jnp.zeros((), jnp.int32),
        )

    def decode(
        self, tokens_BT: Array, positions_BT: Array, cache: KVCache
    ) -> tuple[Array, KVCache]:
        """Processes T more tokens of each row with the cache.

        Args:
          tokens_BT: int32.
          positions_BT: int32; a negative position marks padding, to which no token attends.
          cache: must have T free slots. More tokens than free slots cannot be detected inside jit.

        Returns:
          Hidden states [B, T, D] after the last norm, and the cache with the new tokens.
        """
        c = self.config
        segments_BT = (positions_BT >= 0).astype(jnp.int32)
        positions_BT = jnp.maximum(positions_BT, 0)
        positions_BS = _write(cache.positions_BS, positions_BT, cache.used)
        segments_BS = _write(cache.segments_BS, segments_BT, cache.used)
        rope = rope_tables(positions_BT, c)
        graph, layers = nnx.split(self.layers)

        def layer(x_BTD: Array, scanned: Any) -> tuple[Array, Any]:
            params, index, *cached = scanned

            def attend(q_BTHK: Array, k_BTGK: Array, v_BTGK: Array) -> Array:
                cached[0] = _write(cached[0], k_BTGK, cache.used)
                cached[1] = _write(cached[1], v_BTGK, cache.used)
                return attention(
                    q_BTHK,
                    cached[0],
                    cached[1],
                    positions=(positions_BT, positions_BS),
                    segments=(segments_BT, segments_BS),
                    window=c.sliding_window,
                    kernel=AttentionKernel.XLA,  # fused kernels need as many queries as keys
                )

            tables = tables_of_layer(rope, index, c.nope_every)
            x_BTD = nnx.merge(graph, params)(x_BTD, tables, attend)
            return x_BTD, tuple(cached)

        indices_L = jnp.arange(c.num_layers)
        x_BTD, (k_LBSGK, v_LBSGK) = jax.lax.scan(
            layer, self.embed(tokens_BT), (layers, indices_L, cache.k_LBSGK, cache.v_LBSGK)
        )
        used = cache.used + tokens_BT.shape[1]
        return self.final_norm(x_BTD), KVCache(k_LBSGK, v_LBSGK, positions_BS, segments_BS, used)

    def embed(self, tokens_BT: Array) -> Array:
        """Returns the input of the first layer, [B, T, D] in the compute dtype."""
        dtype = self.config.compute_dtype.value
        return share_rows(_look_up(dtype, self.embedding_VD[...], tokens_BT))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _look_up(dtype: str, table_VD: Array, tokens_BT: Array) -> Array:
    """Returns the row of each token in `dtype`, [B, T, D]; the gradient is summed in float32.

    Differentiated by JAX, a table that is cast before the gather gets a gradient that is summed in
    bfloat16. The frequent tokens of a batch then lose most of it: once a sum is 256 times as large
    as what is added, adding does not change it.
    """
    # All-gathered along D first: the mesh axis of D, fsdp, is also one of the batch axes. Cast
    # before, so that half as many bytes are gathered.
    return on_mesh(table_VD.astype(dtype), "tensor", None)[tokens_BT]


def _look_up_forward(dtype: str, table_VD: Array, tokens_BT: Array) -> tuple[Array, Any]:
    """Returns the rows, and what the gradient needs: the table is kept for its shape and dtype."""
    return _look_up(dtype, table_VD, tokens_BT), (table_VD, tokens_BT)


def _look_up_backward(dtype: str, saved: Any, drows_BTD: Array) -> tuple[Array, None]:
    """Adds the gradient of each row to that of its token."""
    table_VD, tokens_BT = saved
    dtable_VD = jnp.zeros(table_VD.shape, jnp.float32)
    dtable_VD = dtable_VD.at[tokens_BT].add(drows_BTD.astype(jnp.float32))
    return dtable_VD.astype(table_VD.dtype), None


_look_up.defvjp(_look_up_forward, _look_up_backward)


@jax.tree_util.register_dataclass
@dataclass(slots=True)
class Weights:
    """A model as one value: its structure and its arrays.

    It is a pytree. `graph` is hashable and static, so that jit compiles once for each structure;
    the leaves are those of `params`.
    """

    graph: Any = field(metadata={"static": True})  # nnx.GraphDef of the Decoder
    params: Params  # arrays, or jax.ShapeDtypeStruct, in nested dicts

    @classmethod
    def of(cls, config: Model, params: Params) -> Weights:
        """Combines `params` with the structure of the model that `config` describes."""
        return cls(abstract(config).graph, params)


def split(decoder: Decoder) -> Weights:
    """Splits a model into its structure and its arrays; `merge` reverses it."""
    graph, state = nnx.split(decoder)
    return Weights(graph, nnx.to_pure_dict(state))


def merge(weights: Weights) -> Decoder:
    """Builds the model of this structure around these arrays; the inverse of `split`."""
    return nnx.merge(weights.graph, weights.params)


def for_inference(config: Model) -> Model:
    """Returns the config for inference: no result depends on the other rows of the batch.

    Products are not in 8 bits, since a scale covers the whole batch. The attention kernel takes any
    number of segments. Nothing is recomputed, and layers are scanned, which compiles fastest.
    """
    return replace(
        config,
        attention=AttentionKernel.XLA,
        matmul=Matmul.COMPUTE_DTYPE,
        remat=Remat.NONE,
        scan_layers=True,
    )


def in_compute_dtype(params: Params, config: Model) -> Params:
    """Casts the matrices to the compute dtype once, instead of in every product.

    Results do not change, and decoding reads half the bytes with bfloat16. Norm scales stay
    float32.
    """
    dtype = jnp.dtype(config.compute_dtype.value)
    return jax.tree_util.tree_map_with_path(
        lambda path, a: a if path[-1].key == "scale" else jnp.asarray(a, dtype), params
    )


def abstract(config: Model) -> Weights:
    """Returns the `split` of a model without arrays: one jax.ShapeDtypeStruct per parameter."""
    return split(nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0))))


def init(config: Model, seed: int) -> Params:
    """Draws the initial parameters, a pure function of (config, seed); call it under jit."""
    return split(Decoder(config, rngs=nnx.Rngs(seed))).params


def num_params(config: Model) -> int:
    """Counts the parameters of the model: 1,123,117,056 with the defaults (HARE-1.1B)."""
    c = config
    norms = (2 * c.num_layers + 1) * c.d_model + 2 * c.qk_norm * c.num_layers * c.head_dim
    return c.vocab_size * c.d_model + norms + _matmul_params(c) - c.tied_head * _head_params(c)


def flops_per_token(config: Model, sequence_length: int) -> int:
    """Computes the FLOPs per token of forward and backward pass.

        6 * parameters in matrix products + 6 * L * T * (H K)

    The second term is causal attention: a token attends to T/2 others on average. Recomputation by
    remat is not added, and attention that packing avoids is not subtracted.
    """
    c = config
    width = c.num_heads * c.head_dim
    return 6 * _matmul_params(c) + 6 * c.num_layers * sequence_length * width


def _matmul_params(config: Model) -> int:
    """Counts the parameters that are factors of matrix products: all but embedding and norms."""
    c = config
    attention_params = 2 * c.d_model * (c.num_heads + c.num_kv_heads) * c.head_dim
    return c.num_layers * (attention_params + 3 * c.d_model * c.d_ff) + _head_params(c)


def _head_params(config: Model) -> int:
    """Counts the parameters of the output matrix."""
    return config.d_model * config.vocab_size


def _check(config: Model) -> None:
    """Raises ValueError if the fields of the config do not fit together."""
    c = config
    if c.num_heads % c.num_kv_heads:
        raise ValueError(
            f"num_heads must be a multiple of num_kv_heads, got {c.num_heads} and {c.num_kv_heads}"
        )
    if c.head_dim % 2:
        raise ValueError(f"head_dim must be even for rotary positions, got {c.head_dim}")
    if c.sliding_window is not None and c.sliding_window < 1:
        raise ValueError(
            f"sliding_window must be at least 1 token, or None for all, got {c.sliding_window}"
        )


def _matrix(rngs: nnx.Rngs, shape: tuple[int, ...], inverse_variance: float) -> nnx.Param:
    """Draws a float32 matrix from a normal distribution of variance 1 / `inverse_variance`."""
    deviation = 1 / math.sqrt(inverse_variance)
    return nnx.Param(deviation * jax.random.normal(rngs.params(), shape, jnp.float32))


def _saved(x: Array) -> Array:
    """Names a value that Remat.ATTENTION saves for the backward pass."""
    return checkpoint_name(x, "saved")


def _remat(layer: Callable[..., Any], config: Model) -> Callable[..., Any]:
    """Wraps a layer in jax.checkpoint by the policy of `config.remat`."""
    if config.remat is Remat.NONE:
        return layer
    policies = jax.checkpoint_policies

    def fused_attention(primitive: Any, *_: Any, **__: Any) -> bool:
        # A name on the output is not enough: the backward kernel also needs the softmax statistics,
        # for which the forward kernel would run again.
        return str(primitive).startswith("dot_product_attention_fwd")

    policy = {
        Remat.DOTS: policies.dots_with_no_batch_dims_saveable,
        Remat.ATTENTION: policies.save_from_both_policies(
            policies.save_only_these_names("saved", RESIDUAL), fused_attention
        ),
        Remat.FULL: policies.nothing_saveable,
    }[config.remat]
    # Without scan, common subexpression elimination would merge a layer with its recomputation.
    return jax.checkpoint(layer, policy=policy, prevent_cse=not config.scan_layers)


def _unstacked(layers: Any, number: int) -> list[Any]:
    """Splits stacked layers; the gradient of a split is one concatenation, not `number` sums."""
    arrays, tree = jax.tree.flatten(layers)
    parts = [jax.lax.split(array, (1,) * number) for array in arrays]
    return [
        jax.tree.unflatten(tree, [part[0] for part in layer]) for layer in zip(*parts, strict=True)
    ]


def _write(cached_BS: Array, new_BT: Array, at: Array) -> Array:
    """Writes T new columns into a cache, from slot `at` on."""
    return jax.lax.dynamic_update_slice_in_dim(cached_BS, new_BT, at, axis=1)
