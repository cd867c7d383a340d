"""Checks of 12_retrieval."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .machinery import NotYet, check, close, compare, compare_number, recognise


@check
def check_info_nce(fn) -> str:
    """`fn(queries_ND, documents_ND, temperature)`: mean of -log softmax of the cosines at each question's own text."""
    cases = [(4, 6, 0.1), (2, 3, 1.0), (5, 8, 0.05), (3, 4, 0.5), (1, 4, 0.1)]
    for N, D, temperature in cases:
        queries, documents = torch.randn(N, D), torch.randn(N, D)  # of any length: cosines are asked for
        losses = []
        for n in range(N):
            scores = [_cosine(queries[n], documents[m]) / temperature for m in range(N)]
            losses.append(math.log(sum(math.exp(score) for score in scores)) - scores[n])
        want = torch.tensor(sum(losses) / N)
        case = f"with {N} pairs of {D} numbers at temperature {temperature}"
        got = fn(queries.clone(), documents.clone(), temperature)
        if isinstance(got, Tensor) and got.shape == (N,) and close(got, torch.tensor(losses), 1e-4):
            raise NotYet(f"{case}: that is one loss for each question; return their mean")
        if isinstance(got, float):
            got = torch.tensor(got)
        compare(got, want, case, _nce_mistakes(queries, documents, temperature), tolerance=1e-4)
    return f"agrees with the loops on {len(cases)} batches"


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def _nce_mistakes(queries: Tensor, documents: Tensor, temperature: float) -> dict[str, Tensor]:
    unit_queries, unit_documents = F.normalize(queries, dim=-1), F.normalize(documents, dim=-1)
    cosines, own = unit_queries @ unit_documents.T, torch.arange(len(queries))
    others = cosines.masked_fill(torch.eye(len(own), dtype=torch.bool), float("-inf")) / temperature
    right = cosines.diagonal() / temperature
    sharp = cosines / temperature
    return {
        "the vectors were not brought to length 1": F.cross_entropy(queries @ documents.T / temperature, own),
        "the cosines were not divided by the temperature": F.cross_entropy(cosines, own),
        "the cosines were multiplied by the temperature; divide": F.cross_entropy(cosines * temperature, own),
        "the softmax runs over the questions of each text; run it over the texts of each question": F.cross_entropy(
            sharp.T, own
        ),
        "both directions were averaged; only question -> texts is asked for": (
            F.cross_entropy(sharp, own) + F.cross_entropy(sharp.T, own)
        )
        / 2,
        "the losses were added up; take their mean": F.cross_entropy(sharp, own, reduction="sum"),
        "the sign is wrong: the loss is minus the log": -F.cross_entropy(sharp, own),
        "the right text is missing from the sum under the fraction": (others.logsumexp(dim=1) - right).mean(),
        "the softmax was taken twice; cross_entropy takes scores": F.cross_entropy(sharp.softmax(dim=1), own),
        "that is the mean probability of the right text, without the log": sharp.softmax(dim=1).diagonal().mean(),
    }


@check
def check_max_sim(fn) -> str:
    """`fn(query_SK, documents_NTK, mask_NT) -> (N,)`: sums of best matches among each text's real tokens."""
    cases = [(2, [3, 2], 4), (3, [1, 4, 2], 5), (1, [2, 2], 3), (4, [5, 1, 3, 4], 6)]
    for S, lengths, K in cases:
        query = F.normalize(torch.randn(S, K), dim=-1)
        texts = [F.normalize(torch.randn(length, K), dim=-1) for length in lengths]
        if len(lengths) > 1:  # a text that points away from every token of the question: a pad of zeros would win
            texts[0] = F.normalize(-query.mean(dim=0) + 0.05 * texts[0], dim=-1)
        padded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        want = torch.zeros(len(lengths))
        for n, text in enumerate(texts):
            for token in query:
                want[n] += max(float(token @ other) for other in text)
        case = f"with a question of {S} tokens and texts of {lengths}"
        got = fn(query.clone(), padded.clone(), mask.clone())
        mistakes = _max_sim_mistakes(query, padded, mask)
        if isinstance(got, Tensor) and got.shape != want.shape:
            known = recognise(got, mistakes, lambda a, b: close(a, b, 1e-5))
            if known:
                raise NotYet(f"{case}: {known}")
        compare(got, want, case, mistakes)
    return f"agrees with the loops on {len(cases)} questions"


def _max_sim_mistakes(query: Tensor, documents: Tensor, mask: Tensor) -> dict[str, Tensor]:
    matches = query @ documents.transpose(1, 2)  # (N, S, T)
    real = matches.masked_fill(~mask[:, None], float("-inf"))
    best = real.amax(dim=2)
    zeroed = matches.masked_fill(~mask[:, None], 0.0)
    return {
        "pads count as matches of 0; a pad must never be the best match": matches.amax(dim=2).sum(dim=1),
        "the best matches were averaged over the question's tokens; add them up": best.mean(dim=1),
        "the largest of the best matches was taken; add up one for each token of the question": best.amax(dim=1),
        "all matches were added up; take each question token's best": zeroed.sum(dim=(1, 2)),
        "matches were averaged over the text's tokens; take the best": (
            zeroed.sum(dim=2) / mask.sum(dim=1, keepdim=True)
        ).sum(dim=1),
        "the two sides are exchanged: that is the best question token for each token of the text": real.amax(dim=1)
        .masked_fill(~mask, 0.0)
        .sum(dim=1),
        "the worst match was taken; take the largest": matches.masked_fill(~mask[:, None], float("inf"))
        .amin(dim=2)
        .sum(dim=1),
        "the best matches of each token were not added up; return one number for each text": best,
    }


@check
def check_ndcg_at_k(fn) -> str:
    """`fn(ranking, relevant, k)`: gain 1 / log2(1 + rank) for each relevant text, over the largest sum possible."""
    cases = [  # the first tells the usual mistakes apart
        ([3, 5, 9, 0, 6, 2], {5, 9, 40}, 5),
        ([4, 2, 7, 1], {2}, 4),
        ([3, 5, 9, 0, 6], {9, 3}, 5),
        ([8, 1, 5, 2], {7}, 4),
        ([1, 2, 3, 4, 5], {1, 2, 3}, 2),
        ([6, 0, 3, 2, 9, 4], {4, 9, 0, 5}, 3),
        ([2, 1], {2}, 10),
        ([5, 3, 8, 1], {8, 40, 41}, 4),
    ]
    for ranking, relevant, k in cases:
        found = 0.0
        for rank in range(1, min(k, len(ranking)) + 1):
            if ranking[rank - 1] in relevant:
                found += 1 / math.log2(1 + rank)
        ideal = sum(1 / math.log2(1 + rank) for rank in range(1, min(k, len(relevant)) + 1))
        case = f"with the ranking {ranking}, relevant {sorted(relevant)} and k = {k}"
        got = fn(list(ranking), set(relevant), k)
        if got is None:
            raise NotYet("your function returned None; does it end with a return?")
        compare_number(got, found / ideal, case, _ndcg_mistakes(ranking, relevant, k))
    return f"agrees with the definition on {len(cases)} rankings"


def _ndcg_mistakes(ranking: list[int], relevant: set[int], k: int) -> dict[str, float]:
    def gain(ranks, discount) -> float:
        return sum(discount(rank) for rank in ranks)

    def usual(rank: int) -> float:
        return 1 / math.log2(1 + rank)

    top = ranking[:k]
    ranks = [rank for rank, text in enumerate(top, start=1) if text in relevant]
    every = [rank for rank, text in enumerate(ranking, start=1) if text in relevant]
    most = min(k, len(relevant))
    found, ideal = gain(ranks, usual), gain(range(1, most + 1), usual)
    mistakes = {
        "the sum was not divided by the largest one possible": found,
        "the ranking was not cut off after k": gain(every, usual) / ideal,
        "the divisor counts k places even where fewer texts are relevant": found / gain(range(1, k + 1), usual),
        "the divisor counts all relevant texts, more than k can hold": found / gain(range(1, len(relevant) + 1), usual),
        "the divisor counts only the relevant texts that were found, so a text that was missed costs nothing": found
        / gain(range(1, len(ranks) + 1), usual)
        if ranks
        else -1.0,
        "the sum was divided by the number of relevant texts; divide by the largest sum": found / len(relevant),
        "the logarithm is the natural one below, or its base differs above; the base must be the same": found
        * math.log(2)
        / ideal,
        "the discount is 1 / rank; it is 1 / log2(1 + rank)": gain(ranks, lambda r: 1 / r)
        / gain(range(1, most + 1), lambda r: 1 / r),
        "ranks begin at 1: the text at place i of the list has rank i + 1, and the discount 1 / log2(2 + i)": gain(
            ranks, lambda r: 1 / math.log2(2 + r)
        )
        / ideal,
        "the first place has rank 1, not 0": gain(ranks, lambda r: 1 / math.log2(r)) / ideal
        if ranks and ranks[0] > 1
        else -1.0,
        "that is the reciprocal rank of the first relevant text": 1 / ranks[0] if ranks else -1.0,
        "that is recall": len(ranks) / len(relevant),
        "that is precision": len(ranks) / k,
    }
    return {words: value for words, value in mistakes.items() if value >= 0}
