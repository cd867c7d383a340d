"""Classifiers equal transformers' with the same weights, open there and come back, and pool real tokens only."""

import pytest
import torch
import transformers

from modernbert_edu import Encoder, EncoderConfig, InputError, MaskedLM, load, pack, save
from modernbert_edu.checkpoint import from_transformers, to_transformers
from modernbert_edu.classifier import SequenceClassifier, TokenClassifier, pool

SIZES = dict(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=48, vocab_size=192)
LABELS = ("no", "perhaps", "yes")


def config(kind, **changes):
    return EncoderConfig.preset(f"{kind}-tiny", **{**SIZES, **changes})


def batch():
    ids = torch.randint(5, 190, (3, 20))
    mask = torch.arange(20) < torch.tensor([20, 7, 13])[:, None]
    return ids * mask, mask.long()


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


CASES = [
    ("modernbert", SequenceClassifier, dict(pooling="cls")),
    ("modernbert", SequenceClassifier, dict(pooling="mean")),
    ("modernbert", TokenClassifier, {}),
    ("bert", SequenceClassifier, {}),
    ("bert", TokenClassifier, {}),
]


@pytest.mark.parametrize(("kind", "cls", "options"), CASES)
def test_logits_loss_and_gradients_equal_transformers(kind, cls, options):
    ours = cls(config(kind), LABELS, **options).eval()
    for p in ours.parameters():  # nothing may hide behind zeros and ones
        torch.nn.init.normal_(p, std=0.2)
    theirs = to_transformers(ours)
    assert type(theirs).__name__ == {"bert": "Bert", "modernbert": "ModernBert"}[kind] + (
        "ForSequenceClassification" if cls is SequenceClassifier else "ForTokenClassification"
    )
    ids, mask = batch()
    labels = (
        torch.tensor([0, 2, 1]) if cls is SequenceClassifier else torch.randint(0, 3, ids.shape).where(mask > 0, -100)
    )
    a, b = ours(ids, mask, labels=labels), theirs(input_ids=ids, attention_mask=mask, labels=labels)
    real = slice(None) if cls is SequenceClassifier else mask.bool()
    close(a.logits[real], b.logits[real])
    close(a.loss, b.loss)
    a.loss.backward()
    b.loss.backward()
    close(ours.classifier.weight.grad, theirs.classifier.weight.grad)
    grad = dict(theirs.named_parameters())
    name = "bert.embeddings.word_embeddings.weight" if kind == "bert" else "model.embeddings.tok_embeddings.weight"
    close(ours.encoder.embeddings.tok_embeddings.weight.grad, grad[name].grad)
    again = from_transformers(theirs)
    assert type(again) is cls and all(
        torch.equal(p, q) for p, q in zip(again.parameters(), ours.parameters(), strict=True)
    )


@pytest.mark.parametrize(("kind", "cls", "options"), CASES)
def test_a_folder_opens_here_and_in_transformers(kind, cls, options, tmp_path):
    ours = cls(config(kind), LABELS, **options).eval()
    save(ours, None, tmp_path)
    here, _ = load(tmp_path)
    auto = transformers.AutoModelForSequenceClassification
    there = (auto if cls is SequenceClassifier else transformers.AutoModelForTokenClassification).from_pretrained(
        tmp_path
    )
    ids, mask = batch()
    with torch.inference_mode():
        want = ours(ids, mask).logits
        assert torch.equal(here(ids, mask).logits, want)
        real = slice(None) if cls is SequenceClassifier else mask.bool()
        close(there.eval()(input_ids=ids, attention_mask=mask).logits[real], want[real])
    assert here.labels == LABELS and there.config.id2label == dict(enumerate(LABELS))
    there.save_pretrained(tmp_path / "theirs")
    back, _ = load(tmp_path / "theirs")
    assert type(back) is cls and torch.equal(back(ids, mask).logits, want)


def test_a_model_in_between_opens_here(tmp_path):
    ours = SequenceClassifier(config("bert", positions="rope"), LABELS, pooling="mean").eval()
    with pytest.warns(UserWarning, match="opens with modernbert_edu.load only"):
        save(ours, None, tmp_path)
    back, _ = load(tmp_path)
    ids, mask = batch()
    assert torch.equal(back(ids, mask).logits, ours(ids, mask).logits) and back.pooling == "mean"


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_padded_equals_alone_and_packed(kind, pooling):
    model = SequenceClassifier(config(kind), LABELS, pooling=pooling).eval()
    ids, mask = batch()
    together = model(ids, mask).logits
    rows = [row[m.bool()].tolist() for row, m in zip(ids, mask, strict=True)]
    alone = torch.cat([model(torch.tensor([row])).logits for row in rows])
    flat, layout = pack(rows)
    close(together, alone)
    close(model(flat, layout=layout).logits, alone)


def test_pooling_is_the_plain_definition():
    hidden, mask = torch.randn(2, 5, 3), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    close(pool(hidden, "mean", mask), torch.stack([hidden[0, :3].mean(0), hidden[1].mean(0)]))
    assert torch.equal(pool(hidden, "cls", mask), hidden[:, 0])
    close(pool(hidden, "mean"), hidden.mean(1))


def test_regression_is_squared_error():
    model = SequenceClassifier(config("modernbert"), ("score",)).eval()
    ids, mask = batch()
    targets = torch.tensor([0.5, 3.0, -1.0])
    out = model(ids, mask, labels=targets)
    close(out.loss, ((out.logits[:, 0] - targets) ** 2).mean())
    theirs = to_transformers(model)(input_ids=ids, attention_mask=mask, labels=targets)
    close(out.loss, theirs.loss)


def test_it_begins_with_what_was_pretrained():
    pretrained = MaskedLM(config("modernbert"))
    torch.nn.init.normal_(pretrained.head.dense.weight)
    made = SequenceClassifier.from_pretrained(pretrained, LABELS)
    assert torch.equal(made.head.dense.weight, pretrained.head.dense.weight)
    assert all(
        torch.equal(a, b) for a, b in zip(made.encoder.parameters(), pretrained.encoder.parameters(), strict=True)
    )
    made.encoder.embeddings.tok_embeddings.weight.data.zero_()
    assert pretrained.encoder.embeddings.tok_embeddings.weight.abs().sum() > 0  # copies
    assert isinstance(TokenClassifier.from_pretrained(pretrained.encoder, LABELS).encoder, Encoder)


@pytest.mark.parametrize("kind", ["modernbert", "bert"])
@pytest.mark.parametrize("first", [SequenceClassifier, TokenClassifier])
@pytest.mark.parametrize("second", [SequenceClassifier, TokenClassifier])
def test_it_begins_with_another_classifier_but_not_with_its_classes(kind, first, second):
    old = first(config(kind), LABELS)
    for p in old.parameters():
        torch.nn.init.normal_(p, std=0.2)
    made = second.from_pretrained(old, ("a", "b"))
    parts = ["encoder"] + ["head"] * (kind == "modernbert" or first is second)  # BERT's heads are of two kinds
    for part in parts:
        theirs = dict(getattr(old, part).named_parameters())
        ours = dict(getattr(made, part).named_parameters())
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    again = first.from_pretrained(old, LABELS)
    assert made.classifier.out_features == 2 and not torch.equal(again.classifier.weight, old.classifier.weight)
    old.encoder.embeddings.tok_embeddings.weight.data.zero_()
    assert made.encoder.embeddings.tok_embeddings.weight.abs().sum() > 0  # copies


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="pooling must be one of 'cls', 'mean', not 'max'"):
        SequenceClassifier(config("modernbert"), LABELS, pooling="max")
    with pytest.raises(InputError, match="names of the classes, each once"):
        SequenceClassifier(config("modernbert"), ("a", "a"))
    with pytest.raises(InputError, match="names of the classes"):
        TokenClassifier(config("modernbert"), ())
