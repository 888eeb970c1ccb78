"""Which parameter of ours is which tensor of a Hugging Face Mistral or Llama checkpoint.

Ours are stacked by layer and multiply from the right, x_BTD @ w_DF; theirs are one matrix a layer
and multiply from the left, y = w_FD x. Both pair rotary element i with i + K/2. Shapes: L layers,
D width, H query heads, G key-value heads, K numbers a head, F feed-forward width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from hare_jax.config import Model

Path = tuple[str, ...]  # in the nested dict of parameters
LAYER = "model.layers.{}."


@dataclass(slots=True, frozen=True)
class Tensor:
    """`path`, `layer`: where it lies in our parameters (None: it is of no layer).

    `ours`, `theirs`: its shapes. `inputs`: how many leading axes of ours a product sums over; 0
    where nothing is transposed (norms, the embedding).
    """

    name: str
    path: Path
    layer: int | None
    ours: tuple[int, ...]
    theirs: tuple[int, ...]
    inputs: int

    def to_theirs(self, array: np.ndarray) -> np.ndarray:
        """[inputs ..., outputs ...] -> [outputs, inputs], as a view where NumPy can."""
        if not self.inputs:
            return array
        return array.reshape(self.theirs[::-1]).T

    def to_ours(self, array: np.ndarray) -> np.ndarray:
        return array.T.reshape(self.ours) if self.inputs else array


def tensors(model: Model) -> list[Tensor]:
    """All tensors of a checkpoint, in the order of our parameters' sorted names.

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
    of_layer: tuple[tuple[str, Path, tuple[int, ...], int], ...] = (
        ("input_layernorm", ("attention_norm", "scale"), (D,), 0),
        ("self_attn.q_proj", ("attention", "q_DHK"), (D, H, K), 1),
        ("self_attn.k_proj", ("attention", "k_DGK"), (D, G, K), 1),
        ("self_attn.v_proj", ("attention", "v_DGK"), (D, G, K), 1),
        ("self_attn.o_proj", ("attention", "o_HKD"), (H, K, D), 2),
        ("post_attention_layernorm", ("feed_forward_norm", "scale"), (D,), 0),
        ("mlp.gate_proj", ("feed_forward", "gate_DF"), (D, F), 1),
        ("mlp.up_proj", ("feed_forward", "up_DF"), (D, F), 1),
        ("mlp.down_proj", ("feed_forward", "down_FD"), (F, D), 1),
    )

    def every() -> Iterator[Tensor]:
        yield _tensor("model.embed_tokens", ("embedding_VD",), None, (V, D), 0)
        for name, path, shape, inputs in of_layer:
            for layer in range(m.num_layers):
                full = LAYER.format(layer) + name
                yield _tensor(full, ("layers", *path), layer, shape, inputs)
        yield _tensor("model.norm", ("final_norm", "scale"), None, (D,), 0)
        if not m.tied_head:
            yield _tensor("lm_head", ("head_DV",), None, (D, V), 1)

    return sorted(every(), key=lambda tensor: (tensor.path, tensor.layer or 0))


def each(
    model: Model, params: Iterable[tuple[Path, np.ndarray]]
) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Each of `tensors(model)` and its numbers; `params`: what checkpoint.stream_params gives."""
    coming = iter(params)
    path, array = next(coming)
    for tensor in tensors(model):
        if tensor.path != path:
            path, array = next(coming)
        assert tensor.path == path
        yield tensor, tensor.to_theirs(array if tensor.layer is None else array[tensor.layer])


def _tensor(name: str, path: Path, layer: int | None, ours: tuple[int, ...], inputs: int) -> Tensor:
    theirs = ours
    if inputs:
        theirs = (int(np.prod(ours[inputs:])), int(np.prod(ours[:inputs])))
    return Tensor(f"{name}.weight", path, layer, ours, theirs, inputs)
