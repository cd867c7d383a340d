"""The checks under the exercises: `check_NAME(your_function)` prints one line and returns True or False.

    passed: attend agrees with the plain loops on 6 inputs
    not yet: with S 4, K 8: the scores were not divided by sqrt(K)
    to do: fill in attend, then run this cell again

A check never raises for what a learner wrote, so that "Run All" reaches the end of a lesson. It compares with torch's
own operation or with the definition in plain loops, on seeded random inputs of several shapes, and it knows the usual
mistakes by their result. To add one, write a function that takes the learner's, raises `NotYet` through `compare`,
returns what to say when it passed, and bears the decorator `check`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class NotYet(Exception):
    """What is wrong with an answer, in words for the learner."""


def check(body: Callable[[Callable], str]) -> Callable[[Callable], bool]:
    """Turn `body(fn) -> praise` into a check that prints one line and returns whether the answer is right."""

    @functools.wraps(body)
    def checked(fn: Callable) -> bool:
        name = getattr(fn, "__name__", None)
        if not callable(fn):
            return _say(False, f"not yet: give the function itself, not {_short(fn)}")
        try:
            with torch.random.fork_rng(
                devices=[]
            ):  # seeded here, and the lesson's own random numbers stay as they were
                torch.manual_seed(0)
                return _say(True, f"passed: {name} {body(fn)}")
        except NotImplementedError:
            return _say(False, f"to do: fill in {name}, then run this cell again")
        except NotYet as wrong:
            return _say(False, f"not yet: {wrong}")
        except Exception as error:
            reason = (str(error).strip().splitlines() or ["no message"])[0]
            return _say(False, f"not yet: your function raised {type(error).__name__}: {reason}")

    return checked


def _say(verdict: bool, line: str) -> bool:
    print(line)
    return verdict


def compare(
    got, want: Tensor | int, case: str, mistakes: dict[str, Tensor | int] | None = None, tolerance: float = 1e-5
) -> None:
    """Raise `NotYet` unless `got` is `want`: same shape, every number within `tolerance` (relative or absolute).

    `case` names the input; `mistakes` maps the description of a usual mistake to the result it gives.
    """
    if got is None:
        raise NotYet("your function returned None; does it end with a return?")
    if isinstance(want, int):
        if isinstance(got, Tensor) and got.numel() == 1:
            got = got.item()
        if got == want:
            return
        known = _recognise(got, mistakes, lambda a, b: a == b)
        raise NotYet(f"{case}: {known or f'expected {want:,}, got {_short(got)}'}")
    if not isinstance(got, Tensor):
        raise NotYet(f"{case}: expected a tensor, got {_short(got)}")
    if got.shape != want.shape:
        raise NotYet(f"{case}: expected the shape {tuple(want.shape)}, got {tuple(got.shape)}")
    if _close(got, want, tolerance):
        return
    known = _recognise(got, mistakes, lambda a, b: _close(a, b, tolerance))
    raise NotYet(f"{case}: {known or _largest_difference(got, want)}")


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Nan equals nan here: a right result has none, and a known mistake may."""
    return a.shape == b.shape and torch.allclose(
        a.detach().to(b.dtype), b, rtol=tolerance, atol=tolerance, equal_nan=True
    )


def _recognise(got, mistakes, same) -> str | None:
    """The description of the first known mistake that gives this result."""
    return next((words for words, wrong in (mistakes or {}).items() if same(got, wrong)), None)


def _largest_difference(got: Tensor, want: Tensor) -> str:
    got = got.detach().to(want.dtype)
    if not torch.isfinite(got).all():
        bad = int((~torch.isfinite(got)).sum())
        return f"{bad} of {got.numel()} numbers are nan or infinite; is a whole row masked, or something divided by 0?"
    place = tuple(i.item() for i in torch.unravel_index((got - want).abs().argmax(), want.shape))
    where = f"at {list(place)} " if place else ""
    return f"{where}expected {want[place].item():.4f}, got {got[place].item():.4f}"


def _short(value) -> str:
    text = repr(value).splitlines()[0]
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"


# ------------------------------------------------------------------------------------------- 01_vanilla_bert


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


# --------------------------------------------------------------------------------------------------- 00_tour


@check
def check_batch_report(fn) -> str:
    """`fn(real_BS, seconds) -> (share of pads, real tokens per second)` for a padded batch that took `seconds`."""
    cases = [([4, 1, 2], 0.5), ([6], 2.0), ([3, 1, 9, 3], 0.25)]
    for lengths, seconds in cases:
        real_BS = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        case = f"with texts of {_listed(lengths)} tokens in {seconds} s"
        share, rate = _pair(fn(real_BS.clone(), seconds), case, "the share of pads and the tokens per second")
        real, places = sum(lengths), real_BS.numel()
        wrong_shares = {
            "the two are swapped: the share of pads comes first": real / seconds,
            "the first number is the share of real tokens, not of pads": real / places,
            "the pads were divided by the real tokens; divide by all places of the rectangle": places / real - 1,
            "the first number is in percent; a share lies between 0 and 1": 100 * (1 - real / places),
            "the first number is how many pads there are, not their share": places - real,
        }
        wrong_rates = {
            "pads were counted as tokens; only real ones are work done": places / seconds,
            "that is seconds per token; divide the other way round": seconds / real,
            "that is texts per second; count tokens": len(lengths) / seconds,
            "the tokens were multiplied by the seconds; divide": real * seconds,
        }
        _compare_number(share, 1 - real / places, f"{case}, share of pads", wrong_shares)
        _compare_number(rate, real / seconds, f"{case}, tokens per second", wrong_rates)
    return "is right for 3 batches, one of them without pads"


@check
def check_flat_axis(fn) -> str:
    """`fn(lengths) -> (cu_seqlens (N + 1,), position_ids (T,))` of texts laid end to end; a length may be 0."""
    for lengths in ([3, 1], [2, 5, 4], [6], [4, 0, 2]):
        case = f"with lengths {lengths}"
        cu_seqlens, position_ids = _pair(fn(list(lengths)), case, "cu_seqlens and position_ids")
        begins = torch.tensor([sum(lengths[:i]) for i in range(len(lengths) + 1)])
        places = torch.tensor([place for n in lengths for place in range(n)])
        owners = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))  # each token's text
        wrong_begins = {
            "cu_seqlens lacks the 0 in front": begins[1:],
            "cu_seqlens lacks its last entry, T": begins[:-1],
            "the lengths of cu_seqlens were not added up": torch.tensor([0, *lengths]),
            "an empty text keeps its entry: it begins where the next text begins": begins.unique(),
            "those are the lengths; cu_seqlens holds their running sums, from 0 to T": torch.tensor(lengths),
            "the two are swapped: cu_seqlens comes first, position_ids second": places,
        }
        wrong_places = {
            "position_ids run on from text to text; in each text they start again at 0": torch.arange(sum(lengths)),
            "position_ids count from 1; the first token of a text is at 0": places + 1,
            "that is the number of each token's text, not its place in it": owners,
            "each token got the beginning of its text; subtract it from the place on the flat axis": begins[owners],
            "pads got positions too; the flat axis has none": torch.arange(max(lengths)).repeat(len(lengths)),
        }
        _compare_or_recognise(cu_seqlens, begins, f"{case}, cu_seqlens", wrong_begins)
        _compare_or_recognise(position_ids, places, f"{case}, position_ids", wrong_places)
        _whole_numbers(cu_seqlens, f"{case}, cu_seqlens")
        _whole_numbers(position_ids, f"{case}, position_ids")
    return "is right for 4 batches, one of them with an empty text"


@check
def check_score_pairs(fn) -> str:
    """`fn(n, window) -> int`: pairs (query, key) of n tokens, at most `window` apart, or all of them with None."""
    cases = [(10, 2), (4, 1), (7, 0), (1, 3), (3, 5), (5, 3), (65, 64), (128, 64), (200, 64), (1, None), (12, None)]
    for n, w in cases:
        pairs = sum(w is None or abs(query - key) <= w for query in range(n) for key in range(n))
        got, case = fn(n, w), f"with n {n}, window {w}"
        if isinstance(got, float) and got == pairs:
            raise NotYet(f"{case}: {got} is a float; return a whole number (divide with //)")
        compare(got, pairs, case, {} if w is None else _score_pairs_mistakes(n, w))
    return f"agrees with counting on {len(cases)} texts, shorter and longer than the window"


def _score_pairs_mistakes(n: int, w: int) -> dict[str, int]:
    def count(left, right):
        return sum(max(0, min(n, i + right + 1) - max(0, i - left)) for i in range(n))

    middle = n * (2 * w + 1)
    uncapped = middle - w * (w + 1)
    every_pair = "that is a global layer; with a window fewer pairs are scored"
    if w == 0:
        every_pair = "window 0 is not None: a token that sees no key on either side still sees itself, and only that"
    elif n <= 2 * w + 1:
        every_pair = "a text longer than window + 1 already loses pairs at its ends"
    return {
        "tokens near the two ends have fewer keys": middle,
        "the token itself is a key too": count(w, w) - n,
        "neither the token itself nor the two ends were thought of": n * 2 * w,
        "window is the number of keys on each side, not on both together": count(w // 2, w // 2),
        "keys to the right count as well as keys to the left": count(w, 0),
        "each end lacks 1 + 2 + ... + w keys, and there are two ends": middle - w * (w + 1) // 2,
        "each end lacks 1 + 2 + ... + w keys, which is w (w + 1) / 2": middle - w * w,
        f"a text that is shorter than the window sees all of itself: expected {n * n}, got {uncapped}": uncapped,
        every_pair: n * n,
    }


def _pair(got, case: str, names: str) -> tuple:
    if got is None:
        raise NotYet("your function returned None; does it end with a return?")
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise NotYet(f"{case}: return two things, {names}, not {_short(got)}")
    return tuple(got)


def _compare_number(got, want: float, case: str, mistakes: dict[str, float]) -> None:
    """`compare` for a number that need not be whole, given as a float, an int or a tensor with one element."""
    if isinstance(got, Tensor) and got.numel() == 1:
        got = got.item()
    if not isinstance(got, int | float):
        raise NotYet(f"{case}: expected a number, got {_short(got)}")
    if math.isclose(got, want, rel_tol=1e-5, abs_tol=1e-5):
        return
    known = _recognise(got, mistakes, lambda a, b: math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-5))
    raise NotYet(f"{case}: {known or f'expected {want:.4g}, got {got:.4g}'}")


def _compare_or_recognise(got, want: Tensor, case: str, mistakes: dict[str, Tensor]) -> None:
    """`compare`, which also knows the mistakes whose result has another shape than the right one."""
    if isinstance(got, Tensor) and got.shape != want.shape:
        known = _recognise(got, mistakes, lambda a, b: _close(a, b, 0))
        if known:
            raise NotYet(f"{case}: {known}")
    compare(got, want, case, mistakes, tolerance=0)


def _whole_numbers(got: Tensor, case: str) -> None:
    if got.is_floating_point():
        raise NotYet(f"{case}: the numbers are right, but {got.dtype}; places and beginnings are whole numbers")


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:-1])) + (" and " if len(numbers) > 1 else "") + str(numbers[-1])
