"""A pretraining run by a recipe, which can be killed at any moment and goes on to the same weights.

    step        microbatches -> loss summed over the step's masked tokens -> gradients -> optimizer
    evaluate    held-out loss at one masking rate for all models
    checkpoint  weights, optimizer, place in the data; whole or not there (checkpoints.py)
    resume      the newest whole checkpoint; every random number follows from the seed and a microbatch's number
    finish      the last checkpoints averaged where the recipe says so; the model saved

With `out=None` nothing is written: so the lessons train.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from ..checkpoint import save
from ..data.prepared import TextData
from ..errors import InputError
from ..model import MaskedLM
from ..runtime import append_jsonl, prepare_output_folder, progress, read_jsonl, write_jsonl, write_text_atomic
from . import checkpoints
from .averaging import average_weights
from .distributed import Processes, gradients_stay, like, whole, wrap
from .hub_stream import HubStream, stream_microbatches
from .nsp import PretrainingModel, sentence_pairs
from .optim import build_optimizer
from .pretrain import TrainingRun, autocast, evaluate_mlm
from .recipe import Recipe
from .schedule import multiplier, step_sizes
from .stream import DROPOUT, Documents, Microbatch, Place, derived_seed, microbatches

LOG, RUN = "log.jsonl", "run.json"
EVALUATION_TOKENS = 16_384  # at once; fixed, because it decides which tokens share a batch and so their masks


def pretrain(
    model: MaskedLM,
    recipe: Recipe,
    data: TextData,
    *,
    out: str | Path | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    label: str = "model",
    eval_every: int | None = None,
    checkpoint_every: int | None = None,
    workers: int = 0,
    group: Processes | None = None,
    optimizer_state: dict | None = None,
    hub=None,
    request: dict | None = None,
    anyway: bool = False,
    on_record: Callable[[dict], None] | None = None,
    bar=None,
) -> TrainingRun:
    """Train `model` in place by `recipe` on `data.train`; the loss on `data.held_out` is measured along the way.

    `out` keeps checkpoints, a log (JSON lines) and in the end the model; where it holds a run already, that run goes
    on, if it is the same one: another recipe, model, text or seed is refused unless `anyway`. `eval_every` and
    `checkpoint_every` are in steps (default: a tenth and a twentieth of the run). `optimizer_state` is a checkpoint's,
    to begin with moments that are warm. `hub` is a `datasets.IterableDataset` to train on in the place of `data.train`,
    read as it is needed and shared among the processes. `request` is kept in the folder, for whoever wants to start it
    again.
    Raises `InputError` where the loss stops being a number, naming the last good checkpoint, and `KeyboardInterrupt`
    after Ctrl-C or SIGTERM, when the state has been saved.
    """
    run = Run(model, recipe, data, out, seed, torch.device(device), dtype, label, workers, group or Processes(),
              on_record, hub)  # fmt: skip
    run.eval_every = eval_every or max(1, len(run.sizes) // 10)
    run.checkpoint_every = checkpoint_every or max(1, len(run.sizes) // 20)
    with run.alone():
        run.begin(request, anyway, optimizer_state)
        with run.stopped_by_signals():
            run.train(bar)
        return run.finish()


@dataclass
class Progress:
    """How far a run has come. It is a checkpoint's `state.json`."""

    step: int = 0
    places: int = 0  # of the recipe's tokens
    tokens: int = 0  # real ones
    seconds: float = 0.0  # of training, without evaluations and checkpoints
    waited: float = 0.0  # of these, for data
    consumed: int = 0  # microbatches of all processes
    place: Place = Place()  # of this process's last microbatch

    @classmethod
    def from_state(cls, state: dict) -> Progress:
        return cls(**{**{k: state[k] for k in cls.__dataclass_fields__}, "place": Place(**state["place"])})


class Run:
    def __init__(self, model, recipe, data, out, seed, device, dtype, label, workers, group, on_record, hub=None):
        self.recipe, self.data, self.seed, self.label = recipe, data, seed, label
        self.device, self.dtype, self.workers, self.group = device, dtype, workers, group
        self.out = None if out is None else prepare_output_folder(out)
        self.on_record, self.hub, self.hub_state = on_record, hub, None
        self.sizes = list(step_sizes(recipe))  # tokens of each step
        self._check_processes()
        if recipe.next_sentence and group.sharded:
            raise InputError("next_sentence cannot be trained with --shard; BERT fits on one device, leave it out")
        if not data.train or not data.held_out:
            raise InputError("there are no sequences to train or to evaluate on; give a larger corpus")

        self.masked_lm = model.to(device).train()
        self.module = PretrainingModel(model).to(device) if recipe.next_sentence else model
        self.documents = Documents(self._documents(), data.tokenizer, recipe, seed)
        self.model = wrap(self.module, device, group)
        self.optimizer = build_optimizer(self.module, recipe)
        self.progress, self.history, self.unwritten = Progress(), [], []
        self.asked_to_stop = self.stop = False  # this process; all of them
        self.eval_every = self.checkpoint_every = 1

    def _check_processes(self) -> None:
        for size in set(self.sizes):
            passes = size // self.recipe.microbatch_tokens
            if passes % self.group.world:
                raise InputError(
                    f"{self.group.world} processes do not divide a step of {passes} microbatches ({size:,} tokens); "
                    "change --nproc-per-node, or the recipe's tokens_per_step and batch_warmup_start"
                )

    def _documents(self) -> list:
        if not self.recipe.next_sentence:
            return self.data.train
        texts = self.data.corpus.train["text"]
        whole_documents = self.data.tokenizer.encode_batch(texts, add_special_tokens=False)
        return sentence_pairs(whole_documents, self.recipe.length, self.data.tokenizer, self.seed)

    # ---- one step ----------------------------------------------------------------------------------------------------

    def train(self, bar=None) -> None:
        p = self.progress
        if p.step == 0:
            self.evaluate()
        stream = self._stream()
        own_bar = bar is None
        bar = (
            progress(total=len(self.sizes), initial=p.step, desc=f"pretrain {self.label}", unit="step")
            if own_bar
            else bar
        )
        for size in self.sizes[p.step :]:
            start = time.perf_counter()
            loss, rate = self.step(stream, size)
            p.seconds += time.perf_counter() - start
            self.record("train_loss", loss, "nats", learning_rate=rate, tokens_per_step=size)
            bar.set_postfix_str(f"loss {loss:.3f}, {p.tokens / p.seconds:,.0f} tokens/s", refresh=False)
            bar.update()
            last = p.step == len(self.sizes)
            if p.step % self.eval_every == 0 or last:
                self.evaluate()
            if p.step % self.checkpoint_every == 0 or last or self.stop:
                self.checkpoint()
            if self.stop and not last:
                raise KeyboardInterrupt
        if own_bar:
            bar.close()

    def _stream(self):
        p, group = self.progress, self.group
        if self.hub is None:
            return microbatches(self.documents, p.place, p.consumed, group.rank, group.world, self.workers)
        source = HubStream(
            self.hub, self.data.tokenizer, self.recipe, self.seed, group.rank, group.world, self.hub_state
        )
        return stream_microbatches(source, self.workers)

    def step(self, stream, size: int) -> tuple[float, float]:
        """One optimizer step over `size` places: (mean loss per masked token, learning rate)."""
        p, recipe, group = self.progress, self.recipe, self.group
        passes = size // recipe.microbatch_tokens
        start = time.perf_counter()
        mine = [next(stream) for _ in range(passes // group.world)]
        p.waited += time.perf_counter() - start
        counts = [sum(m.masked for m in mine), sum(len(m.next_labels) for m in mine if m.next_labels is not None)]
        masked, pairs, tokens = group.sum([*counts, sum(m.tokens for m in mine)], self.device)

        # A mean of the microbatches' means would give a token of a half-empty row more weight than another. Every
        # microbatch's loss is therefore a sum, divided by what is masked in the whole step. DDP and FSDP take the mean
        # over the processes, hence the factor.
        total = torch.zeros((), device=self.device)
        for i, microbatch in enumerate(mine):
            with contextlib.nullcontext() if i == len(mine) - 1 else gradients_stay(self.model, group):
                mlm, following = self.losses(microbatch)
                share = mlm * (microbatch.masked / masked)
                if following is not None:
                    share = share + following * (len(microbatch.next_labels) / pairs)
                (share * group.world).backward()
                total += mlm.detach() * microbatch.masked
        summed, stop = group.sum([total.item(), self.asked_to_stop], self.device)
        loss = summed / masked
        if not math.isfinite(loss):
            raise InputError(
                f"the loss of {self.label} is {loss} at step {p.step + 1}; lower the learning rate. {self._last_good()}"
            )

        rate = recipe.learning_rate * multiplier(recipe, p.places + size)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate
        if recipe.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.stop = bool(stop)  # all processes stop at the same step
        p.step, p.places, p.tokens = p.step + 1, p.places + size, p.tokens + int(tokens)
        p.consumed, p.place = p.consumed + passes, mine[-1].place
        self.hub_state = mine[-1].state
        return loss, rate

    def losses(self, microbatch: Microbatch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(mean loss of the masked tokens, mean loss of BERT's second task or None) of one microbatch."""
        # Dropout's numbers follow from the microbatch's own, so they are the same on any process and after a resume.
        torch.manual_seed(derived_seed(self.seed, microbatch.place.number, DROPOUT))
        with autocast(self.device, self.dtype):
            output = self.model(**microbatch.inputs(self.device))
        return (output.mlm_loss, output.next_loss) if self.recipe.next_sentence else (output.loss, None)

    # ---- what is measured --------------------------------------------------------------------------------------------

    def evaluate(self) -> None:
        model = self.model if self.group.sharded else self.masked_lm
        loss, accuracy = self._evaluate(model)
        self.record("held_out_loss", loss, "nats")
        self.record("masked_accuracy", accuracy, "share")
        if self.progress.seconds:
            self.record("waited_share", self.progress.waited / self.progress.seconds, "share")

    def _evaluate(self, model) -> tuple[float, float]:
        rows = max(1, EVALUATION_TOKENS // self.recipe.length)
        return evaluate_mlm(model, self.data.held_out, self.data.tokenizer, mask_rate=self.recipe.eval_mask_rate,
                            batch_size=rows, device=self.device, dtype=self.dtype)  # fmt: skip

    def record(self, what: str, value: float, unit: str, **more) -> None:
        p = self.progress
        record = dict(what=what, value=value, unit=unit, model=self.label, seed=self.seed, step=p.step,
                      tokens=p.tokens, seconds=p.seconds, **more)  # fmt: skip
        self.history.append(record)
        self.unwritten.append(record)
        if self.on_record and self.group.first:
            self.on_record(record)

    # ---- what survives -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def alone(self):
        """No second run writes into the same folder."""
        if self.out is None or not self.group.first:
            yield
            return
        lock = FileLock(self.out / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(f"another run is writing to {self.out}; wait for it, or choose another folder") from None
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def stopped_by_signals(self):
        """Ctrl-C and SIGTERM end the run after the step at hand, with a checkpoint. A second Ctrl-C ends it at once."""
        if self.out is None or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def ask(number, frame):
            self.asked_to_stop = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        for number in before:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def begin(self, request: dict | None, anyway: bool, optimizer_state: dict | None) -> None:
        """Go on where the folder holds a run, else start: with an optimizer's state where one is given."""
        found = None
        if self.out is not None:
            if self.group.first:
                self._same_run(request, anyway)
                newest = checkpoints.newest_checkpoint(self.out)
                found = newest and str(newest.path)
            self.group.wait()
            found = self.group.agree(found)
        if found is None:
            if self.out is not None:
                self._cut_log()
                if self.group.first and checkpoints.checkpoint_folders(self.out):
                    print("no checkpoint is whole: the run begins anew", flush=True)
            if optimizer_state:
                self.load_optimizer(optimizer_state)
            return
        checkpoint = checkpoints.Checkpoint(Path(found), json.loads((Path(found) / "state.json").read_text()))
        self.load_weights(checkpoint.weights())
        self.load_optimizer(checkpoint.optimizer_state())
        self.progress = Progress.from_state(checkpoint.state)
        if self.hub is not None:
            if checkpoint.state["world"] != self.group.world:
                had, have = checkpoint.state["world"], self.group.world
                raise InputError(
                    f"each process reads its own share of a stream: go on with {had} processes, not {have}"
                )
            self.hub_state = checkpoint.state["hub"][self.group.rank]
        self._cut_log()
        if self.group.first:
            done = "it was at its end" if checkpoint.step == len(self.sizes) else f"of {len(self.sizes):,}"
            print(f"{self.out} holds this run: going on after step {checkpoint.step:,}, {done}", flush=True)

    def identity(self) -> dict:
        """What must be the same for a run to go on."""
        corpus = self.data.corpus
        return dict(recipe=self.recipe.to_dict(), model=self.masked_lm.config.identity(), seed=self.seed,
                    dtype=str(self.dtype).removeprefix("torch."), corpus=corpus.fingerprint,
                    tokenizer=self.data.tokenizer.fingerprint, sequences=len(self.data.train))  # fmt: skip

    def _same_run(self, request: dict | None, anyway: bool) -> None:
        path, mine = self.out / RUN, json.loads(json.dumps(self.identity()))
        if path.exists():
            theirs = json.loads(path.read_text())["identity"]
            differences = list(_differences(theirs, mine))
            if differences and not anyway:
                raise InputError(
                    f"{self.out} holds another run: {'; '.join(differences[:4])}; choose another folder, or go on "
                    "with the new settings by --anyway"
                )
            if not differences:
                return
        write_text_atomic(path, json.dumps(dict(identity=mine, request=request or {}), indent=1))

    def _cut_log(self) -> None:
        """The log up to the checkpoint; what came after it happens again."""
        path = self.out / LOG
        kept = read_jsonl(path) if path.exists() and self.progress.step else []
        self.history = [r for r in kept if r["step"] <= self.progress.step and not r["what"].startswith("averaged")]
        if self.group.first:
            write_jsonl(path, self.history)

    def checkpoint(self) -> None:
        if self.out is None:
            return
        weights, optimizer_state = self.weights(), self.optimizer_tensors()
        hub_states = self.group.gather(self.hub_state)
        bad = next((name for name, tensor in weights.items() if not torch.isfinite(tensor).all()), None)
        if bad:
            raise InputError(
                f"{bad} is no longer finite at step {self.progress.step}; lower the learning rate. {self._last_good()}"
            )
        if self.group.first:
            state = {
                **asdict(self.progress),
                "total_steps": len(self.sizes),
                "world": self.group.world,
                "hub": hub_states,
            }
            with self.writing():
                append_jsonl(self.out / LOG, self.unwritten)
                checkpoints.save_checkpoint(self.out, weights, optimizer_state, state)
            kept = self.regular_steps()[-max(2, self.recipe.average_last) :]
            checkpoints.keep_only(self.out, {*kept, self.progress.step})
        self.unwritten = []
        self.group.wait()

    @contextlib.contextmanager
    def writing(self):
        """Where something cannot be written, the state to go on from is named."""
        try:
            yield
        except (InputError, OSError, SafetensorError) as error:
            reason = error if isinstance(error, InputError) else f"cannot write to {self.out}: {error}"
            raise InputError(f"{reason}. {self._last_good()}; free some space, then the same command goes on") from None

    def regular_steps(self) -> list[int]:
        """The steps up to now whose checkpoints belong to the plan, not to a Ctrl-C."""
        last = self.progress.step
        steps = list(range(self.checkpoint_every, last + 1, self.checkpoint_every))
        return steps if last in steps or last < len(self.sizes) else [*steps, last]

    def _last_good(self) -> str:
        newest = None if self.out is None else checkpoints.newest_checkpoint(self.out, say=lambda line: None)
        return "No checkpoint was written yet" if newest is None else f"The last good checkpoint is {newest.path}"

    # ---- weights and optimizer state, whole --------------------------------------------------------------------------

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: whole(tensor) for name, tensor in self.module.state_dict().items()}

    def load_weights(self, weights: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in self.module.state_dict().items():
                tensor.copy_(like(weights[name], tensor))

    def optimizer_tensors(self) -> dict[str, torch.Tensor]:
        """{"parameter|what": tensor} for each number the optimizer keeps."""
        state = self.optimizer.state
        return {
            f"{name}|{what}": whole(torch.as_tensor(value))
            for name, parameter in self.module.named_parameters()
            for what, value in state[parameter].items()
        }

    def load_optimizer(self, tensors: dict[str, torch.Tensor]) -> None:
        """Moments by parameter name; those of a parameter that the checkpoint does not know begin at zero."""
        names = {parameter: name for name, parameter in self.module.named_parameters()}
        saved: dict[str, dict] = {}
        for key, tensor in tensors.items():
            name, _, what = key.rpartition("|")
            saved.setdefault(name, {})[what] = tensor
        order = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        state = {
            i: {
                what: tensor if what == "step" else like(tensor, parameter)
                for what, tensor in saved[names[parameter]].items()
            }
            for i, parameter in enumerate(order)
            if names[parameter] in saved
        }
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})

    # ---- the end -----------------------------------------------------------------------------------------------------

    def finish(self) -> TrainingRun:
        """Average where the recipe says so and it helps, save the model, sum up."""
        if not any(r["what"] == "held_out_loss" for r in self.history):  # the log is gone: measure again
            self.evaluate()
        measured = {r["what"]: r["value"] for r in self.history}
        loss, accuracy = measured["held_out_loss"], measured["masked_accuracy"]
        if self.out is not None:
            weights = {name.removeprefix("masked_lm."): tensor for name, tensor in self.weights().items()}
            if self.group.first:
                final = MaskedLM(self.masked_lm.config).to(self.device)
                final.load_state_dict({name: weights[name] for name in final.state_dict()})
                loss, accuracy = self._average(final, loss, accuracy)
                with self.writing():
                    append_jsonl(self.out / LOG, self.unwritten)
                    save(final, self.data.tokenizer, self.out)
                if not self.group.sharded:
                    self.masked_lm.load_state_dict(final.state_dict())
            self.group.wait()
        p = self.progress
        self.masked_lm.eval()
        return TrainingRun(loss, accuracy, p.tokens, p.seconds, self.history)

    def _average(self, final: MaskedLM, loss: float, accuracy: float) -> tuple[float, float]:
        """Put the mean of the last checkpoints into `final` where its held-out loss is lower: (loss, accuracy)."""
        steps = self.regular_steps()[-self.recipe.average_last :]
        folders = [path for path in checkpoints.checkpoint_folders(self.out) if int(path.name[5:]) in steps]
        folders = [path for path in folders if checkpoints.whats_wrong(path) is None]
        if self.recipe.average_last == 1 or len(folders) < 2:
            return loss, accuracy
        averaged = average_weights([path / "model.safetensors" for path in folders])
        candidate = MaskedLM(final.config).to(self.device)
        candidate.load_state_dict(
            {name: averaged.get(name, averaged.get("masked_lm." + name)) for name in final.state_dict()}
        )
        averaged_loss, averaged_accuracy = self._evaluate(candidate)
        self.record("averaged_held_out_loss", averaged_loss, "nats", checkpoints=len(folders))
        if averaged_loss >= loss:
            return loss, accuracy
        final.load_state_dict(candidate.state_dict())
        return averaged_loss, averaged_accuracy


def _differences(old: dict, new: dict, prefix: str = ""):
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{prefix}{name}.")
        elif before != after:
            yield f"{prefix}{name} was {before!r} and is now {after!r}"
