#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Golden values of the loss and its gradient from PyTorch's autograd in float64: smoothing, mixup and
distillation, alone and together.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch safetensors
    /tmp/venv/bin/python tools/golden/loss.py tests/golden/network"""
import pathlib
import sys

import numpy as np
import torch
from safetensors.numpy import save_file

import draws

SAMPLES, CLASSES = 6, 10
CASES = {  # epsilon, off-value over K, mixed, temperature (0: no teacher), hard weight, soft weight
    "plain": (0.0, False, False, 0.0, 1.0, 1.0),
    "smoothing": (0.1, False, False, 0.0, 1.0, 1.0),
    "smoothing-over-k": (0.1, True, False, 0.0, 1.0, 1.0),
    "mixup": (0.0, False, True, 0.0, 1.0, 1.0),
    "distillation": (0.0, False, False, 20.0, 1.0, 1.0),
    "distillation-halves": (0.0, False, False, 4.0, 0.5, 0.5),
    "smoothing-mixup": (0.1, False, True, 0.0, 1.0, 1.0),
    "all": (0.1, False, True, 20.0, 1.0, 1.0),
    "all-weighted": (0.1, True, True, 3.0, 0.7, 1.3),
}


def case_of(epsilon, over_k, mixed, temperature, hard, soft):
    z = torch.from_numpy(8 * draws.units("logits", SAMPLES * CLASSES) - 4).reshape(SAMPLES, CLASSES)
    z.requires_grad_()
    r = torch.from_numpy(20 * draws.units("teacher", SAMPLES * CLASSES) - 10).reshape(SAMPLES, CLASSES)
    a, b, lam = draws.labels("labels", SAMPLES, CLASSES)
    if not mixed:
        b, lam = a, np.ones(SAMPLES)
    smooth = torch.full((CLASSES, CLASSES), epsilon / (CLASSES if over_k else CLASSES - 1), dtype=torch.float64)
    smooth.fill_diagonal_(1 - epsilon + epsilon / CLASSES if over_k else 1 - epsilon)
    lam = torch.from_numpy(lam)[:, None]
    q = lam * smooth[a] + (1 - lam) * smooth[b]
    loss = torch.nn.functional.cross_entropy(z, q, reduction="sum")
    if temperature:
        p = torch.softmax(r / temperature, dim=1)
        distilled = -(p * torch.log_softmax(z / temperature, dim=1)).sum()
        loss = hard * loss + soft * temperature**2 * distilled
    loss.backward()
    return np.concatenate([[loss.item()], z.grad.numpy().reshape(-1)])


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: case_of(*case) for name, case in CASES.items()}, folder / "loss.safetensors")


if __name__ == "__main__":
    main()
