"""Masked language modelling: hide some tokens, ask for them back (BERT, arXiv 1810.04805, section 3.1).

Of the chosen tokens 80 % become [MASK], 10 % a random token, 10 % stay as they are: the model cannot tell which of
the tokens it sees are true, so it must think about each of them. BERT chooses 15 % of the tokens, ModernBERT 30 %
(arXiv 2412.13663, section 2.2.2).

Here the statistics are exact: of n tokens round(rate * n) are chosen, of K chosen ones round(0.8 * K) become [MASK].
Others differ: transformers' collator decides for each token independently, so its shares hold only on average;
ModernBERT's own sequence packer does so too, spares only [PAD], so that [CLS] and [SEP] may be masked, and draws its
random tokens from all ids up to the largest in the batch.
"""

from dataclasses import dataclass

import torch

from modernbert_edu.errors import InputError

IGNORED = -100  # the label that `torch.nn.functional.cross_entropy` leaves out


@dataclass(frozen=True)
class MaskingSpec:
    """All that masking has to know of a vocabulary. A `Tokenizer` has the same three attributes and serves as well."""

    mask_id: int
    special_ids: frozenset[int]  # never chosen
    ordinary_ids: torch.Tensor  # (N,) int64: what a random replacement is drawn from


def mask_tokens(
    input_ids: torch.Tensor,
    vocabulary,
    *,
    rate: float = 0.3,
    generator: torch.Generator | None = None,
    split: tuple[float, float, float] = (0.8, 0.1, 0.1),
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hide a share of the tokens.

    Args:
        input_ids: int64 ids of any shape: flat (T,) or padded (B, S). Not changed.
        vocabulary: a `Tokenizer` or a `MaskingSpec`.
        rate: the share of the maskable tokens, those that are not special, to choose; in (0, 1].
        generator: the source of randomness. A CPU generator gives the same masks for ids on any device.
        split: the shares of the chosen tokens that become [MASK], become a random ordinary token, and stay.

    Of n > 0 maskable tokens K = max(1, round(rate * n)) are chosen, each set of K equally likely; round(split[0] * K)
    of these become [MASK] and round(split[1] * K) random (`round` is Python's, with halves to even). With n = 0
    nothing is chosen and all labels are -100: a mean loss over such a batch is undefined.

    Returns:
        (masked_ids, labels), shaped as `input_ids`; a label is the true id where a token was chosen, else -100.
    """
    if not 0 < rate <= 1:
        raise InputError(f"the masking rate is {rate}: it is a share and must lie in (0, 1]")
    if len(split) != 3 or min(split) < 0 or abs(sum(split) - 1) > 1e-6:
        raise InputError(f"split is {split}: three shares ([MASK], random, unchanged) that add up to 1 are needed")
    if input_ids.dtype != torch.int64:
        raise InputError(f"input_ids are {input_ids.dtype}: ids are torch.int64")

    special = torch.tensor(sorted(vocabulary.special_ids), device=input_ids.device)
    maskable = torch.isin(input_ids, special, invert=True).flatten().nonzero().squeeze(1)
    n = len(maskable)
    num_chosen = max(1, round(rate * n)) if n else 0
    num_mask = round(split[0] * num_chosen)
    num_random = min(round(split[1] * num_chosen), num_chosen - num_mask)  # two halves rounded up would be one too many

    # A random order of the maskable places: its first K are the chosen ones, the first of these become [MASK], ...
    source = generator.device if generator is not None else input_ids.device
    order = torch.randperm(n, generator=generator, device=source).to(input_ids.device)
    chosen = maskable[order[:num_chosen]]
    become_mask, become_random = chosen[:num_mask], chosen[num_mask : num_mask + num_random]

    masked, labels = input_ids.flatten().clone(), torch.full_like(input_ids, IGNORED).flatten()
    labels[chosen] = masked[chosen]
    masked[become_mask] = vocabulary.mask_id
    ordinary = vocabulary.ordinary_ids.to(input_ids.device)
    draws = torch.randint(len(ordinary), (num_random,), generator=generator, device=source)
    masked[become_random] = ordinary[draws.to(input_ids.device)]
    return masked.view(input_ids.shape), labels.view(input_ids.shape)
