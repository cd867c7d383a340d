"""Checks of 00_tour."""

from __future__ import annotations

import torch

from .machinery import (
    NotYet,
    check,
    compare,
    compare_number,
    compare_or_recognise,
    listed,
    pair,
    whole_numbers,
)


@check
def check_batch_report(fn) -> str:
    """`fn(real_BS, seconds) -> (share of pads, real tokens per second)` for a padded batch that took `seconds`."""
    cases = [([4, 1, 2], 0.5), ([6], 2.0), ([3, 1, 9, 3], 0.25)]
    for lengths, seconds in cases:
        real_BS = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        case = f"with texts of {listed(lengths)} tokens in {seconds} s"
        share, rate = pair(fn(real_BS.clone(), seconds), case, "the share of pads and the tokens per second")
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
        compare_number(share, 1 - real / places, f"{case}, share of pads", wrong_shares)
        compare_number(rate, real / seconds, f"{case}, tokens per second", wrong_rates)
    return "is right for 3 batches, one of them without pads"


@check
def check_flat_axis(fn) -> str:
    """`fn(lengths) -> (cu_seqlens (N + 1,), position_ids (T,))` of texts laid end to end; a length may be 0."""
    for lengths in ([3, 1], [2, 5, 4], [6], [4, 0, 2]):
        case = f"with lengths {lengths}"
        cu_seqlens, position_ids = pair(fn(list(lengths)), case, "cu_seqlens and position_ids")
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
        compare_or_recognise(cu_seqlens, begins, f"{case}, cu_seqlens", wrong_begins)
        compare_or_recognise(position_ids, places, f"{case}, position_ids", wrong_places)
        whole_numbers(cu_seqlens, f"{case}, cu_seqlens")
        whole_numbers(position_ids, f"{case}, position_ids")
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
