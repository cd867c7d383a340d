"""The command line: `python -m modernbert_edu VERB`, installed as `modernbert-edu` too.

Exit status 0 is success, 2 is bad input (one line says what and how to mend it, no traceback), 1 anything else.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .errors import InputError, Paused

STOPPED = 130  # the exit status of a command that Ctrl-C ended


class Parser(argparse.ArgumentParser):
    """argparse, with its errors as one line like all others; exit status 2 it has already."""

    def error(self, message: str):
        raise InputError(f"{message}; `{self.prog} --help` shows what there is")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="modernbert-edu", description="ModernBERT built from vanilla BERT, one idea at a time.")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    common = _common_options()
    corpus = argparse.ArgumentParser(add_help=False)
    corpus.add_argument(
        "--corpus", default="python", metavar="C",
        help="python (this interpreter's own library and docs, the default), a folder or file of "
        "txt/md/py/jsonl/parquet, or hub:NAME[:CONFIG]",
    )  # fmt: skip

    verb = verbs.add_parser("doctor", parents=[common], help="versions, device, attention backend and what is missing")
    verb.set_defaults(run=doctor)

    verb = verbs.add_parser(
        "tour", parents=[common, corpus],
        help="train BERT and ModernBERT side by side on the same text, then measure both",
    )  # fmt: skip
    verb.add_argument("--out", type=Path, default=Path("build/tour"), help="folder for both models (build/tour)")
    verb.add_argument("--figures", type=Path, default=None,
                      help="folder for figures and measurements (figures; at quick scale OUT/figures)")  # fmt: skip
    verb.add_argument("--sweep", action="store_true", help="only try learning rates for both, at half the steps")
    verb.set_defaults(run=tour)

    verb = verbs.add_parser("tokenizer", parents=[common, corpus], help="train a tokenizer on a corpus")
    verb.add_argument("--vocab-size", type=int, default=50_368, help="ids in all, a multiple of 64 (50368)")
    verb.add_argument("--kind", choices=("bpe", "wordpiece"), default="bpe", help="byte-level BPE or BERT's WordPiece")
    verb.add_argument("--out", type=Path, required=True, help="folder for the tokenizer's files")
    verb.set_defaults(run=tokenizer)

    run = argparse.ArgumentParser(add_help=False)
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        dest="changes",
        help="replace a field of the recipe; `pretrain --explain` shows them all, with reasons",
    )
    run.add_argument("--checkpoint-every", type=int, metavar="STEPS", help="(a twentieth of the run)")
    run.add_argument("--workers", type=int, metavar="N", help="processes that pack and mask ahead (the scale's)")
    run.add_argument(
        "--stream", action="store_true", help="read a hub: corpus as it is trained on, not its first 20,000"
    )
    run.add_argument("--compile", action="store_true", help="one compiled graph; the first step takes a minute longer")
    run.add_argument("--shard", action="store_true", help="under torchrun: cut the model up (FSDP2) instead of copies")
    run.add_argument("--anyway", action="store_true", help="go on although the settings differ from the folder's run")

    verb = verbs.add_parser(
        "pretrain",
        parents=[common, corpus, run],
        help="train by a recipe; the same command goes on where it was stopped",
    )
    verb.add_argument("--recipe", help="modernbert or bert-2018, shrunk to the scale (modernbert)")
    verb.add_argument("--model", metavar="PRESET", help="what to train (the recipe's own, at the scale's size)")
    verb.add_argument("--explain", action="store_true", help="only show the recipe, field by field, with reasons")
    verb.add_argument("--resume", type=Path, metavar="DIR", help="go on with the run in DIR, as it was asked for")
    verb.add_argument("--out", type=Path, help="folder for checkpoints, log and model")
    verb.set_defaults(run=pretrain)

    verb = verbs.add_parser(
        "extend",
        parents=[common, corpus, run],
        help="train on with longer texts and another theta: phases two and three",
    )
    verb.add_argument("model", metavar="MODEL", help="a run's folder, whose optimizer state is kept, or any model")
    verb.add_argument("--length", type=int, required=True, metavar="N", help="the new longest text in tokens")
    verb.add_argument("--theta", type=float, help="of the global layers (160000)")
    verb.add_argument("--out", type=Path, required=True, help="folder for checkpoints, log and model")
    verb.set_defaults(run=extend)

    verb = verbs.add_parser("grow", parents=[common], help="a larger model that begins with a smaller one's weights")
    verb.add_argument("model", metavar="MODEL", help="the smaller model, a folder or a Hub id")
    verb.add_argument("--to", required=True, metavar="PRESET", help="the preset whose sizes to grow to")
    verb.add_argument(
        "--method", choices=("center", "edge"), default="center", help="where the old weights lie (center)"
    )
    verb.add_argument(
        "--match-attention", action="store_true", help="layers inherit from their own attention type only"
    )
    verb.add_argument("--tile-final-norm", action="store_true", help="the published code leaves it at ones")
    verb.add_argument("--out", type=Path, required=True, help="folder for the grown model")
    verb.set_defaults(run=grow)

    verb = verbs.add_parser("finetune", parents=[common], help="train a pretrained model on labelled text")
    verb.add_argument(
        "model",
        metavar="MODEL",
        help="a folder or a Hub id, with or without its masked-LM head; of a classifier all but the last layer is kept",
    )
    verb.add_argument(
        "--task",
        required=True,
        metavar="T",
        help="a GLUE task (sst2, mrpc, stsb, ...), or text, pair, number or words for a table of your own",
    )
    verb.add_argument(
        "--data", type=Path, metavar="FILE", help="tsv, csv, jsonl or parquet; without it GLUE from the Hub"
    )
    verb.add_argument("--held-out", type=Path, metavar="FILE", help="to judge by (default: a tenth of --data)")
    verb.add_argument("--columns", nargs="+", metavar="C", help="of the text, or of a pair's two texts (the task's)")
    verb.add_argument("--label", metavar="C", help="column of the answers (label)")
    verb.add_argument("--metrics", nargs="+", metavar="M", help="accuracy, f1, macro_f1, matthews, pearson, spearman")
    verb.add_argument("--rate", type=float, help="learning rate (the task's)")
    verb.add_argument("--weight-decay", type=float, help="(the task's)")
    verb.add_argument("--epochs", type=int, help="(the task's)")
    verb.add_argument("--batch-size", type=int, help="(32)")
    verb.add_argument("--max-length", type=int, help="tokens; longer texts are cut and counted (what the model takes)")
    verb.add_argument(
        "--long",
        choices=("cut", "windows"),
        help="longer texts: cut, or in overlapping windows whose answers are averaged (cut)",
    )
    verb.add_argument("--stride", type=float, help="from window to window, as a share of one (0.5)")
    verb.add_argument("--pooling", choices=("cls", "mean"), help="what stands for a text (cls)")
    verb.add_argument("--patience", type=int, metavar="N", help="stop after N evaluations without a better one")
    verb.add_argument("--sweep", nargs="+", type=float, metavar="RATE", help="try these learning rates, keep the best")
    verb.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="so many runs; the best is kept, all are shown (1)"
    )
    verb.add_argument("--out", type=Path, required=True, help="folder for the classifier and results.json")
    verb.set_defaults(run=finetune)

    _add_search(verbs, common)

    verb = verbs.add_parser(
        "ablate", parents=[common, corpus], help="train variants of BERT or ModernBERT that differ in a switch or two"
    )
    verb.add_argument("--switch", action="append", metavar="NAME[=VALUE]",
                      help="a change to try, several joined by commas; give it again for another variant; without a "
                      "value the other end's is taken")  # fmt: skip
    verb.add_argument("--ladder", action="store_true", help="BERT -> ModernBERT, one lesson's switches after the other")
    verb.add_argument("--list", action="store_true", help="what can be varied")
    verb.add_argument("--start", choices=("bert", "modernbert"), default="bert", help="the end to change (bert)")
    verb.add_argument("--unmatched", action="store_true", help="keep the MLP's width instead of equal parameters")
    verb.add_argument("--seeds", type=int, metavar="N", help="number of seeds (default: the scale's)")
    verb.add_argument("--steps", type=int, metavar="N", help="training steps of each run (default: the scale's)")
    verb.add_argument("--yes", action="store_true", help="also where it will take more than an hour")
    verb.add_argument("--minutes", type=float, help="stop after so many, between two runs, to be gone on with "
                      "(default: to the end)")  # fmt: skip
    verb.add_argument("--out", type=Path, default=Path("build/ablation"),
                      help="folder that keeps every finished run (build/ablation)")  # fmt: skip
    verb.add_argument("--anew", action="store_true", help="train also what is finished in OUT")
    verb.add_argument("--figures", type=Path, default=None,
                      help="folder for figure and measurements (figures for the whole ladder; else OUT)")  # fmt: skip
    verb.set_defaults(run=ablate)

    verb = verbs.add_parser(
        "headline", parents=[common, corpus],
        help="what ModernBERT needs to come to BERT's final loss, each by its own recipe",
    )  # fmt: skip
    verb.add_argument("--only", choices=("BERT", "ModernBERT"), help="one of the two; the figure needs both")
    verb.add_argument("--out", type=Path, default=Path("build/headline"),
                      help="folder that keeps every finished run (build/headline)")  # fmt: skip
    verb.add_argument("--anew", action="store_true", help="train also what is finished in OUT")
    verb.add_argument("--figures", type=Path, default=None,
                      help="folder for figure and measurements (figures; at quick scale OUT)")  # fmt: skip
    verb.set_defaults(run=headline)

    verb = verbs.add_parser("bench", parents=[common], help="speed and memory side by side with transformers' models")
    verb.add_argument("--size", default="base", help="base (default), large, or tiny for a laptop")
    verb.add_argument("--backend", default=None, help="attention backend of our rows (default: each that runs here)")
    verb.add_argument("--only", nargs="+", choices=("inference", "training"), help="these tasks only")
    verb.add_argument("--lengths", nargs="+", type=int, metavar="N",
                      help="sequence lengths (512 8192; on CUDA also 1024)")  # fmt: skip
    verb.add_argument("--minutes", type=float, default=9.0, help="what does not fit into this time is reduced (9)")
    verb.add_argument("--no-compile", action="store_true", help="leave out the rows that torch.compile makes")
    verb.add_argument("--out", type=Path, default=Path("build/bench"),
                      help="folder for the results of --size tiny and of partial runs (build/bench)")  # fmt: skip
    verb.add_argument("--figures", type=Path, default=None,
                      help="folder for the picture and the measurements (figures; else OUT)")  # fmt: skip
    verb.set_defaults(run=bench)

    verb = verbs.add_parser("record", parents=[common], help="measure on this machine what is not recorded yet")
    verb.add_argument(
        "--part",
        nargs="+",
        metavar="P",
        help="these parts only: tour, bench, headline-bert, headline-modernbert, "
        "retrieval-bert-0 ... retrieval-modernbert-1, ladder, lesson-00 ... lesson-13, rates, claims",
    )
    verb.add_argument("--again", action="store_true", help="measure anew what is recorded already")
    verb.add_argument("--figures", type=Path, help="where the records are kept (figures)")
    verb.set_defaults(run=record)

    verb = verbs.add_parser("claims", parents=[common], help="every published claim beside what is recorded here")
    verb.add_argument("--figures", type=Path, default=Path("figures"),
                      help="folder with the records, where claims.md and claims.json go (figures)")  # fmt: skip
    verb.add_argument("--measure", action="store_true", help="first measure what no other part of `record` has: memory")
    verb.set_defaults(run=claims)

    verb = verbs.add_parser("notebooks", parents=[common], help="run the lessons in order and draw the figures")
    verb.add_argument("--folder", type=Path, default=Path("notebooks"), help="where the lessons are (notebooks)")
    verb.add_argument("--out", type=Path, default=Path("build/course"), help="where executed copies go (build/course)")
    verb.add_argument("--figures", type=Path, help="where figures are redrawn (figures; of another folder OUT/figures)")
    verb.add_argument("--only", nargs="+", metavar="LESSON", help="these lessons only, by the beginning of their names")
    verb.add_argument("--in-place", action="store_true", help="also store the outputs in the lessons themselves")
    verb.set_defaults(run=notebooks)
    return parser


def _common_options(default=None) -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--seed", type=int, default=default, help="seed of all random numbers (default: the scale's, 0)"
    )
    common.add_argument("--device", default=default, help="auto (default), cpu, cuda, cuda:1 or mps")
    common.add_argument("--scale", default=default, help="quick, laptop or gpu (default: gpu with CUDA, else laptop)")
    common.add_argument(
        "--json", type=Path, default=default, metavar="FILE", help="also write the results as JSON lines"
    )
    return common


def _add_search(verbs, common: argparse.ArgumentParser) -> None:
    search = verbs.add_parser("search", parents=[common], help="index a folder of text, and find answers in it")
    actions = search.add_subparsers(dest="action", metavar="ACTION", required=True)
    # Common options may stand before or after the action; where one is not given, it must not undo the other place.
    common = _common_options(argparse.SUPPRESS)
    model = "a retriever's folder or Hub id"

    verb = actions.add_parser("build", parents=[common], help="index a folder, or bring its index up to date")
    verb.add_argument("folder", type=Path, metavar="FOLDER", help="text files of any depth, or one file")
    verb.add_argument("--out", type=Path, required=True, metavar="INDEX", help="folder of the index")
    verb.add_argument("--model", help=f"{model} (the index's; for a new one a small model trained here once)")
    verb.add_argument("--max-tokens", type=int, metavar="N", help="of a passage, with [CLS], [SEP] and prompt (256)")
    verb.add_argument("--overlap", type=int, metavar="LINES", help="that neighbours share where a text is cut (0)")
    verb.add_argument("--anew", action="store_true", help="build all of it again, with another model or other settings")
    how = verb.add_mutually_exclusive_group()
    how.add_argument("--approximate", action="store_true", help="also write a graph (from 500,000 passages on)")
    how.add_argument("--exact", action="store_true", help="never write one")
    verb.set_defaults(run=search_build)

    verb = actions.add_parser("ask", parents=[common], help="find the passages that answer a question")
    verb.add_argument("index", type=Path, metavar="INDEX", help="folder that `search build` wrote")
    verb.add_argument("question", nargs="?", help="without one, questions are read from standard input, one a line")
    verb.add_argument("--model", help=f"{model}, where the index's own is no longer where it was")
    verb.add_argument("--top", type=int, metavar="K", help="passages to show (5), or at most in a context (10)")
    verb.add_argument("--full", action="store_true", help="show whole passages")
    verb.add_argument("--exact", action="store_true", help="compare with every passage, also where there is a graph")
    how = verb.add_mutually_exclusive_group()
    how.add_argument("--hybrid", action="store_true", help="fuse the ranks by vectors and by words (BM25)")
    how.add_argument("--words", action="store_true", help="by words alone: no model is loaded")
    verb.add_argument("--rerank", metavar="MODEL", help="a cross-encoder that reads the best 50 with the question")
    verb.add_argument("--context", action="store_true", help="print the passages as a numbered context with sources")
    verb.add_argument("--budget", type=int, metavar="TOKENS", help="of the context (2000)")
    verb.add_argument(
        "--endpoint", metavar="URL",
        help="let a server with OpenAI's chat interface (http://localhost:8000/v1, say) answer from the context and "
        "cite it; its key is read from OPENAI_API_KEY",
    )  # fmt: skip
    verb.add_argument("--api-model", metavar="NAME", help="which of the server's models (its default)")
    verb.set_defaults(run=search_ask)

    verb = actions.add_parser("compare", parents=[common], help="how much training a small model needs to pass BM25")
    verb.add_argument("--only", choices=("BERT", "ModernBERT"), help="one of the two")
    verb.add_argument("--out", type=Path, default=Path("build/retrieval"),
                      help="folder that keeps every finished run (build/retrieval)")  # fmt: skip
    verb.add_argument("--anew", action="store_true", help="train also what is finished in OUT")
    verb.add_argument("--figures", type=Path, default=None,
                      help="folder for figure and measurements (figures; at quick scale OUT)")  # fmt: skip
    verb.add_argument("--minutes", type=float, help="stop after so many, between two points of a curve, to be gone on "
                      "with (default: to the end)")  # fmt: skip
    verb.set_defaults(run=search_compare)

    verb = actions.add_parser("train", parents=[common], help="train a model for searching on pairs of your own")
    verb.add_argument(
        "model", metavar="MODEL", help="a pretrained model's folder or Hub id, or a retriever to go on with"
    )
    verb.add_argument("--data", type=Path, required=True, metavar="FILE", help="tsv, csv, jsonl or parquet of pairs")
    verb.add_argument("--held-out", type=Path, metavar="FILE", help="to judge by (default: a tenth of --data)")
    verb.add_argument("--columns", nargs=2, metavar="C", help="of the questions and of the texts (query document)")
    verb.add_argument(
        "--kind", choices=("embedder", "late", "reranker"), default="embedder",
        help="a vector a text (default), a vector a token, or a cross-encoder for `ask --rerank`",
    )  # fmt: skip
    verb.add_argument("--rate", type=float, help="learning rate (1e-3; from 512 hidden units on 5e-5)")
    verb.add_argument("--epochs", type=float, help="how often each pair is seen (3)")
    verb.add_argument("--batch-size", type=int, help="questions of a step (64; for a reranker 8)")
    verb.add_argument("--max-length", type=int, help="tokens of a text (256), or of question and text together (512)")
    verb.add_argument("--negatives", type=int, metavar="N", help="wrong texts a question, for a reranker (3)")
    verb.add_argument("--out", type=Path, required=True, help="folder for the model and results.json")
    verb.set_defaults(run=search_train)


def doctor(arguments: argparse.Namespace) -> int:
    from . import doctor as checks

    if arguments.device:  # one that is not there is bad input here as everywhere
        from .runtime import resolve_device

        resolve_device(arguments.device)
    rows = checks.report()
    if arguments.json:
        _write_json(arguments.json, checks.as_dicts(rows))
    return checks.print_report(rows)


def tour(arguments: argparse.Namespace) -> int:
    from .classroom.scale import get_scale
    from .runtime import resolve_device
    from .tour import prepare, run_tour, sweep_rates, with_seed

    scale = get_scale(arguments.scale)
    device = resolve_device(arguments.device)
    # What the README shows must not rest on a run of forty steps.
    figures = arguments.figures or (arguments.out / "figures" if scale.name == "quick" else Path("figures"))
    sizes = with_seed(scale.tour, arguments.seed)
    if arguments.sweep:
        records = sweep_rates(prepare(sizes, arguments.corpus), sizes, scale.name, device, figures)
    else:
        records = run_tour(
            sizes, scale.name, corpus=arguments.corpus, out=arguments.out, figures=figures, device=device
        )
    if arguments.json:
        _write_json(arguments.json, records)
    return 0


def tokenizer(arguments: argparse.Namespace) -> int:
    from .data.corpus import load_corpus
    from .data.tokenizer import save_tokenizer, train_bpe, train_wordpiece
    from .runtime import prepare_output_folder

    out = prepare_output_folder(arguments.out)
    corpus = load_corpus(arguments.corpus, seed=arguments.seed or 0)
    print(corpus.summary())
    train = train_bpe if arguments.kind == "bpe" else train_wordpiece
    learnt = train(corpus.train["text"], vocab_size=arguments.vocab_size)
    save_tokenizer(learnt, out)
    characters = sum(map(len, corpus.held_out["text"]))
    tokens = sum(map(len, learnt.encode_batch(corpus.held_out["text"], add_special_tokens=False)))
    result = dict(kind=learnt.name, vocab_size=learnt.vocab_size, ordinary_ids=len(learnt.ordinary_ids),
                  held_out_characters_per_token=characters / tokens, corpus=corpus.name,
                  fingerprint=corpus.fingerprint)  # fmt: skip
    print(f"{learnt.name}: {learnt.vocab_size:,} ids, {len(learnt.ordinary_ids):,} of them ordinary; "
          f"{characters / tokens:.2f} characters per token of held-out text; saved in {out}")  # fmt: skip
    if arguments.json:
        _write_json(arguments.json, [result])
    return 0


def pretrain(arguments: argparse.Namespace) -> int:
    from .training import launch

    if arguments.explain:
        return _explain(arguments)
    scale, more = _run_settings(arguments)
    if arguments.resume:
        if arguments.recipe or arguments.model or arguments.changes or arguments.out:
            raise InputError(
                "--resume goes on with what the folder's run was asked for; give it without other settings"
            )
        return _launch(arguments, launch.read_request(arguments.resume), arguments.resume)
    if arguments.out is None:
        raise InputError("say where to keep the run: --out DIR")
    request = launch.pretrain_request(
        scale, arguments.recipe or "modernbert", arguments.model, launch.parse_changes(arguments.changes),
        corpus=arguments.corpus, seed=arguments.seed or 0, **more,
    )  # fmt: skip
    return _launch(arguments, request, arguments.out)


def extend(arguments: argparse.Namespace) -> int:
    from .training import launch

    scale, more = _run_settings(arguments)
    request = launch.extend_request(
        scale, arguments.model, arguments.length, launch.parse_changes(arguments.changes), theta=arguments.theta,
        corpus=arguments.corpus, seed=arguments.seed or 0, **more,
    )  # fmt: skip
    return _launch(arguments, request, arguments.out)


def _run_settings(arguments: argparse.Namespace):
    from .classroom.scale import get_scale

    scale = get_scale(arguments.scale).pretrain
    for name in ("workers", "checkpoint_every"):
        value = getattr(arguments, name)
        if value is not None and value < (name != "workers"):
            raise InputError(f"--{name.replace('_', '-')} must be at least {int(name != 'workers')}, not {value}")
    if arguments.stream and not arguments.corpus.startswith("hub:"):
        raise InputError(f"--stream reads a Hub dataset; {arguments.corpus!r} is held whole, leave --stream out")
    workers = scale.workers if arguments.workers is None else arguments.workers
    return scale, dict(workers=workers, checkpoint_every=arguments.checkpoint_every, compile=arguments.compile,
                       stream=arguments.stream)  # fmt: skip


def _launch(arguments: argparse.Namespace, request, out: Path) -> int:
    from .runtime import resolve_device
    from .training.launch import launch

    run = launch(request, out, resolve_device(arguments.device), shard=arguments.shard, anyway=arguments.anyway)
    if arguments.json and run is not None:
        _write_json(arguments.json, run.history)
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    from .training.recipe import reasons

    rows = reasons(arguments.recipe or "modernbert")
    for name, (value, why) in rows.items():
        shown = str(value) if isinstance(value, str | None) else _plain_number(value)
        print(f"{name:<20}{shown:<20}{why}")
    if arguments.json:
        _write_json(arguments.json, [dict(field=name, value=value, why=why) for name, (value, why) in rows.items()])
    return 0


def grow(arguments: argparse.Namespace) -> int:
    from .training.scale_up import grow_folder

    folder = grow_folder(
        arguments.model, arguments.to, arguments.out, method=arguments.method,
        match_attention=arguments.match_attention, tile_final_norm=arguments.tile_final_norm,
    )  # fmt: skip
    if arguments.json:
        _write_json(arguments.json, [dict(source=str(arguments.model), to=arguments.to, kept=str(folder))])
    return 0


def finetune(arguments: argparse.Namespace) -> int:
    from .runtime import resolve_device
    from .tasks.launch import run_finetune

    names = ("rate", "weight_decay", "epochs", "batch_size", "max_length", "long", "stride", "pooling", "patience",
             "seed")  # fmt: skip
    records = run_finetune(
        arguments.model, arguments.task, arguments.out, data=arguments.data, held_out=arguments.held_out,
        columns=arguments.columns, label=arguments.label, metrics=arguments.metrics, rates=arguments.sweep,
        seeds=arguments.seeds, device=resolve_device(arguments.device),
        **{name: getattr(arguments, name) for name in names},
    )  # fmt: skip
    if arguments.json:
        _write_json(arguments.json, records)
    return 0


def search_build(arguments: argparse.Namespace) -> int:
    from .classroom.scale import get_scale
    from .runtime import resolve_device
    from .tasks.search import run_build

    record = run_build(
        arguments.folder, arguments.out, model=arguments.model, scale=get_scale(arguments.scale),
        device=resolve_device(arguments.device), max_tokens=arguments.max_tokens, overlap=arguments.overlap,
        anew=arguments.anew, approximate=True if arguments.approximate else False if arguments.exact else None,
    )  # fmt: skip
    if arguments.json:
        _write_json(arguments.json, [record])
    return 0


def search_ask(arguments: argparse.Namespace) -> int:
    from .runtime import resolve_device
    from .tasks.rag import run_answers
    from .tasks.rerank import Reranker
    from .tasks.search import run_ask, standard_input

    context = arguments.context or arguments.endpoint is not None
    if arguments.budget is not None and not context:
        raise InputError("--budget is of a context; give --context, or --endpoint URL")
    if arguments.api_model is not None and arguments.endpoint is None:
        raise InputError("--api-model is one of a server's; give --endpoint URL")
    if context and arguments.full:
        raise InputError("a context holds whole passages already; leave out --full")
    if arguments.words and arguments.model is not None:
        raise InputError("--words needs no model; leave out --model")
    questions = standard_input() if arguments.question is None else [arguments.question]
    device = resolve_device(arguments.device)
    options = dict(
        model=arguments.model, device=device, exact=arguments.exact, hybrid=arguments.hybrid, words=arguments.words
    )
    if arguments.rerank is not None:
        options["reranker"] = Reranker.load(arguments.rerank, device=device)
    if context:
        records = run_answers(
            arguments.index, questions, top=arguments.top, budget=arguments.budget, endpoint=arguments.endpoint,
            api_model=arguments.api_model, **options,
        )  # fmt: skip
    else:
        top = 5 if arguments.top is None else arguments.top
        records = run_ask(arguments.index, questions, top=top, full=arguments.full, **options)
    if arguments.json:
        _write_json(arguments.json, records)
    return 0


def search_compare(arguments: argparse.Namespace) -> int:
    deadline = _deadline(arguments)
    from .classroom.scale import get_scale
    from .measure import retrieval_curve as measure
    from .runtime import describe_device, prepare_output_folder, resolve_device

    scale, device = get_scale(arguments.scale), resolve_device(arguments.device)
    out = prepare_output_folder(arguments.out)
    data = measure.load_data(scale.search)
    packages = len(data.tasks["code"].packages)
    print(
        f"{len(data.train):,} training pairs of {len(data.train_packages)} packages, {packages} other packages held out"
    )
    seeds = scale.search.seeds if arguments.seed is None else (arguments.seed,)
    models = (arguments.only,) if arguments.only else measure.MODELS
    try:
        records = measure.run_curve(data, scale.search, device, out, models, seeds, deadline, arguments.anew)
    except Paused as paused:
        return _paused(paused, arguments)
    figures = prepare_output_folder(arguments.figures or (out if scale.name == "quick" else Path("figures")))
    print("kept: " + ", ".join(map(str, measure.keep_and_draw(records, scale.name, device, figures))))
    print(f"{describe_device(device)}, {scale.name} scale: {measure.describe(records)}")
    if arguments.json:
        _write_json(arguments.json, records)
    return 0


def search_train(arguments: argparse.Namespace) -> int:
    from .runtime import resolve_device
    from .tasks.search_train import run_train

    names = ("kind", "held_out", "columns", "rate", "epochs", "batch_size", "max_length", "negatives", "seed")
    records = run_train(
        arguments.model, arguments.data, arguments.out, device=resolve_device(arguments.device),
        **{name: getattr(arguments, name) for name in names},
    )  # fmt: skip
    if arguments.json:
        _write_json(arguments.json, records)
    return 0


def ablate(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    deadline = _deadline(arguments)
    from .classroom.scale import get_scale
    from .measure import ablation
    from .measure.ablation_plots import keep_and_draw
    from .runtime import prepare_output_folder, resolve_device

    if arguments.list:
        for row in ablation.list_switches():
            values = ", ".join(map(str, row["values"]))
            ends = f"BERT {row['bert']!s:<10}ModernBERT {row['modernbert']!s:<10}"
            print(f"{row['switch']:<20}{values:<24}{ends}{row['lesson']}")
        if arguments.json:
            _write_json(arguments.json, ablation.list_switches())
        return 0
    if bool(arguments.switch) == arguments.ladder:
        raise InputError("say what to vary: --switch NAME[=VALUE] (`ablate --list` shows them), or --ladder")
    if arguments.ladder and arguments.start != "bert":
        raise InputError("the ladder goes from BERT to ModernBERT; leave out --start, or name switches")
    scale, sizes = get_scale(arguments.scale), get_scale(arguments.scale).ablation
    for name in ("seeds", "steps"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            raise InputError(f"--{name} must be at least 1, not {getattr(arguments, name)}")
    if arguments.seeds is not None or arguments.seed is not None:
        first = arguments.seed or 0
        sizes = replace(sizes, seeds=tuple(range(first, first + (arguments.seeds or len(sizes.seeds)))))
    if arguments.steps is not None:
        sizes = replace(sizes, steps=arguments.steps)
    changes = None if arguments.ladder else [ablation.parse_change(text, arguments.start) for text in arguments.switch]

    from .data import prepare

    out, device = prepare_output_folder(arguments.out), resolve_device(arguments.device)
    data = prepare(sizes, arguments.corpus)
    variants = ablation.make_variants(changes, arguments.start, sizes, data.tokenizer, not arguments.unmatched)
    print(data.corpus.summary())
    print("parameters: " + ("as they come" if arguments.unmatched else "matched to the first by the MLP's width"))
    minutes = None if arguments.yes else 60
    try:
        records = ablation.run_ablation(
            variants, data, sizes, device, out=out, minutes=minutes, deadline=deadline, anew=arguments.anew
        )
    except Paused as paused:
        return _paused(paused, arguments)
    print(ablation.table(records, variants[0].name))
    if arguments.ladder:
        records += ablation.time_steps(variants, data, sizes, device)
    committed = arguments.ladder and scale.name != "quick" and arguments.steps is None and arguments.seeds is None
    figures = prepare_output_folder(arguments.figures or (Path("figures") if committed else out))
    name = "ladder" if arguments.ladder else "-".join("-".join(change) for change in changes)
    print("kept: " + ", ".join(map(str, keep_and_draw(records, variants[0].name, name, scale.name, figures))))
    if arguments.json:
        _write_json(arguments.json, records)
    return 0


def headline(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from .classroom.scale import get_scale
    from .data import prepare
    from .measure import headline as measure
    from .runtime import prepare_output_folder, resolve_device

    scale, device = get_scale(arguments.scale), resolve_device(arguments.device)
    sizes, out = scale.headline, prepare_output_folder(arguments.out)
    if arguments.seed is not None:
        sizes = replace(sizes, seeds=tuple(arguments.seed + i for i in range(len(sizes.seeds))))
    data = prepare(sizes, arguments.corpus)
    print(data.corpus.summary())
    models = (arguments.only,) if arguments.only else tuple(measure.MODELS)
    records = measure.run_headline(data, sizes, device, out, models, arguments.anew)
    figures = prepare_output_folder(arguments.figures or (out if scale.name == "quick" else Path("figures")))
    print("kept: " + ", ".join(map(str, measure.keep_and_draw(records, scale.name, device, figures))))
    if both := measure.kept(figures):
        print(measure.describe(both))
    if arguments.json:
        _write_json(arguments.json, records)
    return 0


def bench(arguments: argparse.Namespace) -> int:
    from .measure.bench import run_bench
    from .measure.bench_cases import make_setup
    from .measure.bench_plots import keep_and_draw
    from .runtime import prepare_output_folder, provenance, resolve_device

    device = resolve_device(arguments.device)
    setup = make_setup(
        device, size=arguments.size, only=arguments.only, lengths=arguments.lengths, backend=arguments.backend,
        compile=not arguments.no_compile, minutes=arguments.minutes, seed=arguments.seed or 0,
    )  # fmt: skip
    # What the README shows must not rest on a tiny model or on half of the cases.
    partial = arguments.only or arguments.lengths or arguments.backend or arguments.no_compile
    kept = arguments.out if setup.size == "tiny" or partial else Path("figures")
    figures = prepare_output_folder(arguments.figures or kept)
    facts = provenance(device, size=setup.size, dtype=str(setup.dtype).removeprefix("torch."))
    records = [{**facts, **record} for record in run_bench(setup)]
    print("\nkept: " + ", ".join(str(path) for path in keep_and_draw(records, figures)))
    if arguments.json:
        _write_json(arguments.json, records)
    return 0


def record(arguments: argparse.Namespace) -> int:
    import time

    from .classroom.scale import get_scale
    from .measure.record import choose_parts, here, what_is_missing
    from .runtime import resolve_device

    figures, scale = arguments.figures or Path("figures"), get_scale(arguments.scale).name
    device = resolve_device(arguments.device)
    records, failed = [], 0
    for name, part in choose_parts(arguments.part).items():
        where = figures, device, scale
        if part.records(*where) and not arguments.again:
            said = f"{name}: recorded already in {part.path(*where)} with torch {here()}; --again measures anew"
            print(said, flush=True)
        else:
            print(f"{name}: measuring", flush=True)
            begun, before = time.perf_counter(), part.written(*where)
            status = _measure(part, *where, arguments)
            took = f"after {(time.perf_counter() - begun) / 60:.1f} min"
            # At quick scale the lessons keep nothing.
            whole = scale == "quick" or (part.records(*where) and part.written(*where) != before)
            ended = f"done {took}" if whole else f"paused {took}: the same command goes on"
            print(f"{name}: {f'failed with status {status} {took}' if status else ended}", flush=True)
            if status == STOPPED:
                return status
            failed = failed or status  # the other parts are measured all the same
        records += part.records(*where)
    if arguments.json:
        _write_json(arguments.json, records)
    missing = what_is_missing(figures, device, scale)
    if scale == "quick":  # forty steps of training are no evidence
        print("at quick scale the lessons keep nothing")
    elif missing:
        print(f"still missing on this device: {_record_command(arguments, missing)}")
    else:
        print("nothing is missing on this device")
    return failed


def _measure(part, figures: Path, device, scale: str, arguments: argparse.Namespace) -> int:
    """Run a part's command: -> its exit status; 1, with the traceback, where it broke in a way nobody foresaw."""
    import traceback

    from .measure.record import RESUMED

    given = [*part.command, "--figures", str(figures), "--scale", scale]
    if part.lesson is None:  # a lesson chooses its device and its seed by itself
        given += ["--device", str(device)]
        if arguments.seed is not None and "--seed" not in part.command:
            given += ["--seed", str(arguments.seed)]
    if arguments.again and part.command[0] in RESUMED:
        given += ["--anew"]
    try:
        return main(given)
    except Exception:
        traceback.print_exc()
        return 1


def _record_command(arguments: argparse.Namespace, parts: list[str]) -> str:
    """The command that records these parts, with the options that were given."""
    import shlex

    words = ["python", "-m", "modernbert_edu", "record"]
    for name in ("device", "scale", "seed", "figures"):
        if (value := getattr(arguments, name)) is not None:
            words += [f"--{name}", str(value)]
    return shlex.join([*words, "--part", *parts])


def claims(arguments: argparse.Namespace) -> int:
    from .measure import claims_report, inference_memory
    from .runtime import device_slug, prepare_output_folder, provenance, resolve_device, write_jsonl

    figures = arguments.figures
    if arguments.measure:
        device = resolve_device(arguments.device)
        prepare_output_folder(figures)
        facts = provenance(device)
        records = inference_memory.measure_inference_memory(device, seed=arguments.seed or 0)
        path = figures / "measurements" / device_slug(device) / f"{inference_memory.NAME}-base.jsonl"
        write_jsonl(path, [{**facts, **record} for record in records])
        print(f"kept: {path}")
    judged = claims_report.judge_all(figures)
    written = claims_report.write(judged, figures)
    print(claims_report.in_brief(judged))
    print("written: " + ", ".join(map(str, written)))
    if arguments.json:
        _write_json(arguments.json, judged)
    return 0


def notebooks(arguments: argparse.Namespace) -> int:
    from . import lessons
    from .classroom.notebooks import figures_of, redraw_figures, run_notebooks

    scale = arguments.scale or "quick"
    figures = arguments.figures or figures_of(arguments.folder, arguments.out)
    results = run_notebooks(
        arguments.folder, arguments.out, scale=scale, only=arguments.only, in_place=arguments.in_place, figures=figures
    )
    if arguments.in_place and scale != "quick":
        lessons.keep_minutes(results, scale, figures)
    drawn = redraw_figures(figures, arguments.only)
    print(f"figures drawn: {', '.join(map(str, drawn)) or 'none, nothing has been measured yet'}")
    if arguments.json:
        _write_json(arguments.json, [{**vars(result), "executed": str(result.executed)} for result in results])
    return 1 if any(result.error for result in results) else 0


def _plain_number(value) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _deadline(arguments: argparse.Namespace) -> float | None:
    """When `--minutes` end, counted from now (time.monotonic), so that reading the data counts as well."""
    import time

    if arguments.minutes is None:
        return None
    if not arguments.minutes > 0:
        raise InputError(f"--minutes must be above 0, not {arguments.minutes:g}")
    return time.monotonic() + 60 * arguments.minutes


def _paused(paused: Paused, arguments: argparse.Namespace) -> int:
    time_given = f"the {arguments.minutes:g} minutes"
    print(f"{paused}: the next stretch would not fit into {time_given}; the same command goes on")
    return 0


def _write_json(path: Path, records: list[dict]) -> None:
    from .runtime import write_jsonl  # here: runtime needs torch, and `doctor` must open without it

    write_jsonl(path, records)


def main(argv: list[str] | None = None) -> int:
    try:
        arguments = build_parser().parse_args(argv)
        return arguments.run(arguments)
    except InputError as error:
        print(f"modernbert-edu: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"modernbert-edu: the package {error.name} is missing: pip install -r requirements.txt; "
              "`modernbert-edu doctor` lists all that is needed", file=sys.stderr)  # fmt: skip
        return 2
    except KeyboardInterrupt:
        print("modernbert-edu: stopped", file=sys.stderr)
        return STOPPED


if __name__ == "__main__":
    sys.exit(main())
