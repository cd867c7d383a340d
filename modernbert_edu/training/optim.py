"""StableAdamW: Adam that clips each tensor's update, with a weight decay that does not depend on the learning rate.

    RMS          how large a gradient is against what its own history says: 1 when it is as usual
    update       learning rate / max(1, RMS), tensor by tensor: a gradient out of the usual is no larger a step
    decay        a share of the weight itself (fully decoupled), or that share times the learning rate (as in AdamW)

Wortsman et al. 2023, "Stable and low-precision training for large-scale vision-language models" (arXiv 2304.13013),
algorithm 2, which takes the clipping from Adafactor (Shazeer and Stern 2018); ModernBERT trains with it
(Warner et al. 2024, section 2.2.2).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..errors import InputError


class StableAdamW(torch.optim.Optimizer):
    """AdamW with one step-size limit per tensor. In step t, for a tensor p with gradient g:

        b1' = b1 (1 - b1^(t-1)) / (1 - b1^t), b2' likewise     Adam's bias correction, put into the betas
        m = b1' m + (1 - b1') g
        v = b2' v + (1 - b2') g^2
        r = sqrt(mean(g^2 / max(v, eps^2)))                    over the whole tensor, with the new v
        lr' = lr / max(1, r)
        p = p (1 - (lr' / max_lr) weight_decay)                where `decoupled`; else p (1 - lr' weight_decay)
        p = p - lr' m / (sqrt(v) + eps)

    `max_lr` is the peak of the schedule, by default the learning rate at construction; what a schedule makes of the
    group's `lr` later does not touch it. State per tensor, named as torch names it: `step`, `exp_avg` (m) and
    `exp_avg_sq` (v). Sharded tensors (DTensor) work: r is that of the whole tensor. Weights are meant to be float32 or
    float64; for weights kept in 16 bits the published optimizer adds Kahan summation, which is not here.
    Raises `InputError` for numbers that cannot work.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float,
        betas: tuple[float, float] = (0.90, 0.98),
        eps: float = 1e-6,
        weight_decay: float = 1e-5,
        decoupled: bool = True,
        max_lr: float | None = None,
    ):
        defaults = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, decoupled=decoupled, max_lr=max_lr)
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if group["max_lr"] is None:
            group["max_lr"] = float(group["lr"])
        _check(group)

    @torch.no_grad()
    def step(self, closure=None) -> float | None:
        """One update from the gradients that are there. Returns the closure's loss, where one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, self._state(parameter), group)
        return loss

    def _state(self, parameter: Tensor) -> dict:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)  # on the CPU: reading it never waits for a device
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state

    @staticmethod
    def _update(parameter: Tensor, grad: Tensor, state: dict, group: dict) -> None:
        m, v = state["exp_avg"], state["exp_avg_sq"]
        state["step"] += 1
        beta1, beta2 = (debiased(beta, int(state["step"])) for beta in group["betas"])
        m.lerp_(grad, 1 - beta1)
        v.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)

        # r stays a tensor on its device: a Python number would stop the loop once for every parameter.
        rate = group["lr"] / update_rms(grad, v, group["eps"]).clamp(min=1.0)
        if group["weight_decay"]:
            share = rate / group["max_lr"] if group["decoupled"] else rate
            parameter.mul_(1 - share * group["weight_decay"])
        parameter.sub_(rate * m / v.sqrt().add_(group["eps"]))


def update_rms(grad: Tensor, exp_avg_sq: Tensor, eps: float = 1e-6) -> Tensor:
    """r, a 0-dim tensor: the root mean square of g / sqrt(v) over the tensor, v being the second moment after g.

    The sum is divided by the number of elements, rather than a mean taken, because the shards of a DTensor may be of
    unequal size.
    """
    return (grad.square() / exp_avg_sq.clamp(min=eps**2)).sum().div(grad.numel()).sqrt()


def debiased(beta: float, step: int) -> float:
    """Adam's bias correction as a beta that grows with the step: 0 at step 1, `beta` in the end.

    With it the moving average *is* the corrected one, m_t / (1 - beta^t), of the plain Adam.
    """
    return beta * (1 - beta ** (step - 1)) / (1 - beta**step)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups: matrices with the weight decay, and vectors (norms, biases) with none."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in parameters if p.dim() >= 2]
    vectors = [p for p in parameters if p.dim() < 2]
    groups = [dict(params=matrices, weight_decay=weight_decay), dict(params=vectors, weight_decay=0.0)]
    return [group for group in groups if group["params"]]


def build_optimizer(model: nn.Module, recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over the model's parameters, its learning rate at the recipe's peak.

    `recipe` is a `Recipe` or anything with its fields `optimizer`, `learning_rate`, `betas`, `eps`, `weight_decay` and
    `decoupled`. Raises `InputError` for an optimizer that there is not and for numbers that cannot work.
    """
    settings = dict(lr=recipe.learning_rate, betas=tuple(recipe.betas), eps=recipe.eps)
    _check({**settings, "max_lr": recipe.learning_rate, "weight_decay": recipe.weight_decay,
            "decoupled": recipe.decoupled})  # fmt: skip
    if recipe.optimizer == "stable_adamw":
        groups = parameter_groups(model, recipe.weight_decay)
        return StableAdamW(groups, **settings, decoupled=recipe.decoupled)
    if recipe.optimizer == "adamw":
        # AdamW decays by lr times its weight_decay; divided by the peak, that is the fully decoupled one.
        decay = recipe.weight_decay / recipe.learning_rate if recipe.decoupled else recipe.weight_decay
        return torch.optim.AdamW(parameter_groups(model, decay), **settings)
    raise InputError(f"there is no optimizer {recipe.optimizer!r}; there are: 'stable_adamw', 'adamw'")


def _check(group: dict) -> None:
    lr, max_lr, decay = float(group["lr"]), float(group["max_lr"]), group["weight_decay"]
    if not (0 <= lr < math.inf and 0 < max_lr < math.inf):
        raise InputError(f"the learning rate must be a number above 0, not {lr!r} (its peak: {max_lr!r}); try 1e-3")
    if len(group["betas"]) != 2 or not all(0 <= beta < 1 for beta in group["betas"]):
        raise InputError(f"betas must be two numbers in [0, 1), not {group['betas']!r}; try (0.9, 0.98)")
    if not 0 < group["eps"] < math.inf:
        raise InputError(f"eps must be a small number above 0, not {group['eps']!r}; try 1e-6")
    share = decay if group["decoupled"] else decay * max_lr
    if not 0 <= share < 1:
        times = "" if group["decoupled"] else f" times the learning rate of {max_lr:g}"
        raise InputError(
            f"a weight decay of {decay!r}{times} is not a share of the weight in [0, 1); give a smaller one"
        )
