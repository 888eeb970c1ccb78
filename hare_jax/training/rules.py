"""The rule of each field of model and training: may a run that has begun change it?

docs/training.md shows them as a table; identity.py applies them.
"""

from __future__ import annotations

import enum


class Rule(enum.Enum):
    """What a changed field does to a run that has begun."""

    CONTINUES = "continues"
    NOTED = "continues with a note"
    UPCOMING = "continues with a note if the finished steps stay the same, else refused"
    REFUSED = "refused"


C, N, U, R = Rule.CONTINUES, Rule.NOTED, Rule.UPCOMING, Rule.REFUSED

# Of a field that holds a dataclass, one entry may stand for all fields below it.
RULES = {
    **{f"model.{name}": R for name in ("vocab_size", "num_layers", "d_model", "num_heads")},
    **{f"model.{name}": R for name in ("num_kv_heads", "head_dim", "d_ff", "rope_theta")},
    **{f"model.{name}": R for name in ("norm_eps", "tied_head", "sliding_window")},
    **{f"model.{name}": R for name in ("rope_scaling", "nope_every", "qk_norm")},
    # The same products in another order, or in another precision.
    **{f"model.{name}": C for name in ("attention", "max_segments", "remat", "scan_layers")},
    **{f"model.{name}": N for name in ("matmul", "compute_dtype", "reduce_dtype")},
    "training.stages.name": C,
    **{f"training.stages.{name}": U for name in ("mixture", "tokens", "weights", "dropout")},
    **{f"training.{name}": R for name in ("batch_size", "seed", "start_from", "z_loss")},
    **{f"training.{name}": R for name in ("name", "continue_from")},
    **{f"training.optimizer.{name}": R for name in ("algorithm", "b1", "b2", "eps", "momentum")},
    **{f"training.optimizer.{name}": R for name in ("weight_decay", "clip_norm")},
    **{f"training.optimizer.{name}": U for name in ("peak_lr", "schedule", "warmup_steps")},
    **{f"training.optimizer.{name}": U for name in ("final_lr_fraction", "decay_fraction")},
    **{f"training.faults.{name}": N for name in ("not_finite", "spike", "spike_z")},
    **{f"training.faults.{name}": N for name in ("spike_window", "spike_warmup")},
    **{f"training.faults.{name}": C for name in ("max_skipped", "hang_seconds", "hang_abort")},
    **{f"training.{name}": C for name in ("mesh", "checkpointing", "profile", "in_loop")},
    **{f"training.{name}": C for name in ("accumulation", "loss_chunks", "max_epochs")},
    **{f"training.{name}": C for name in ("log_every", "wandb_project", "deterministic")},
}
# With training.continue_from, the state and the order of the data must be those of the checkpoint.
STATE = ("training.batch_size", "training.seed", "training.optimizer.algorithm")


def rule_of(name: str) -> Rule:
    """Returns the rule of a field, or of the section that it is in.

    >>> rule_of("training.mesh.slices.data"), rule_of("training.stages[1].tokens")
    (<Rule.CONTINUES: 'continues'>, <Rule.UPCOMING: 'continues with a note if the finished \
steps stay the same, else refused'>)
    """
    parts = [part.partition("[")[0] for part in name.split(".")]
    for size in range(len(parts), 1, -1):
        if rule := RULES.get(".".join(parts[:size])):
            return rule
    raise KeyError(f"{name}: training/rules.py has no rule for it")
