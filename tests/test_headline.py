"""The headline: what is drawn and said follows from the runs' curves, whoever wins."""

import pytest

from modernbert_edu import InputError
from modernbert_edu.classroom.scale import get_scale
from modernbert_edu.measure import headline
from modernbert_edu.training.recipe import Recipe


def curve(model, run, values, chosen=True, seconds=1.0):
    return [dict(what="held_out_loss", value=v, unit="nats", model=model, seed=0, step=i, tokens=100 * i,
                 seconds=seconds * i, run=run, chosen=chosen, learning_rate=1e-3, unigram_entropy=6.0)
            for i, v in enumerate(values)]  # fmt: skip


def records(modern=([7, 5, 4, 3], [7, 6, 4, 2])):
    bert = curve("BERT", "b0", [7, 6.5, 6, 5.5]) + curve("BERT", "b1", [7, 6, 5, 4.5])
    bert += curve("BERT", "b2", [7, 7, 7, 7], chosen=False)
    return bert + [r for i, values in enumerate(modern) for r in curve("ModernBERT", f"m{i}", values, seconds=2.0)]


def test_the_numbers_follow_from_the_curves():
    s = headline.summary(records())
    assert s["loss"] == 4.5 and s["bert_losses"] == [5.5, 4.5] and s["modernbert_losses"] == [3, 2]
    assert s["tokens"]["bert"] == [300, 300]
    assert s["tokens"]["modernbert"] == pytest.approx([150, 175])  # half-way from 5 to 4; from 6 to 4 three quarters
    assert s["tokens"]["ratio"] == pytest.approx(300 / 162.5)
    assert s["seconds"]["ratio"] == pytest.approx(3 / 3.25)
    assert "needs 162 tokens where BERT spent 300, 1.8 times as many" in headline.describe(records())


def test_a_run_that_never_comes_so_low_is_said_and_drawn():
    lost = records(modern=([7, 5, 4, 3], [7, 6.5, 6.4, 6.3]))
    s = headline.summary(lost)
    assert s["tokens"]["modernbert"][1] is None and s["tokens"]["ratio"] is None
    assert "1 of 2 ModernBERT runs never do" in headline.describe(lost)
    titles = [ax.get_title() for ax in headline.plot_headline(lost).axes]
    assert titles == ["not every seed comes to BERT's end"] * 2
    with pytest.raises(InputError, match="needs finished runs of both"):
        headline.summary([r for r in lost if r["model"] == "BERT"])


def test_the_figure_holds_every_chosen_run_and_no_other():
    figure = headline.plot_headline(records())
    for ax in figure.axes:
        drawn = [line.get_ydata().tolist() for line in ax.lines if len(line.get_xdata()) == 4]
        assert sorted(map(tuple, drawn)) == sorted([(7, 6.5, 6, 5.5), (7, 6, 5, 4.5), (7, 5, 4, 3), (7, 6, 4, 2)])
    tokens, seconds = (ax.get_title() for ax in figure.axes)
    assert tokens == "BERT takes 1.8 times the tokens" and seconds == "ModernBERT takes 1.1 times the seconds"


@pytest.mark.parametrize("scale", ["quick", "laptop", "gpu"])
def test_both_sides_have_their_own_recipe_and_equal_parameters(scale):
    sizes = get_scale(scale).headline
    (bert, bert_recipe), (modern, modern_recipe) = (headline.setup(n, 1e-3, sizes, 1024) for n in headline.MODELS)
    assert abs(bert.num_parameters() - modern.num_parameters()) <= 0.01 * bert.num_parameters()
    assert bert_recipe.next_sentence and not bert_recipe.packing and bert_recipe.mask_rate == 0.15
    assert modern_recipe.packing and modern_recipe.mask_rate == 0.3 and modern_recipe.optimizer == "stable_adamw"
    assert bert_recipe.tokens == modern_recipe.tokens and bert_recipe.eval_mask_rate == modern_recipe.eval_mask_rate
    assert isinstance(bert_recipe, Recipe) and modern.global_rope_theta == 10_000


def test_runs_are_kept_and_not_run_again(tmp_path, monkeypatch):
    import torch

    from modernbert_edu.classroom.scale.headline import HeadlineScale
    from modernbert_edu.data import prepare

    folder = tmp_path / "text"
    folder.mkdir()
    for n in range(12):
        (folder / f"{n}.txt").write_text(" ".join(str((n * i) % 17) for i in range(150)))
    sizes = HeadlineScale(vocab_size=320, sequence_length=64, held_out_sequences=4, steps=2, rates=(1e-3, 2e-3),
                          seeds=(0, 1), evaluations=2, batch_size=2, microbatch_size=2)  # fmt: skip
    data = prepare(sizes, str(folder))
    first = headline.run_headline(data, sizes, torch.device("cpu"), tmp_path / "out")
    monkeypatch.setattr(headline, "pretrain", lambda *a, **k: pytest.fail("a finished run was run again"))
    again = headline.run_headline(data, sizes, torch.device("cpu"), tmp_path / "out")
    assert again == first and all(r["torch"] and r["device"] and r["date"] for r in first)
    (tmp_path / "out" / "headline.jsonl").rename(tmp_path / "kept.jsonl")  # half of a run is none
    rows = (tmp_path / "kept.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "out" / "headline.jsonl").write_text("".join(rows[:-1]))
    with pytest.raises(pytest.fail.Exception, match="run again"):
        headline.run_headline(data, sizes, torch.device("cpu"), tmp_path / "out")
    (tmp_path / "kept.jsonl").rename(tmp_path / "out" / "headline.jsonl")
    with pytest.raises(pytest.fail.Exception, match="run again"):
        headline.run_headline(data, sizes, torch.device("cpu"), tmp_path / "out", anew=True)
    here = torch.__version__
    monkeypatch.setattr(torch, "__version__", "9.9.0")
    with pytest.raises(pytest.fail.Exception, match="run again"):
        headline.run_headline(data, sizes, torch.device("cpu"), tmp_path / "out")
    for model in headline.MODELS:
        assert len(headline.chosen_runs(first, model)) == 2
        assert len({r["run"] for r in first if r["model"] == model}) == 3
    files = headline.keep_and_draw(first, "quick", torch.device("cpu"), tmp_path / "figures")
    names = [path.name for path in files]
    assert names == [
        "headline-bert-quick.jsonl",
        "headline-modernbert-quick.jsonl",
        "headline.png",
    ]
    kept = headline.kept(tmp_path / "figures")
    assert headline.summary(kept) == headline.summary(first)
    assert {r["torch"] for r in kept} == {here}  # what is kept does not become what the newer torch measured
    assert headline.kept(tmp_path / "nothing") == []
    one = files[0].read_text()
    files[0].write_text(one.replace(f'"torch": "{here}"', '"torch": "9.9.0"'))
    assert headline.kept(tmp_path / "figures") == []  # BERT of one torch is not set against ModernBERT of another
