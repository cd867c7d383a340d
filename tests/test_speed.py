"""Timing: turns, budget, synchronisation, and calls that leave the model as they found it."""

import gc

import pytest
import torch

from modernbert_edu.config import EncoderConfig
from modernbert_edu.errors import InputError
from modernbert_edu.measure import speed
from modernbert_edu.measure.speed import (
    Timing,
    forward_call,
    real_tokens,
    time_interleaved,
    tokens_per_second,
    tokens_per_second_spread,
    training_call,
)
from modernbert_edu.model import MaskedLM

SMALL = dict(vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)


class Clock:
    """A clock that only moves when told to."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(speed.time, "perf_counter", lambda: self.now)

    def taking(self, *durations):
        """A call that takes these seconds, one after the other, the last one from then on."""
        left = list(durations)

        def call():
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


def tiny_model(**changes):
    return MaskedLM(EncoderConfig.preset("modernbert-tiny", **{**SMALL, "pad_token_id": 0, **changes}))


def batch():
    ids = torch.randint(1, 64, (2, 10))
    mask = torch.ones(2, 10, dtype=torch.int64)
    mask[1, 6:] = 0
    return ids, mask, ids.masked_fill(mask == 0, -100)


def test_takes_turns_after_the_warm_up():
    order = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    timings = time_interleaved(calls, device="cpu", repeats=4, warmup=2)
    assert order == ["a", "b"] * 6
    assert list(timings) == ["a", "b"]
    assert all(t.n == 4 for t in timings.values())


def test_median_spread_and_minimum_of_known_times(monkeypatch):
    clock = Clock(monkeypatch)
    call = clock.taking(50.0, 1.0, 2.0, 3.0, 4.0, 90.0)  # the slow first call is the warm-up
    timing = time_interleaved({"x": call}, device="cpu", repeats=5, warmup=1)["x"]
    assert timing == Timing(median=3.0, spread=2.0, minimum=1.0, n=5)


@pytest.mark.parametrize("seconds, n", [(0.5, 7), (2.0, 4), (100.0, 3)])
def test_a_budget_cuts_repeats_but_never_below_three(monkeypatch, seconds, n):
    clock = Clock(monkeypatch)
    timing = time_interleaved({"x": clock.taking(seconds)}, device="cpu", repeats=7, warmup=2, budget_seconds=11)["x"]
    assert timing.n == n


def test_a_slow_call_is_warmed_up_once_only(monkeypatch):
    clock = Clock(monkeypatch)
    start = clock.now
    time_interleaved({"x": clock.taking(100.0)}, device="cpu", warmup=5, budget_seconds=1)
    assert clock.now - start == 400.0  # one warm-up, three repeats


def test_the_device_is_awaited_before_and_after_each_call(monkeypatch):
    events = []
    monkeypatch.setattr(speed, "synchronise", lambda device: events.append(f"wait {device}"))
    time_interleaved({"x": lambda: events.append("call")}, device="cuda:1", repeats=3, warmup=1)
    assert events == ["wait cuda:1", "call", "wait cuda:1"] * 4


def test_garbage_collection_is_off_inside_and_restored_after():
    seen = []
    time_interleaved({"x": lambda: seen.append(gc.isenabled())}, device="cpu", repeats=3, warmup=1)
    assert seen == [False] * 4 and gc.isenabled()

    def fails():
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        time_interleaved({"x": fails}, device="cpu")
    assert gc.isenabled()


@pytest.mark.parametrize("bad", [dict(repeats=2), dict(warmup=0)])
def test_too_few_calls_are_refused(bad):
    with pytest.raises(InputError, match="at least 3 repeats and 1 warm-up"):
        time_interleaved({"x": lambda: None}, device="cpu", **bad)


def test_nothing_to_time_is_refused():
    with pytest.raises(InputError, match="nothing to time"):
        time_interleaved({}, device="cpu")


def test_only_real_tokens_count():
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    assert real_tokens(mask) == real_tokens(mask.bool()) == 4
    timing = Timing(median=0.5, spread=0.1, minimum=0.4, n=5)
    assert tokens_per_second(timing, 4) == 8.0
    assert tokens_per_second_spread(timing, 4) == pytest.approx(1.6)


def test_forward_call_has_no_dropout_no_graph_and_restores_every_mode():
    model = tiny_model(mlp_dropout=0.5).train()
    model.head.eval()  # a mixture, as when part of a model is frozen
    ids, mask, _ = batch()
    call = forward_call(model, ids, mask)
    first, second = call().last_hidden_state, call().last_hidden_state
    assert torch.equal(first, second)
    assert first.is_inference()
    assert model.training and model.encoder.training and not model.head.training


def test_training_call_computes_the_gradients_and_leaves_none():
    model = tiny_model().eval()
    ids, mask, labels = batch()
    norms = []
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(lambda p: norms.append(p.grad.norm().item()))
    before = [p.detach().clone() for p in model.parameters()]
    losses = [training_call(model, ids, mask, labels)() for _ in range(2)]
    assert len(norms) == 2 * len(before) and any(norms)
    assert norms[: len(before)] == norms[len(before) :]  # nothing was added up from the first call to the second
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert losses[0] == losses[1] and not losses[0].requires_grad
    assert not model.training


def test_training_call_trains_with_dropout():
    model = tiny_model(mlp_dropout=0.5).eval()
    call = training_call(model, *batch())
    assert call() != call()


@pytest.mark.cuda
def test_the_clock_waits_for_the_gpu():
    x = torch.randn(4096, 4096, device="cuda")

    def many():
        for _ in range(50):
            x @ x

    timing = time_interleaved({"x": many}, device="cuda", repeats=3)["x"]
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    many()
    end.record()
    torch.cuda.synchronize()
    assert timing.median > 0.5 * start.elapsed_time(end) / 1000
