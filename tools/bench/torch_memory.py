#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bytes that eager PyTorch keeps from the forward for the backward of timm's networks in half precision (weights,
gradients, workspace not counted): each storage that autograd saves, once. Shapes suffice; nothing is computed.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch timm
    /tmp/venv/bin/python tools/bench/torch_memory.py [BATCH [NETWORK...]]"""

import sys

import timm
import torch


def saved_bytes(name, batch, size=224):
    with torch.device("meta"):
        model = timm.create_model(name).half().train()
        images = torch.zeros(batch, 3, size, size, dtype=torch.half)
        labels = torch.zeros(batch, dtype=torch.long)
    weights = {p.untyped_storage()._cdata for p in model.parameters()}
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            storages[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = torch.nn.functional.cross_entropy(model(images).float(), labels)
    assert loss.requires_grad
    return sum(storage.nbytes() for storage in storages.values())


batch = int(sys.argv[1]) if len(sys.argv) > 1 else 256
for name in sys.argv[2:] or ["resnet50d"]:
    print(f"{name}, batch {batch}: {saved_bytes(name, batch) / 2**20:,.0f} MiB")
