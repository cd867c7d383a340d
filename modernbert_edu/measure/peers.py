"""The models to compare with, from `transformers`, with random weights and in the same sizes. Nothing is downloaded.

BERT, RoBERTa and DeBERTaV3 are what people use; transformers' own ModernBERT is the one to beat. It comes twice: as it
is by default, and at its best (`at_its_best`), for a comparison with a peer that nobody tuned proves nothing. Dropout
is 0 in all of them: with it some would lose their fast kernels in training.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoint import from_transformers
from ..compiled import CompiledEncoder
from ..config import EncoderConfig
from ..errors import InputError
from ..model import MaskedLM

_BASE = dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072)
_LARGE = dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
_TINY = dict(hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=512, vocab_size=4096)
_MODERNBERT_TINY_IDS = dict(pad_token_id=0, bos_token_id=1, cls_token_id=1, eos_token_id=2, sep_token_id=2)

# The published configurations: Devlin et al. 2019, Liu et al. 2019, He et al. 2021, Warner et al. 2024 (table 4).
PEERS = {
    "bert": dict(base={**_BASE, "vocab_size": 30_522}, large={**_LARGE, "vocab_size": 30_522}, tiny=_TINY),
    "roberta": dict(base={**_BASE, "vocab_size": 50_265}, large={**_LARGE, "vocab_size": 50_265}, tiny=_TINY),
    "deberta": dict(base={**_BASE, "vocab_size": 128_100}, large={**_LARGE, "vocab_size": 128_100}, tiny=_TINY),
    "modernbert": dict(
        base={**_BASE, "num_hidden_layers": 22, "intermediate_size": 1152, "vocab_size": 50_368},
        large={**_LARGE, "num_hidden_layers": 28, "intermediate_size": 2624, "vocab_size": 50_368},
        tiny={**_TINY, "intermediate_size": 192, **_MODERNBERT_TINY_IDS},
    ),
}
SIZES = ("base", "large", "tiny")

_ROBERTA = dict(max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5)  # 512 positions, counted from 2
_DEBERTA_V3 = dict(
    relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=256, norm_rel_ebd="layer_norm",
    share_att_key=True, max_relative_positions=-1, position_biased_input=False, type_vocab_size=0,
    max_position_embeddings=512, layer_norm_eps=1e-7,
)  # fmt: skip
_NO_DROPOUT = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def transformers_module():
    """The package, or one line that says how to get it."""
    try:
        import transformers
    except ImportError:
        raise InputError("the comparison needs the package transformers: pip install transformers") from None
    return transformers


def check_size(size: str) -> str:
    """The size, if there is one of that name; else `InputError`."""
    if size not in SIZES:
        raise InputError(f"no size is called {size!r}; there are: {', '.join(SIZES)}")
    return size


def build_peer(name: str, size: str = "base", seed: int = 0) -> nn.Module:
    """transformers' masked language model with random weights, in float32 and eval mode.

    `name` is bert, roberta, deberta or modernbert, `size` base, large or tiny. Raises `InputError` for any other, and
    where transformers is not installed.
    """
    if name not in PEERS:
        raise InputError(f"no peer is called {name!r}; there are: {', '.join(PEERS)}")
    sizes, t = PEERS[name][check_size(size)], transformers_module()
    torch.manual_seed(seed)
    if name == "bert":
        return t.BertForMaskedLM(t.BertConfig(**sizes, **_NO_DROPOUT)).eval()
    if name == "roberta":
        return t.RobertaForMaskedLM(t.RobertaConfig(**sizes, **_ROBERTA, **_NO_DROPOUT)).eval()
    if name == "deberta":
        return t.DebertaV2ForMaskedLM(t.DebertaV2Config(**sizes, **_DEBERTA_V3, **_NO_DROPOUT)).eval()
    return t.ModernBertForMaskedLM(t.ModernBertConfig(**sizes)).eval()


def sharing_weights(model: nn.Module) -> nn.Module:
    """A second model with settings of its own but the very same parameters, so that it costs no memory."""
    shared = {id(parameter): parameter for parameter in model.parameters()}
    return copy.deepcopy(model, memo=shared)  # what the memo knows is not copied


def at_its_best(modernbert: nn.Module, varlen: bool) -> nn.Module:
    """transformers' ModernBERT, its parameters shared, with the logits of masked tokens only; and, where `varlen`
    (a GPU in half precision), with torch's FlashAttention kernels registered through its attention interface.
    """
    best = sharing_weights(modernbert)
    best.config.sparse_prediction = best.sparse_prediction = True
    if varlen:
        register_varlen()
        best.config._attn_implementation = "torch_varlen"
    return best


def ours_like(modernbert: nn.Module) -> MaskedLM:
    """Our model with the weights of transformers' ModernBERT."""
    return from_transformers(modernbert).eval()


def ours_as(model: MaskedLM, backend: str = "auto", compiled_for: int | None = None) -> MaskedLM:
    """Our model on another attention backend, its parameters shared; compiled for batches of `compiled_for` tokens."""
    other = sharing_weights(model)
    other.encoder.backend = backend
    if compiled_for is not None:
        other.encoder.compiled = CompiledEncoder(other.encoder, compiled_for)
    return other


# ---- in our training loop --------------------------------------------------------------------------------------------


@dataclass
class PeerOutput:
    """What `PeerLM` returns; (M, V) for M masked tokens and V ids. Without labels only the first is there."""

    last_hidden_state: Tensor
    loss: Tensor | None = None  # nats, the mean over the masked tokens
    masked_logits: Tensor | None = None


class PeerLM(nn.Module):
    """transformers' masked language model, to be called as ours is: by `train_mlm`, and by what times and counts.

    Head and logits are computed for the masked tokens only, as in our `MaskedLM`. So what differs between two models
    in speed or memory is the encoder. The weights are the peer's own.
    """

    def __init__(self, peer: nn.Module):
        super().__init__()
        self.peer = peer

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None):
        """ids, mask and labels (B, S), -100 where nothing is asked -> `PeerOutput`."""
        x_BSD = self.peer.base_model(input_ids, attention_mask).last_hidden_state
        if labels is None:
            return PeerOutput(x_BSD)
        asked = labels != -100
        logits_MV = self._head(x_BSD[asked])
        return PeerOutput(x_BSD, F.cross_entropy(logits_MV.float(), labels[asked]), logits_MV)

    def _head(self, x_MD: Tensor) -> Tensor:
        peer = self.peer
        if hasattr(peer, "decoder"):  # ModernBERT
            return peer.decoder(peer.head(x_MD))
        return (peer.lm_head if hasattr(peer, "lm_head") else peer.cls)(x_MD)  # RoBERTa; BERT and DeBERTa


def deberta_like(bert: EncoderConfig, seed: int = 0) -> PeerLM:
    """DeBERTaV3's architecture in the sizes of a BERT of ours, with random weights as transformers draws them.

    Its table of 2 x 256 relative positions takes the place of BERT's 512 absolute ones; so both are about equally
    large. DeBERTaV3's pretraining, which tells replaced tokens from given ones (He et al. 2021, arXiv 2111.09543), is
    not part of it: it is trained as it is called.
    """
    t = transformers_module()
    sizes = {name: getattr(bert, name) for name in (*_BASE, "vocab_size", "pad_token_id")}
    torch.manual_seed(seed)
    return PeerLM(t.DebertaV2ForMaskedLM(t.DebertaV2Config(**sizes, **_DEBERTA_V3, **_NO_DROPOUT)))


# ---- torch's varlen kernels behind transformers' attention interface -------------------------------------------------


def register_varlen() -> None:
    """Make `attn_implementation="torch_varlen"` known to transformers. To call it again changes nothing.

    It does what transformers does for flash-attn, with the same kernels: the batch stays padded, and every layer takes
    the pads out of q, k and v and puts them back.
    """
    t = transformers_module()
    from transformers.masking_utils import flash_attention_mask

    t.AttentionInterface.register("torch_varlen", padded_varlen)
    t.AttentionMaskInterface.register("torch_varlen", flash_attention_mask)


@torch.compiler.disable  # how many tokens are real is known at run time only: the compiler stops here anyway
def padded_varlen(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **unused,
) -> tuple[Tensor, None]:
    """q, k, v (B, H, S, K), a mask (B, S) or None -> ((B, S, H, K), None), as transformers' interface wants it.

    `sliding_window` arrives as transformers counts it: 65 for a half window of 64.
    """
    from torch.nn.attention.varlen import varlen_attn

    if dropout:
        raise InputError("torch_varlen has no dropout on the attention probabilities; set attention_dropout=0")
    B, _, S, _ = query.shape
    dtype = value.dtype  # q and k come out of the rotation in float32 under autocast
    q, k, v = (x.transpose(1, 2).flatten(0, 1).to(dtype) for x in (query, key, value))  # (B * S, H, K)
    indices = None
    if attention_mask is None:
        cu_seqlens, longest = torch.arange(0, B * S + 1, S, dtype=torch.int32, device=q.device), S
    else:
        lengths = attention_mask.sum(dim=1, dtype=torch.int32)
        indices = attention_mask.flatten().nonzero().flatten()
        cu_seqlens, longest = F.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0)), int(lengths.max())
        q, k, v = (x[indices] for x in (q, k, v))
    # As in transformers: a window that reaches over the whole length is none.
    half = -1 if sliding_window is None or S <= sliding_window else sliding_window - 1
    out = varlen_attn(q, k, v, cu_seqlens, cu_seqlens, longest, longest, scale=scaling, window_size=(half, half))
    if indices is not None:
        out = out.new_zeros(B * S, *out.shape[1:]).index_copy(0, indices, out)
    return out.unflatten(0, (B, S)), None
