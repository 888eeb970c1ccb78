"""The Mistral architecture (arXiv 2310.06825): a decoder of tokens, layers stacked and scanned.

Shapes, here and wherever a name ends in capitals:
  B rows   T positions   S cached positions   L layers   D model width   V vocabulary
  H query heads   G key-value heads   K numbers a head   F feed-forward width

Split once into structure and arrays, the model is a pure function of its parameters:

    weights = split(Decoder(config, rngs=nnx.Rngs(0)))      # or Weights.of(config, params)
    x_BTD = merge(weights)(tokens_BT, positions_BT, segment_ids_BT)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

from hare_jax.config import AttentionKernel, Matmul, Model, Remat
from hare_jax.model.attention import RESIDUAL, attention, rope_rows, rope_tables, rotate
from hare_jax.model.kernels.request import BATCH_AXES
from hare_jax.model.linear import linear

Params = dict[str, Any]  # nested: {"embedding": float32 [V, D], "layers": {...}, ...}


@jax.tree_util.register_dataclass
@dataclass(slots=True)
class KVCache:
    """Keys and values of the tokens read so far, in slots 0 .. used - 1.

    `segments_BS` is 1 for a token, 0 for padding and for empty slots; `positions_BS` counts tokens.
    """

    k_LBSGK: Array
    v_LBSGK: Array
    positions_BS: Array
    segments_BS: Array
    used: Array  # int32 []


@jax.tree_util.register_dataclass
@dataclass(slots=True)
class Dropout:
    """Leaves out a share `rate` (float32 [], traced) of what each layer adds, chosen by `key`."""

    rate: Array
    key: Array

    def of_layer(self, index: Array) -> Callable[[Array, int], Array]:
        """(x, which) -> x with some numbers zero and the others 1 / (1 - rate) times as large."""
        key = jax.random.fold_in(self.key, index)

        def drop(x: Array, which: int) -> Array:
            keep = jax.random.bernoulli(jax.random.fold_in(key, which), 1 - self.rate, x.shape)
            return jnp.where(keep, x / (1 - self.rate).astype(x.dtype), jnp.zeros((), x.dtype))

        return drop


class RMSNorm(nnx.Module):
    def __init__(self, width: int, eps: float):
        self.scale = nnx.Param(jnp.ones((width,), jnp.float32))
        self.eps = eps

    def __call__(self, x_BTD: Array) -> Array:
        """x / rms(x) * scale, in float32; the dtype of `x_BTD` comes back."""
        x = x_BTD.astype(jnp.float32)
        inverse_rms = jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.eps)
        return (x * inverse_rms * self.scale[...][None, None, :]).astype(x_BTD.dtype)


class Attention(nnx.Module):
    def __init__(self, config: Model, *, rngs: nnx.Rngs):
        c, width = config, config.num_heads * config.head_dim
        self.q_DHK = _matrix(rngs, (c.d_model, c.num_heads, c.head_dim), c.d_model)
        self.k_DGK = _matrix(rngs, (c.d_model, c.num_kv_heads, c.head_dim), c.d_model)
        self.v_DGK = _matrix(rngs, (c.d_model, c.num_kv_heads, c.head_dim), c.d_model)
        self.o_HKD = _matrix(rngs, (c.num_heads, c.head_dim, c.d_model), width * 2 * c.num_layers)
        self.config = config

    def qkv(self, x_BTD: Array, rope: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        q_BTHK = self._linear(x_BTD, self.q_DHK)
        k_BTGK = self._linear(x_BTD, self.k_DGK)
        v_BTGK = self._linear(x_BTD, self.v_DGK)
        q_BTHK, k_BTGK = rotate(q_BTHK, rope), rotate(k_BTGK, rope)
        return _kept(q_BTHK), _kept(k_BTGK), _kept(v_BTGK)

    def out(self, mixed_BTHK: Array) -> Array:
        return self._linear(mixed_BTHK, self.o_HKD, inputs=2)

    def _linear(self, x: Array, weight: nnx.Param, inputs: int = 1) -> Array:
        return linear(x, weight[...], inputs, self.config.matmul)


class FeedForward(nnx.Module):
    """SwiGLU (arXiv 2002.05202): down(silu(gate(x)) * up(x))."""

    def __init__(self, config: Model, *, rngs: nnx.Rngs):
        c = config
        self.gate_DF = _matrix(rngs, (c.d_model, c.d_ff), c.d_model)
        self.up_DF = _matrix(rngs, (c.d_model, c.d_ff), c.d_model)
        self.down_FD = _matrix(rngs, (c.d_ff, c.d_model), c.d_ff * 2 * c.num_layers)
        self.config = config

    def __call__(self, x_BTD: Array) -> Array:
        gate_BTF = _kept(self._linear(x_BTD, self.gate_DF))
        up_BTF = _kept(self._linear(x_BTD, self.up_DF))
        return self._linear(_gated(gate_BTF, up_BTF), self.down_FD)

    def _linear(self, x: Array, weight: nnx.Param) -> Array:
        return linear(x, weight[...], 1, self.config.matmul)


@jax.checkpoint  # what it is made of is kept anyway, and it is made again in no time
def _gated(gate_BTF: Array, up_BTF: Array) -> Array:
    return jax.nn.silu(gate_BTF) * up_BTF


class Layer(nnx.Module):
    def __init__(self, config: Model, *, rngs: nnx.Rngs):
        self.attention_norm = RMSNorm(config.d_model, config.norm_eps)
        self.attention = Attention(config, rngs=rngs)
        self.feed_forward_norm = RMSNorm(config.d_model, config.norm_eps)
        self.feed_forward = FeedForward(config, rngs=rngs)

    def __call__(
        self,
        x_BTD: Array,
        rope: tuple[Array, Array],
        attend: Callable[..., Array],
        drop: Callable[[Array, int], Array] = lambda x, which: x,
    ) -> Array:
        """`attend`: what q, k and v become; with a cache it reads more keys than are given."""
        q_BTHK, k_BTGK, v_BTGK = self.attention.qkv(self.attention_norm(x_BTD), rope)
        x_BTD += drop(self.attention.out(attend(q_BTHK, k_BTGK, v_BTGK)), 0)
        x_BTD += drop(self.feed_forward(self.feed_forward_norm(x_BTD)), 1)
        return x_BTD


class Decoder(nnx.Module):
    """tokens, positions, segment ids, int32 [B, T] -> hidden states [B, T, D] after the last norm.

    Parameters are float32, drawn with standard deviation 1/sqrt(inputs) (0.02 for embedding and
    head), smaller by sqrt(2 L) where a layer adds to the residual stream.
    """

    def __init__(self, config: Model, *, rngs: nnx.Rngs):
        _check(config)
        self.config = config
        self.embedding_VD = _matrix(rngs, (config.vocab_size, config.d_model), 0.02**-2)

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
        """Hidden states in the compute dtype; `segment_ids_BT=None`: each row is one document.

        Positions are below T; a higher one gives not-a-number.
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
        """As `__call__`, where `attend(q, k, v)` decides what the queries become in each layer."""
        c = self.config
        rope = rope_rows(positions_BT, c.head_dim, c.rope_theta)
        graph, layers = nnx.split(self.layers)

        def layer(x_BTD: Array, scanned: tuple[Any, Array]) -> tuple[Array, None]:
            params, index = scanned
            drop = () if dropout is None else (dropout.of_layer(index),)
            return _share_rows(nnx.merge(graph, params)(x_BTD, rope, attend, *drop)), None

        layer = _remat(layer, c)
        x_BTD, indices = self.embed(tokens_BT), jnp.arange(c.num_layers)
        if c.scan_layers:
            x_BTD, _ = jax.lax.scan(layer, x_BTD, (layers, indices))
        else:
            for index, params in enumerate(_unstacked(layers, c.num_layers)):
                x_BTD, _ = layer(x_BTD, (params, indices[index]))
        return self.final_norm(x_BTD)

    def head(self) -> Array:
        """The output matrix, float32 [D, V]."""
        return self.embedding_VD[...].T if self.config.tied_head else self.head_DV[...]

    def logits(self, x: Array) -> Array:
        """Hidden states [..., D] -> float32 [..., V]."""
        head_DV = self.head().astype(x.dtype)
        return jnp.einsum("...d,dv->...v", x, head_DV, preferred_element_type=jnp.float32)

    def init_cache(self, batch: int, length: int) -> KVCache:
        """An empty cache of `length` slots for each of `batch` rows."""
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
        """Reads T more tokens of each row: hidden states [B, T, D], and the cache with them in it.

        A negative position marks padding, which no token sees. More tokens than free slots is an
        error that cannot be seen inside jit: the caller sizes the cache.
        """
        c = self.config
        segments_BT = (positions_BT >= 0).astype(jnp.int32)
        positions_BT = jnp.maximum(positions_BT, 0)
        positions_BS = _write(cache.positions_BS, positions_BT, cache.used)
        segments_BS = _write(cache.segments_BS, segments_BT, cache.used)
        rope = rope_tables(positions_BT, c.head_dim, c.rope_theta)
        graph, layers = nnx.split(self.layers)

        def layer(x_BTD: Array, scanned: Any) -> tuple[Array, Any]:
            params, *cached = scanned

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

            x_BTD = nnx.merge(graph, params)(x_BTD, rope, attend)
            return x_BTD, tuple(cached)

        x_BTD, (k_LBSGK, v_LBSGK) = jax.lax.scan(
            layer, self.embed(tokens_BT), (layers, cache.k_LBSGK, cache.v_LBSGK)
        )
        used = cache.used + tokens_BT.shape[1]
        return self.final_norm(x_BTD), KVCache(k_LBSGK, v_LBSGK, positions_BS, segments_BS, used)

    def embed(self, tokens_BT: Array) -> Array:
        """The first layer's input, [B, T, D] in the compute dtype."""
        embedding_VD = self.embedding_VD[...].astype(self.config.compute_dtype.value)
        # Gathered whole along D first: rows of the batch share the axis that D is cut along.
        embedding_VD = _on_mesh(embedding_VD, PartitionSpec("tensor", None))
        return _share_rows(embedding_VD[tokens_BT])


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
    """The same model, computed so that no answer depends on what else is in the batch.

    Not in 8 bits, whose scales are those of the whole batch; by a kernel that has room for any
    number of segments; nothing computed again, and no layer compiled twice.
    """
    return replace(
        config,
        attention=AttentionKernel.XLA,
        matmul=Matmul.COMPUTE_DTYPE,
        remat=Remat.NONE,
        scan_layers=True,
    )


def in_compute_dtype(params: Params, config: Model) -> Params:
    """The matrices as they are multiplied, so that each token reads half the bytes; same numbers.

    Norm scales stay float32.
    """
    dtype = jnp.dtype(config.compute_dtype.value)
    return jax.tree_util.tree_map_with_path(
        lambda path, a: a if path[-1].key == "scale" else jnp.asarray(a, dtype), params
    )


def abstract(config: Model) -> Weights:
    """Returns the `split` of a model without arrays: one jax.ShapeDtypeStruct per parameter."""
    return split(nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0))))


def init(config: Model, seed: int) -> Params:
    """Initial parameters, a pure function of (config, seed), to be called under jit."""
    return split(Decoder(config, rngs=nnx.Rngs(seed))).params


def num_params(config: Model) -> int:
    """Parameters of the model; 1,123,117,056 with the defaults (HARE-1.1B)."""
    c = config
    norms = (2 * c.num_layers + 1) * c.d_model
    return c.vocab_size * c.d_model + norms + _matmul_params(c) - c.tied_head * _head_params(c)


def flops_per_token(config: Model, sequence_length: int) -> int:
    """FLOPs of a training step a token: 6 * parameters in matrix products + 6 * L * T * (H K).

    The second term is attention counted causally: a token meets T/2 others on average. Neither what
    remat computes again nor what packing leaves out is counted.
    """
    c = config
    width = c.num_heads * c.head_dim
    return 6 * _matmul_params(c) + 6 * c.num_layers * sequence_length * width


def _matmul_params(config: Model) -> int:
    c = config
    attention_params = 2 * c.d_model * (c.num_heads + c.num_kv_heads) * c.head_dim
    return c.num_layers * (attention_params + 3 * c.d_model * c.d_ff) + _head_params(c)


def _head_params(config: Model) -> int:
    return config.d_model * config.vocab_size


def _check(config: Model) -> None:
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
    deviation = 1 / math.sqrt(inverse_variance)
    return nnx.Param(deviation * jax.random.normal(rngs.params(), shape, jnp.float32))


def _share_rows(x_BTD: Array) -> Array:
    """Keeps rows where the batch has them: the compiler may not move them."""
    return _on_mesh(x_BTD, PartitionSpec(BATCH_AXES, None, None))


def _on_mesh(x: Array, spec: PartitionSpec) -> Array:
    """Says where `x` lies, if training's mesh is set; without it there is nothing to say."""
    if not set(BATCH_AXES) <= set(jax.sharding.get_abstract_mesh().axis_names):
        return x
    return jax.lax.with_sharding_constraint(x, spec)


def _kept(x: Array) -> Array:
    """Names what Remat.ATTENTION keeps."""
    return checkpoint_name(x, "kept")


def _remat(layer: Callable[..., Any], config: Model) -> Callable[..., Any]:
    if config.remat is Remat.NONE:
        return layer
    policies = jax.checkpoint_policies

    def fused_attention(primitive: Any, *_: Any, **__: Any) -> bool:
        # To name the output is not enough: the backward kernel wants the softmax statistics too,
        # and the forward kernel would run again for them.
        return str(primitive).startswith("dot_product_attention_fwd")

    policy = {
        Remat.DOTS: policies.dots_with_no_batch_dims_saveable,
        Remat.ATTENTION: policies.save_from_both_policies(
            policies.save_only_these_names("kept", RESIDUAL), fused_attention
        ),
        Remat.FULL: policies.nothing_saveable,
    }[config.remat]
    # A scanned body is not merged with its recomputation; layers in a row would be.
    return jax.checkpoint(layer, policy=policy, prevent_cse=not config.scan_layers)


def _unstacked(layers: Any, number: int) -> list[Any]:
    """The layers one by one; the gradient of a split is one concatenation, not `number` sums."""
    arrays, tree = jax.tree.flatten(layers)
    parts = [jax.lax.split(array, (1,) * number) for array in arrays]
    return [
        jax.tree.unflatten(tree, [part[0] for part in layer]) for layer in zip(*parts, strict=True)
    ]


def _write(cached_BS: Array, new_BT: Array, at: Array) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(cached_BS, new_BT, at, axis=1)
