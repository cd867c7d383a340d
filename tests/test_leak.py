"""Packed documents: transformers' ModernBERT lets them see each other, ours does not.

Documents laid end to end with restarting position_ids are a common way to train without padding. Under sdpa and eager,
transformers' mask builder never sees position_ids, so every token attends across the borders. This test documents it;
should it fail one day, transformers has mended the leak, and lesson 07 needs another sentence.
"""

import torch
from parity import TINY_MODERNBERT, hf_modernbert

from modernbert_edu import from_transformers, pack


def test_transformers_leaks_across_packed_documents_and_we_do_not():
    hf = hf_modernbert(**TINY_MODERNBERT)
    model = from_transformers(hf)
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(3, 211, (n,), generator=generator) for n in (40, 30))
    ids, layout = pack([a.tolist(), b.tolist()])
    with torch.no_grad():
        alone = hf(a[None]).logits[0]
        theirs = hf(ids[None], position_ids=layout.position_ids[None]).logits[0, :40]
        ours = model(ids, layout=layout).logits[:40]
        # The documents beside it are another one now.
        changed = ids.clone()
        changed[40:] = torch.randint(3, 211, (30,), generator=generator)
        ours_changed = model(changed, layout=layout).logits[:40]
    assert (theirs - alone).abs().max() > 1e-3
    torch.testing.assert_close(ours, alone, atol=1e-5, rtol=1e-5)
    assert torch.equal(ours, ours_changed)
