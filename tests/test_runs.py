"""A run by a recipe: accumulation is the big batch, the log is what happened, a resume is the same run."""

import json

import pytest
import torch

from modernbert_edu import EncoderConfig, InputError, MaskedLM, load
from modernbert_edu.classroom.scale.text import TextScale
from modernbert_edu.data import prepare
from modernbert_edu.runtime import read_jsonl
from modernbert_edu.training import checkpoints
from modernbert_edu.training.distributed import Processes
from modernbert_edu.training.recipe import Recipe
from modernbert_edu.training.runs import Run, pretrain
from modernbert_edu.training.schedule import multiplier, step_sizes

SIZES = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)
SMALL = dict(tokens=12_288, length=64, tokens_per_step=1024, microbatch_tokens=256, learning_rate=3e-3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    words = "one two three four five six seven eight nine ten".split()
    for n in range(60):
        text = " ".join(words[(n + i * (1 + n % 3)) % 10] for i in range(30 + 17 * (n % 11)))
        (folder / f"{n:02}.txt").write_text(text)
    return prepare(TextScale(vocab_size=320, sequence_length=64, held_out_sequences=8), str(folder))


def recipe(name="modernbert", **changes):
    small = {**SMALL, **{k: v for k, v in changes.items() if k in SMALL}}
    return Recipe.preset(name).shrunk(**small).replace(**{k: v for k, v in changes.items() if k not in SMALL})


def model_for(data, kind="modernbert", seed=0, **changes):
    torch.manual_seed(seed)
    return MaskedLM(EncoderConfig.preset(f"{kind}-tiny", **SIZES, vocab_size=data.tokenizer.vocab_size, **changes))


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a | b)


def losses(history):
    return [(r["step"], r["value"]) for r in history if r["what"] == "train_loss"]


def test_a_step_of_many_microbatches_has_the_gradient_of_one_big_batch(data):
    """Summed loss over summed masked tokens, in float64: rows with few masked tokens must not weigh more."""
    gradients = {}
    for passes in (1, 4):
        model = model_for(data).double()
        r = recipe(batch_warmup_start=1024, batch_warmup_tokens=0)
        run = Run(model, r, data, None, 0, torch.device("cpu"), torch.float32, "m", 0, Processes(), None)
        from modernbert_edu.training.stream import microbatches

        mine = [next(m) for m in [microbatches(run.documents)] for _ in range(4)]
        mine[3] = mine[3].__class__(**{**vars(mine[3]), "labels": torch.where(
            torch.arange(len(mine[3].labels)) < 60, mine[3].labels, -100)})  # fmt: skip
        mine[3].masked = int((mine[3].labels != -100).sum())
        masked = sum(m.masked for m in mine)
        assert mine[3].masked < mine[0].masked
        if passes == 1:
            from modernbert_edu.unpadding import Layout

            layout = Layout.from_lengths([n for m in mine for n in m.layout.lengths])
            model(torch.cat([m.input_ids for m in mine]), layout=layout,
                  labels=torch.cat([m.labels for m in mine])).loss.backward()  # fmt: skip
        else:
            for m in mine:
                (run.losses(m)[0] * (m.masked / masked)).backward()
        gradients[passes] = {name: p.grad.clone() for name, p in model.named_parameters()}
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(gradients[4][name], gradient, rtol=1e-6, atol=1e-9)


def test_the_step_itself_accumulates_so(data):
    """4 passes of 256 and one of 1,024 over the same documents: the step of plain SGD shows the gradient."""
    r = recipe(batch_warmup_start=1024, batch_warmup_tokens=0, learning_rate=0.5, warmup_tokens=0)
    model = model_for(data)
    run = Run(model, r, data, None, 0, torch.device("cpu"), torch.float32, "m", 0, Processes(), None)
    run.optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    from modernbert_edu.training.stream import microbatches
    from modernbert_edu.unpadding import Layout

    before = weights(model)
    mine = [next(m) for m in [microbatches(run.documents)] for _ in range(4)]
    loss, rate = run.step(iter(mine), 1024)
    reference = model_for(data)
    reference.load_state_dict(before)
    layout = Layout.from_lengths([n for m in mine for n in m.layout.lengths])
    big = reference(torch.cat([m.input_ids for m in mine]), layout=layout, labels=torch.cat([m.labels for m in mine]))
    big.loss.backward()
    assert loss == pytest.approx(big.loss.item(), rel=1e-5) and rate == 0.5 * multiplier(r, 1024)
    for (name, p), q in zip(model.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p, q - rate * q.grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("name", ["modernbert", "bert-2018"])
def test_it_learns_and_says_what_happened(data, tmp_path, name):
    kind = "bert" if name == "bert-2018" else "modernbert"
    model = model_for(data, kind, initializer_range=0.1)
    r = recipe(name, tokens=40_960)
    seen = []
    run = pretrain(model, r, data, out=tmp_path / "run", label=kind, on_record=seen.append)
    held_out = [record for record in run.history if record["what"] == "held_out_loss"]
    assert held_out[-1]["value"] < held_out[0]["value"] - 1
    assert held_out[-1]["value"] < data.unigram_entropy + 1
    trained = [record for record in run.history if record["what"] == "train_loss"]
    sizes = list(step_sizes(r))
    assert [t["step"] for t in trained] == list(range(1, len(sizes) + 1))
    assert [t["tokens_per_step"] for t in trained] == sizes
    budget = torch.tensor(sizes).cumsum(0).tolist()
    assert [t["learning_rate"] for t in trained] == [r.learning_rate * multiplier(r, tokens) for tokens in budget]
    assert seen == run.history == read_jsonl(tmp_path / "run" / "log.jsonl")
    assert 0 <= [record["value"] for record in run.history if record["what"] == "waited_share"][-1] < 1
    opened, tokenizer = load(tmp_path / "run")
    assert equal(opened.state_dict(), model.state_dict()) and tokenizer.fingerprint == data.tokenizer.fingerprint


def test_with_dropout_a_run_repeats_and_a_stopped_one_ends_alike(data, tmp_path):
    """Dropout, packing, the optimizer and its learning rate all go on as if nothing had happened."""
    changes = dict(attention_output_dropout=0.1, mlp_dropout=0.1)
    whole = model_for(data, **changes)
    first = pretrain(whole, recipe(), data, out=tmp_path / "whole", checkpoint_every=3)

    class Stop(Exception):
        pass

    def stop_at(step):
        def look(record):
            if record["what"] == "train_loss" and record["step"] == step:
                raise Stop

        return look

    for step in (2, 5, 10, 11):  # killed four times, at most a few steps after a checkpoint
        with pytest.raises(Stop):
            pretrain(model_for(data, **changes), recipe(), data, out=tmp_path / "cut", checkpoint_every=3,
                     on_record=stop_at(step))  # fmt: skip
    again = model_for(data, **changes)
    second = pretrain(again, recipe(), data, out=tmp_path / "cut", checkpoint_every=3)
    assert equal(whole.state_dict(), again.state_dict())
    assert losses(first.history) == losses(second.history)
    assert losses(read_jsonl(tmp_path / "cut" / "log.jsonl")) == losses(first.history)
    assert second.tokens == first.tokens
    other = model_for(data, **changes)
    pretrain(other, recipe(), data, seed=1)
    assert not equal(whole.state_dict(), other.state_dict())


def test_a_finished_run_is_only_summed_up(data, tmp_path, capsys):
    first = pretrain(model_for(data), recipe(average_last=2), data, out=tmp_path, checkpoint_every=2)
    before = (tmp_path / "model.safetensors").read_bytes()
    again = pretrain(model_for(data), recipe(average_last=2), data, out=tmp_path, checkpoint_every=2)
    assert "it was at its end" in capsys.readouterr().out
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert again.held_out_loss == first.held_out_loss and len(again.history) == len(first.history)


def test_the_last_checkpoints_are_averaged_where_that_helps(data, tmp_path):
    run = pretrain(model_for(data), recipe(average_last=3), data, out=tmp_path, checkpoint_every=2)
    measured = {record["what"]: record["value"] for record in run.history}
    last, averaged = measured["held_out_loss"], measured["averaged_held_out_loss"]
    assert run.held_out_loss == min(last, averaged)
    folders = checkpoints.checkpoint_folders(tmp_path)
    assert len(folders) == 3
    parts = [checkpoints.Checkpoint(path, {}).weights() for path in folders]
    mean = {name: torch.stack([part[name].double() for part in parts]).mean(0).float() for name in parts[0]}
    opened = load(tmp_path)[0].state_dict()
    want = mean if averaged < last else parts[-1]
    for name in opened:
        torch.testing.assert_close(opened[name], want[name])


def test_moments_can_be_brought_along(data, tmp_path):
    """Context extension begins with the optimizer's state of the first phase."""
    pretrain(model_for(data), recipe(), data, out=tmp_path, checkpoint_every=4)
    state = checkpoints.newest_checkpoint(tmp_path).optimizer_state()
    warm, cold = (Run(model_for(data), recipe(), data, None, 0, torch.device("cpu"), torch.float32, "m", 0, Processes(),
                      None) for _ in range(2))  # fmt: skip
    warm.begin(None, False, state)
    kept = warm.optimizer_tensors()
    assert kept.keys() == state.keys() and all(torch.equal(kept[name].float(), state[name].float()) for name in state)
    assert cold.optimizer_tensors() == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(recipe=dict(learning_rate=1e-3)), "recipe.learning_rate was 0.003 and is now 0.001"),
        (dict(config=dict(bias=True)), "model.bias was False and is now True"),
        (dict(seed=7), "seed was 0 and is now 7"),
    ],
)
def test_another_run_in_the_same_folder_is_refused_and_named(data, tmp_path, change, words):
    pretrain(model_for(data), recipe(), data, out=tmp_path)
    kept = (tmp_path / "model.safetensors").read_bytes()

    def again(**more):
        return pretrain(model_for(data, **change.get("config", {})), recipe(**change.get("recipe", {})), data,
                        out=tmp_path, seed=change.get("seed", 0), **more)  # fmt: skip

    with pytest.raises(InputError) as error:
        again()
    assert words in str(error.value) and "--anyway" in str(error.value)
    assert (tmp_path / "model.safetensors").read_bytes() == kept
    if "config" not in change:
        again(anyway=True)
        assert json.loads((tmp_path / "run.json").read_text())["identity"]["seed"] == change.get("seed", 0)


def test_a_second_run_beside_the_first_is_refused(data, tmp_path):
    def look(record):
        with pytest.raises(InputError, match="another run is writing"):
            pretrain(model_for(data), recipe(), data, out=tmp_path)

    pretrain(model_for(data), recipe(tokens=2048, warmup_tokens=0, decay_tokens=0), data, out=tmp_path, on_record=look)


def test_a_world_that_does_not_divide_the_batch_is_refused(data):
    with pytest.raises(InputError, match="3 processes do not divide a step of 4 microbatches"):
        pretrain(model_for(data), recipe(batch_warmup_start=1024, batch_warmup_tokens=0), data, group=Processes(0, 3))
