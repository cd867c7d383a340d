"""Shared by the parity tests: transformers' models with random weights, and a batch with padding."""

import torch
from transformers import BertConfig, BertForMaskedLM, ModernBertConfig, ModernBertForMaskedLM
from transformers.models.modernbert import modeling_modernbert

TINY_BERT = dict(vocab_size=211, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=80,
                 max_position_embeddings=300)  # fmt: skip
TINY_MODERNBERT = dict(vocab_size=211, hidden_size=48, num_hidden_layers=4, num_attention_heads=4,
                       intermediate_size=56, pad_token_id=0, bos_token_id=1, cls_token_id=1, eos_token_id=2,
                       sep_token_id=2, max_position_embeddings=1024)  # fmt: skip


def hf_bert(**changes):
    config = BertConfig(**{**dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), **changes})
    config._attn_implementation = "sdpa"
    return randomise(BertForMaskedLM(config))


def hf_modernbert(**changes):
    config = ModernBertConfig(**changes)
    config._attn_implementation = "sdpa"
    return randomise(ModernBertForMaskedLM(config))


def randomise(model, seed=0):
    """Every weight random, norms and biases too: at their initial 1 and 0 they would hide a mix-up."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm = "norm" in name.lower() and name.endswith("weight")
            parameter.copy_(1 + 0.1 * noise if is_norm else 0.05 * noise if parameter.dim() > 1 else 0.1 * noise)
    model.tie_weights()
    return model.eval()


def batch(lengths, vocab_size, seed=0, masked=0.3):
    """(input_ids, attention_mask, labels), padded with 0 on the right; pads carry no label."""
    generator = torch.Generator().manual_seed(seed)
    B, S = len(lengths), max(lengths)
    attention_mask = (torch.arange(S) < torch.tensor(lengths)[:, None]).long()
    input_ids = torch.randint(3, vocab_size, (B, S), generator=generator) * attention_mask
    chosen = (torch.rand(B, S, generator=generator) < masked) & attention_mask.bool()
    chosen[:, 1] = attention_mask[:, 1].bool()
    labels = torch.where(chosen, input_ids, -100)
    return input_ids, attention_mask, labels


def rotate_in_full_precision(monkeypatch):
    """transformers rotates in float32 whatever the dtype, which would cap a float64 comparison at 1e-7."""

    def apply_rotary_pos_emb(q, k, cos, sin, unsqueeze_dim=1):
        cos, sin, half = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim), modeling_modernbert.rotate_half
        return q * cos + half(q) * sin, k * cos + half(k) * sin

    monkeypatch.setattr(modeling_modernbert, "apply_rotary_pos_emb", apply_rotary_pos_emb)
