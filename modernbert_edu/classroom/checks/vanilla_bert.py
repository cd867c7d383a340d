"""Checks of 01_vanilla_bert."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .machinery import (
    NotYet,
    check,
    compare,
)


def attend_by_loops(q_SK: Tensor, k_SK: Tensor, v_SK: Tensor, key_mask_S: Tensor) -> Tensor:
    """One head of attention as its definition says it (Vaswani et al. 2017, equation 1), one number at a time."""
    S, K = q_SK.shape
    out_SK = torch.zeros(S, K)
    for query in range(S):
        scores = [float(q_SK[query] @ k_SK[key]) / math.sqrt(K) for key in range(S)]
        weights = [math.exp(scores[key]) if key_mask_S[key] else 0.0 for key in range(S)]
        for key in range(S):
            out_SK[query] += weights[key] / sum(weights) * v_SK[key]
    return out_SK


def attend_heads_by_loops(q_BSD: Tensor, k_BSD: Tensor, v_BSD: Tensor, key_mask_BS: Tensor, H: int) -> Tensor:
    """`attend_by_loops` for each text and each head; head h owns the numbers h K to (h + 1) K of each vector."""
    out_BSD = torch.zeros_like(q_BSD)
    K = q_BSD.shape[-1] // H
    for text, mask_S in enumerate(key_mask_BS):
        for head in range(H):
            own = slice(head * K, (head + 1) * K)
            q_SK, k_SK, v_SK = (x[text, :, own] for x in (q_BSD, k_BSD, v_BSD))
            out_BSD[text, :, own] = attend_by_loops(q_SK, k_SK, v_SK, mask_S)
    return out_BSD


@check
def check_attend(fn) -> str:
    """`fn(q_BSD, k_BSD, v_BSD, key_mask_BS, H) -> (B, S, D)`: H heads; keys where the mask is False get no weight."""
    cases = [([5, 3], 6, 3), ([4], 8, 1), ([4], 8, 2), ([2, 7, 4], 8, 2), ([3, 3], 4, 4), ([1], 4, 2)]
    for lengths, D, H in cases:
        B, S = len(lengths), max(lengths)
        q, k, v = torch.randn(3, B, S, D).unbind()
        mask = torch.arange(S) < torch.tensor(lengths)[:, None]
        got = fn(q.clone(), k.clone(), v.clone(), mask.clone(), H)
        case = f"with B {B}, S {S}, D {D}, H {H}" + (" and pads" if min(lengths) < S else "")
        compare(got, attend_heads_by_loops(q, k, v, mask, H), case, _attend_mistakes(q, k, v, mask, H))
    return "agrees with the plain loops on 6 batches, two of them with pads"


def _attend_mistakes(q_BSD: Tensor, k_BSD: Tensor, v_BSD: Tensor, mask_BS: Tensor, H: int) -> dict[str, Tensor]:
    B, S, D = q_BSD.shape
    K, never, keys = D // H, float("-inf"), mask_BS[:, None, None, :]
    q, k, v = (x.view(B, S, H, K).transpose(1, 2) for x in (q_BSD, k_BSD, v_BSD))
    raw = q @ k.transpose(-1, -2)
    scores = raw / math.sqrt(K)
    weights = scores.masked_fill(~keys, never).softmax(-1)

    def beside(out_BHSK):
        return out_BHSK.transpose(1, 2).reshape(B, S, D)

    def divided_by(number):
        return beside((raw / number).masked_fill(~keys, never).softmax(-1) @ v)

    cut_q, cut_k, cut_v = (x.reshape(B, H, S, K) for x in (q_BSD, k_BSD, v_BSD))
    cut = (cut_q @ cut_k.transpose(-1, -2) / math.sqrt(K)).masked_fill(~keys, never).softmax(-1) @ cut_v
    one_head = (q_BSD @ k_BSD.transpose(-1, -2) / math.sqrt(D)).masked_fill(~mask_BS[:, None], never).softmax(-1)
    return {
        "that is one head of D numbers; split them into H heads of K = D / H": one_head @ v_BSD,
        "the scores were not divided by sqrt(K)": divided_by(1),
        "the scores were divided by sqrt(D); a head's vectors have K = D / H numbers": divided_by(math.sqrt(D)),
        "the scores were divided by K, not by sqrt(K)": divided_by(K),
        "the scores were divided by sqrt(S), the number of tokens; divide by sqrt(K)": divided_by(math.sqrt(S)),
        "masked keys still get weight: the mask was not used": beside(scores.softmax(-1) @ v),
        "masked keys still get weight: set their scores to -inf, for exp(0) is 1": beside(
            scores.where(keys, 0).softmax(-1) @ v
        ),
        "the weights no longer sum to 1: mask the scores before the softmax": beside(
            scores.softmax(-1).where(keys, 0) @ v
        ),
        "only pads get weight; did you invert the mask? True means may be looked at": beside(
            scores.masked_fill(keys, never).softmax(-1) @ v
        ),
        "the mask hides queries (rows) instead of keys (columns)": beside(
            scores.masked_fill(~mask_BS[:, None, :, None], never).softmax(-1) @ v
        ),
        "the softmax runs over the queries; it must run over the keys, the last axis": beside(
            scores.masked_fill(~keys, never).softmax(-2) @ v
        ),
        "view (B, H, S, K) cuts the tokens up: view (B, S, H, K), then transpose": beside(cut),
        "view (B, H, S, K) cuts the tokens up: view (B, S, H, K), then transpose, and back": cut.reshape(B, S, D),
        "the heads were not laid side by side again: transpose back to (B, S, H, K) first": (weights @ v).reshape(
            B, S, D
        ),
    }


@check
def check_post_norm(fn) -> str:
    """`fn(x_SD, sublayer, weight_D, bias_D, eps) -> (S, D)`: the layer norm of x + sublayer(x), spelled out."""
    cases = [(4, 8, 1e-12), (1, 4, 1e-12), (3, 5, 0.5)]
    for S, D, eps in cases:
        x, matrix = torch.randn(S, D) + 1, torch.randn(D, D)
        weight, bias = torch.randn(D), torch.randn(D)

        def sublayer(x, matrix=matrix):
            return x @ matrix

        with _Calls() as calls:
            got = fn(x.clone(), sublayer, weight.clone(), bias.clone(), eps)
        want = F.layer_norm(x + sublayer(x), (D,), weight, bias, eps)
        compare(got, want, f"with S {S}, D {D}, eps {eps}", _post_norm_mistakes(x, sublayer, weight, bias, eps))
        if calls.names & {"layer_norm", "native_layer_norm"}:
            raise NotYet("the numbers are right, but torch's layer norm made them; spell it out with mean and sqrt")
    return "agrees with torch's layer norm on 3 inputs, one of them with an eps that matters"


class _Calls(TorchFunctionMode):
    """The names of the torch functions that are called inside; they do what they always do."""

    def __init__(self):
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.names.add(getattr(function, "__name__", ""))
        return function(*args, **(kwargs or {}))


def _post_norm_mistakes(x: Tensor, f: Callable, weight: Tensor, bias: Tensor, eps: float) -> dict[str, Tensor]:
    def norm(x, weight=weight, bias=bias):
        return F.layer_norm(x, x.shape[-1:], weight, bias, eps)

    s = x + f(x)
    centred = s - s.mean(-1, keepdim=True)
    return {
        "that is pre-norm, x + sublayer(norm(x)); BERT normalises the sum": x + f(norm(x)),
        "the norm stands inside the sum: x + norm(sublayer(x)); BERT normalises the sum": x + norm(f(x)),
        "x is not added: normalise x + sublayer(x)": norm(f(x)),
        "the sum is not normalised": s,
        "the sublayer is not added: normalise x + sublayer(x)": norm(x),
        "weight and bias are not used": norm(s, None, None),
        "the bias is not added": norm(s, weight, None),
        "the variance was divided by D - 1; layer norm divides by D (unbiased=False)": centred
        / torch.sqrt(s.var(-1, keepdim=True) + eps)
        * weight
        + bias,
        "eps belongs under the square root, added to the variance": centred
        / (s.std(-1, unbiased=False, keepdim=True) + eps)
        * weight
        + bias,
        "the square root is missing: divide by the root of the variance": centred
        / (s.var(-1, unbiased=False, keepdim=True) + eps)
        * weight
        + bias,
        "eps is not used": centred / s.std(-1, unbiased=False, keepdim=True) * weight + bias,
        "one mean and variance were taken over all tokens; each token is normalised by itself, over D": (s - s.mean())
        / torch.sqrt(s.var(unbiased=False) + eps)
        * weight
        + bias,
        "the mean and variance run over the tokens; each token is normalised by itself, over D": F.layer_norm(
            s.T.contiguous(), s.shape[:1], eps=eps
        ).T
        * weight
        + bias,
    }


@check
def check_mlm_loss(fn) -> str:
    """`fn(hidden_TD, embedding_VD, bias_V, labels_T) -> scalar`: cross-entropy of the tied decoder at masked tokens."""
    cases = [(6, 4, 11, [1, 4]), (3, 8, 5, [0]), (9, 2, 30, [2, 3, 8])]
    for T, D, V, masked in cases:
        hidden, embedding, bias = (torch.randn(*shape, requires_grad=True) for shape in [(T, D), (V, D), (V,)])
        labels = torch.full((T,), -100)
        labels[masked] = torch.randint(1, V, (len(masked),))
        labels[masked[1:2]] = 0  # an id like any other
        got = fn(hidden, embedding, bias, labels.clone())
        case = f"with T {T}, D {D}, V {V} and {len(masked)} masked tokens"
        want = F.cross_entropy(hidden @ embedding.T + bias, labels, ignore_index=-100)
        with torch.no_grad():
            compare(got, want.detach(), case, _mlm_loss_mistakes(hidden, embedding, bias, labels))
        _check_gradients(got, want, {"hidden": hidden, "embedding": embedding, "bias": bias}, case)
        _check_unmasked_are_left_alone(fn, hidden, embedding, bias, labels)
    return "agrees with torch's cross-entropy on 3 inputs, gradients included, and decodes masked tokens only"


def _mlm_loss_mistakes(hidden: Tensor, embedding: Tensor, bias: Tensor, labels: Tensor) -> dict[str, Tensor]:
    chosen = labels != -100
    logits = hidden @ embedding.T + bias
    losses = -logits[chosen].log_softmax(-1).gather(1, labels[chosen, None]).flatten()
    no_bias = F.cross_entropy((hidden @ embedding.T)[chosen], labels[chosen])
    return {
        "that is the sum over the masked tokens; the loss is their mean": losses.sum(),
        "the sum was divided by all T tokens; divide by the number of masked ones": losses.sum() / len(labels),
        "unmasked tokens count too (a label of -100 was read as a token); leave them out": F.cross_entropy(
            logits, labels.clamp(min=0)
        ),
        "bias_V is not added to the logits": no_bias,
        "F.cross_entropy takes logits and does the softmax itself; yours came on top": F.cross_entropy(
            logits[chosen].softmax(-1), labels[chosen]
        ),
        "the token with id 0 was left out; only a label of -100 means: nothing to predict": losses[
            labels[chosen] > 0
        ].mean(),
        "that is the negative of the loss": -losses.mean(),
        "the logarithm must be the natural one (nats), not base 2": losses.mean() / math.log(2),
    }


def _check_unmasked_are_left_alone(fn, hidden: Tensor, embedding: Tensor, bias: Tensor, labels: Tensor) -> None:
    """What is not a number spoils every product that it enters, forward or backward."""
    poisoned = hidden.detach().masked_fill((labels == -100)[:, None], float("nan"))
    inputs = [x.detach().clone().requires_grad_() for x in (poisoned, embedding, bias)]
    loss = fn(*inputs, labels.clone())
    gradients = torch.autograd.grad(loss, inputs[1:])
    if not all(x.isfinite().all() for x in (loss, *gradients)):
        raise NotYet("the loss is right, but unmasked tokens were decoded too; choose the rows of hidden_TD first")


def _check_gradients(got: Tensor, want: Tensor, inputs: dict[str, Tensor], case: str) -> None:
    """The loss must reach each input, or training would leave it as it was."""
    if not got.requires_grad:
        raise NotYet(f"{case}: the loss has no gradient; do not detach, and do not compute under no_grad")
    wanted = torch.autograd.grad(want, list(inputs.values()))
    found = torch.autograd.grad(got, list(inputs.values()), allow_unused=True)
    for name, gradient, target in zip(inputs, found, wanted, strict=True):
        if gradient is None:
            raise NotYet(f"{case}: no gradient reaches {name}; was it detached or copied?")
        compare(gradient, target, f"{case}, gradient of {name}")
