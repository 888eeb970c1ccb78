"""Names and layouts of parameters in Hugging Face checkpoints of the supported architectures.

Parameters of this project are stacked by layer and multiply from the right, x_BTD @ w_DF. Hugging
Face has one matrix per layer that multiplies from the left, y = w_FD x. Both rotate element i of a
head together with element i + K/2.

Shape legend: L layers, D model width, H query heads, G key-value heads, K head dimension,
F feed-forward width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from hare_jax.config import Model

ParamPath = tuple[str, ...]  # keys in the nested dict of parameters
LAYER = "model.layers.{}."


@dataclass(slots=True, frozen=True)
class Tensor:
    """A tensor of a Hugging Face checkpoint and the parameter that it belongs to.

    Attributes:
      name: in the Hugging Face checkpoint.
      path: of the parameter in this project.
      layer: its index in the stacked parameter; None outside of the layers.
      shape: in this project, without the axis of layers.
      hf_shape: in the Hugging Face checkpoint.
      num_inputs: how many leading axes of `shape` a product sums over; 0 for norms and the
        embedding, which are not transposed.
    """

    name: str
    path: ParamPath
    layer: int | None
    shape: tuple[int, ...]
    hf_shape: tuple[int, ...]
    num_inputs: int

    def to_hf(self, array: np.ndarray) -> np.ndarray:
        """Converts [inputs ..., outputs ...] to [outputs, inputs], as a view if NumPy can."""
        if not self.num_inputs:
            return array
        return array.reshape(self.hf_shape[::-1]).T

    def from_hf(self, array: np.ndarray) -> np.ndarray:
        """Converts [outputs, inputs] to [inputs ..., outputs ...]."""
        return array.T.reshape(self.shape) if self.num_inputs else array


def tensors(model: Model) -> list[Tensor]:
    """Returns all tensors of a checkpoint, in the order of this project's sorted parameter names.

    >>> [tensor.name for tensor in tensors(Model())][:3]
    ['model.embed_tokens.weight', 'model.norm.weight', 'lm_head.weight']
    """
    m = model
    D, H, G, K, F, V = (
        m.d_model,
        m.num_heads,
        m.num_kv_heads,
        m.head_dim,
        m.d_ff,
        m.vocab_size,
    )
    # (Hugging Face name, path below "layers", shape, num_inputs)
    of_layer: tuple[tuple[str, ParamPath, tuple[int, ...], int], ...] = (
        ("input_layernorm", ("attention_norm", "scale"), (D,), 0),
        ("self_attn.q_proj", ("attention", "q_DHK"), (D, H, K), 1),
        ("self_attn.k_proj", ("attention", "k_DGK"), (D, G, K), 1),
        ("self_attn.v_proj", ("attention", "v_DGK"), (D, G, K), 1),
        *(
            (f"self_attn.{name}", ("attention", name, "scale"), (K,), 0)
            for name in ("q_norm", "k_norm") * m.qk_norm
        ),
        ("self_attn.o_proj", ("attention", "o_HKD"), (H, K, D), 2),
        ("post_attention_layernorm", ("feed_forward_norm", "scale"), (D,), 0),
        ("mlp.gate_proj", ("feed_forward", "gate_DF"), (D, F), 1),
        ("mlp.up_proj", ("feed_forward", "up_DF"), (D, F), 1),
        ("mlp.down_proj", ("feed_forward", "down_FD"), (F, D), 1),
    )

    def all_tensors() -> Iterator[Tensor]:
        yield _tensor("model.embed_tokens", ("embedding_VD",), None, (V, D), 0)
        for name, path, shape, num_inputs in of_layer:
            for layer in range(m.num_layers):
                full_name = LAYER.format(layer) + name
                yield _tensor(full_name, ("layers", *path), layer, shape, num_inputs)
        yield _tensor("model.norm", ("final_norm", "scale"), None, (D,), 0)
        if not m.tied_head:
            yield _tensor("lm_head", ("head_DV",), None, (D, V), 1)

    return sorted(all_tensors(), key=lambda tensor: (tensor.path, tensor.layer or 0))


def hf_arrays(
    model: Model, params: Iterable[tuple[ParamPath, np.ndarray]]
) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Yields each of `tensors(model)` with its numbers, in Hugging Face layout.

    Args:
      model: whose tensors are yielded.
      params: (path, array) sorted by path, as checkpoint.stream_params yields them.
    """
    remaining = iter(params)
    path, array = next(remaining)
    for tensor in tensors(model):
        if tensor.path != path:
            path, array = next(remaining)
        assert tensor.path == path
        yield tensor, tensor.to_hf(array if tensor.layer is None else array[tensor.layer])


def _tensor(
    name: str, path: ParamPath, layer: int | None, shape: tuple[int, ...], num_inputs: int
) -> Tensor:
    hf_shape = shape
    if num_inputs:
        # [outputs, inputs]: the axes of each side are flattened into one.
        hf_shape = (int(np.prod(shape[num_inputs:])), int(np.prod(shape[:num_inputs])))
    return Tensor(f"{name}.weight", path, layer, shape, hf_shape, num_inputs)
