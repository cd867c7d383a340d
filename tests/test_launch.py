"""From words to a run: what `pretrain`, `extend` and `grow` make of their arguments, and what they refuse."""

import json
from pathlib import Path

import pytest
import torch

from modernbert_edu import InputError, load
from modernbert_edu.__main__ import main
from modernbert_edu.classroom.scale import get_scale
from modernbert_edu.training import checkpoints, launch
from modernbert_edu.training.recipe import Recipe
from modernbert_edu.training.schedule import step_sizes

SMALL = ["--set", "length=64", "--set", "tokens_per_step=256", "--set", "microbatch_tokens=256", "--set", "tokens=2048"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    for n in range(40):
        (folder / f"{n:02}.txt").write_text(" ".join(f"w{(n * i) % 23}" for i in range(60 + 9 * n)))
    return folder


@pytest.fixture(scope="module")
def finished(text, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    assert main(["pretrain", "--recipe", "modernbert", "--corpus", str(text), "--scale", "quick", "--out", str(out),
                 "--checkpoint-every", "3", *SMALL]) == 0  # fmt: skip
    return out


def test_a_run_leaves_a_model_a_log_and_its_request(finished, capsys):
    model, tokenizer = load(finished)
    assert model.config.vocab_size == tokenizer.vocab_size == 1024 and model.config.max_position_embeddings == 64
    assert model.config.global_rope_theta == 10_000  # phase one
    request = launch.read_request(finished)
    recipe = Recipe.from_dict(request.recipe)
    assert (recipe.tokens, recipe.length, recipe.tokens_per_step) == (2048, 64, 256)
    log = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in log if r["what"] == "train_loss"] == list(range(1, 9))


def test_the_same_command_and_resume_both_go_on(text, tmp_path, capsys):
    command = ["pretrain", "--corpus", str(text), "--scale", "quick", "--out", str(tmp_path), *SMALL]
    assert main(command) == 0
    whole = (tmp_path / "model.safetensors").read_bytes()
    newest = checkpoints.newest_checkpoint(tmp_path)
    checkpoints.remove(newest.path)  # as if it had been killed before
    (tmp_path / "model.safetensors").unlink()
    capsys.readouterr()
    assert main(["pretrain", "--resume", str(tmp_path)]) == 0
    assert f"going on after step {newest.step - 1}, of 8" in capsys.readouterr().out
    assert (tmp_path / "model.safetensors").read_bytes() == whole
    assert main(command) == 0
    assert "it was at its end" in capsys.readouterr().out


def test_extension_keeps_weights_and_moments_and_turns_theta(finished, text, tmp_path, capsys):
    out = tmp_path / "long"
    assert main(["extend", str(finished), "--length", "256", "--corpus", str(text), "--scale", "quick",
                 "--out", str(out), "--set", "tokens=1024"]) == 0  # fmt: skip
    request = launch.read_request(out)
    recipe = Recipe.from_dict(request.recipe)
    assert recipe.tokens_per_step == 256 and recipe.length == 256  # as many tokens a step as before
    assert recipe.learning_rate == pytest.approx(get_scale("quick").pretrain.modernbert_rate * 3 / 8)
    assert recipe.warmup_tokens == 0 and recipe.decay_tokens > 0
    long, _ = load(out)
    short, _ = load(finished)
    changed = long.config.differences(short.config)
    assert set(changed) == {"global_rope_theta", "max_position_embeddings"}
    assert (long.config.global_rope_theta, long.config.max_position_embeddings) == (160_000, 256)
    model, state = launch._model(request)
    assert state.keys() == checkpoints.newest_checkpoint(finished).optimizer_state().keys()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), short.parameters(), strict=True))


def test_a_model_without_a_run_is_extended_with_cold_moments(finished, text, tmp_path, capsys):
    from modernbert_edu import save

    save(*load(finished), tmp_path / "plain")
    assert main(["extend", str(tmp_path / "plain"), "--length", "128", "--corpus", str(text), "--scale", "quick",
                 "--out", str(tmp_path / "long"), "--set", "tokens=2048"]) == 0  # fmt: skip
    assert "has no optimizer state" in capsys.readouterr().out


def test_growing_from_the_command_line(finished, tmp_path, capsys):
    out = tmp_path / "large"
    assert (
        main(["grow", str(finished), "--to", "modernbert-mini", "--out", str(out), "--json", str(tmp_path / "g")]) == 0
    )
    grown, tokenizer = load(out)
    assert (grown.config.hidden_size, grown.config.num_hidden_layers) == (256, 7)
    assert grown.config.vocab_size == tokenizer.vocab_size == 1024
    assert "grown from" in capsys.readouterr().out
    assert json.loads((tmp_path / "g").read_text())["to"] == "modernbert-mini"


def test_the_recipe_explains_itself(capsys, tmp_path):
    assert main(["pretrain", "--explain", "--recipe", "bert-2018", "--json", str(tmp_path / "r")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(Recipe.preset("bert-2018").to_dict())
    assert any(line.startswith("mask_rate") and "0.15" in line for line in lines)
    assert len((tmp_path / "r").read_text().splitlines()) == len(lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pretrain"], "say where to keep the run: --out DIR"),
        (["pretrain", "--recipe", "roberta", "--out", "o"], "there is no recipe 'roberta'"),
        (["pretrain", "--out", "o", "--set", "learning_rte=1"], "did you mean 'learning_rate'"),
        (["pretrain", "--out", "o", "--set", "learning_rate"], "lacks a value"),
        (["pretrain", "--out", "o", "--set", "learning_rate=0"], "learning_rate must be above 0"),
        (["pretrain", "--out", "o", "--set", "length=3.5"], "length must be a whole number"),
        (["pretrain", "--out", "o", "--set", "length=64", "--set", "microbatch_tokens=32"], "below one document"),
        (["pretrain", "--out", "o", "--model", "modernbert-huge"], "no preset is called"),
        (["pretrain", "--out", "o", "--recipe", "bert-2018", "--set", "length=4096"], "512 learned positions"),
        (["pretrain", "--out", "o", "--stream"], "--stream reads a Hub dataset"),
        (["pretrain", "--out", "o", "--shard", "--corpus", "TEXT"], "start it with torchrun"),
        (["pretrain", "--out", "o", "--workers", "-1"], "--workers must be at least 0"),
        (["pretrain", "--resume", "nowhere"], "nowhere holds no run to resume"),
        (["pretrain", "--resume", "RUN", "--recipe", "modernbert"], "give it without other settings"),
        (["extend", "RUN", "--length", "32", "--out", "o"], "meant for 64 tokens already"),
        (["extend", "nowhere", "--length", "512", "--out", "o"], "nowhere"),
        (["grow", "RUN", "--to", "bert-small", "--out", "o"], "grow to a model of the same kind"),
        (["grow", "RUN", "--to", "modernbert-tiny", "--out", "o"], "larger"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, words, finished, text, capsys, in_tmp_cwd):
    arguments = [{"RUN": str(finished), "TEXT": str(text)}.get(word, word) for word in arguments]
    assert main([*arguments, *(["--scale", "quick"] if arguments[0] != "grow" else [])]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and "Traceback" not in error


def test_changes_are_read_as_values():
    words = ["learning_rate=1e-3", "tokens=1e6", "packing=false", "clip_norm=none", "betas=(0.9,0.95)", "schedule=wsd"]
    assert launch.parse_changes(words) == dict(
        learning_rate=1e-3, tokens=1_000_000, packing=False, clip_norm=None, betas=(0.9, 0.95), schedule="wsd"
    )
    with pytest.raises(InputError, match="lacks a value"):
        launch.parse_changes(["tokens"])


def test_masks_are_filled_in_words(finished):
    model, tokenizer = load(finished)
    lines = launch.filled_masks(model, tokenizer, [tokenizer.encode("w1 w2 w3 w4 w5 w6 w7 w8")])
    assert lines and all("[MASK]" in line and "was" in line and "%" in line for line in lines)


@pytest.mark.parametrize(
    ("changes", "world"),
    [(dict(batch_warmup_start=98_304), 8), (dict(tokens_per_step=393_216, batch_warmup_start=393_216), 32)],
)
def test_the_readmes_commands_for_many_gpus_divide_every_step(changes, world):
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text()
    assert all(f"--set {name}={value}" in readme for name, value in changes.items())
    request = launch.pretrain_request(get_scale("gpu").pretrain, "modernbert", None, changes)
    recipe = Recipe.from_dict(request.recipe)
    assert all(size // recipe.microbatch_tokens % world == 0 for size in set(step_sizes(recipe)))
