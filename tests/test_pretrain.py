"""Training: it learns, it repeats, both models see the same, and what it reports is what happened."""

import math

import pytest
import torch

from modernbert_edu import EncoderConfig, InputError, MaskedLM
from modernbert_edu.data.masking import mask_tokens
from modernbert_edu.data.tokenizer import train_bpe
from modernbert_edu.training import evaluate_mlm, train_mlm
from modernbert_edu.training.pretrain import build_optimizer, masked_batch

# Weights this large let so small a model learn within a second.
SIZES = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96, init="normal",
             initializer_range=0.1)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["one two three four five six seven eight nine ten " * 20], vocab_size=320)


@pytest.fixture(scope="module")
def sequences(tokenizer):
    """Counting: each token follows from its neighbours."""
    words = " one two three four five six seven eight nine ten".split(" ")[1:]
    texts = [" ".join(words[(start + i) % 10] for i in range(12 + start)) for start in range(10)]
    return [tokenizer.encode(text) for text in texts]


def model_for(tokenizer, kind="modernbert", **changes):
    torch.manual_seed(0)
    return MaskedLM(EncoderConfig.preset(f"{kind}-tiny", **SIZES, vocab_size=tokenizer.vocab_size, **changes))


def run(model, sequences, tokenizer, **changes):
    settings = dict(steps=60, batch_size=5, learning_rate=3e-3, mask_rate=0.15, seed=0)
    return train_mlm(model, sequences, sequences, tokenizer, **{**settings, **changes})


def test_it_learns_to_count(tokenizer, sequences):
    model = model_for(tokenizer)
    result = run(model, sequences, tokenizer, steps=300, batch_size=10, eval_every=75)
    curve = [r["value"] for r in result.history if r["what"] == "held_out_loss"]
    assert len(curve) == 5  # before, three in between, at the end
    assert curve[0] > math.log(320) and result.held_out_loss == curve[-1] < 0.8
    assert result.masked_accuracy > 0.75


def test_same_seed_same_run(tokenizer, sequences):
    first, second = (run(model_for(tokenizer), sequences, tokenizer, steps=5) for _ in range(2))
    losses = [[r["value"] for r in result.history] for result in (first, second)]
    assert losses[0] == losses[1]
    other = run(model_for(tokenizer), sequences, tokenizer, steps=5, seed=1)
    assert [r["value"] for r in other.history] != losses[0]


def test_both_models_see_the_same_sequences_and_masks(tokenizer, sequences, monkeypatch):
    seen = {}
    for kind in ("bert", "modernbert"):
        model = model_for(tokenizer, kind, attention_dropout=0.1)  # dropout draws random numbers in between
        seen[kind] = []
        model.register_forward_pre_hook(
            lambda m, args, kwargs, kind=kind: seen[kind].append((args[0].clone(), kwargs["labels"].clone())),
            with_kwargs=True,
        )
        run(model, sequences, tokenizer, steps=4)
    assert len(seen["bert"]) == len(seen["modernbert"]) >= 4
    for (ids_a, labels_a), (ids_b, labels_b) in zip(seen["bert"], seen["modernbert"], strict=True):
        assert torch.equal(ids_a, ids_b) and torch.equal(labels_a, labels_b)


def test_evaluation_equals_the_plain_formula(tokenizer, sequences):
    model = model_for(tokenizer).eval()
    loss, accuracy = evaluate_mlm(model, sequences, tokenizer, batch_size=3, seed=5)
    generator, total, right, count = torch.Generator().manual_seed(5), 0.0, 0, 0
    for start in range(0, len(sequences), 3):
        ids, labels, mask = masked_batch(sequences[start : start + 3], tokenizer, 0.3, generator)
        probabilities = model(ids, mask).logits.softmax(-1)
        for row in range(ids.shape[0]):
            for at in (labels[row] != -100).nonzero().flatten().tolist():
                total -= math.log(probabilities[row, at, labels[row, at]].item())
                right += int(probabilities[row, at].argmax()) == labels[row, at].item()
                count += 1
    assert loss == pytest.approx(total / count, rel=1e-4)
    assert accuracy == pytest.approx(right / count)
    assert evaluate_mlm(model, sequences, tokenizer, batch_size=3, seed=5) == (loss, accuracy)


def test_evaluation_leaves_the_mode_alone(tokenizer, sequences):
    model = model_for(tokenizer).train()
    evaluate_mlm(model, sequences, tokenizer)
    assert model.training


def test_real_tokens_are_counted_and_pads_are_not(tokenizer, sequences):
    short_and_long = [sequences[0], sequences[9]]
    result = run(model_for(tokenizer), short_and_long, tokenizer, steps=3, batch_size=2)
    assert result.tokens == 3 * (len(sequences[0]) + len(sequences[9]))
    assert result.seconds > 0 and result.tokens_per_second == result.tokens / result.seconds


def test_learning_rate_rises_and_falls_and_norms_do_not_decay(tokenizer):
    model = model_for(tokenizer)
    optimizer, schedule = build_optimizer(model, 1.0, 0.1, steps=10, warmup_steps=4)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    for group in optimizer.param_groups:
        assert all((p.dim() >= 2) == (group["weight_decay"] > 0) for p in group["params"])
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


def test_masked_batch_hides_what_it_asks_for(tokenizer, sequences):
    ids, labels, mask = masked_batch(sequences[:4], tokenizer, 0.3, torch.Generator().manual_seed(0))
    maskable = mask.clone()
    maskable[:, 0] = False
    assert int((labels != -100).sum()) == round(0.3 * (int(mask.sum()) - 8))  # [CLS] and [SEP] of four rows are left
    again, _ = mask_tokens(
        torch.where(labels != -100, labels, ids), tokenizer, rate=0.3, generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(again, ids)


def test_divergence_and_empty_input_are_said(tokenizer, sequences):
    with pytest.raises(InputError, match="not a number after .* lower the learning rate"):
        run(model_for(tokenizer), sequences, tokenizer, learning_rate=float("inf"))
    with pytest.raises(InputError, match="no sequences"):
        run(model_for(tokenizer), [], tokenizer)


def test_bfloat16_autocast_trains(tokenizer, sequences):
    model = model_for(tokenizer)
    result = run(model, sequences, tokenizer, steps=20, dtype=torch.bfloat16)
    assert result.held_out_loss < 5.5 and next(model.parameters()).dtype == torch.float32
