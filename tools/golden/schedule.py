#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The learning rate at chosen iterations of every row of the paper's tables on ImageNet, from the paper's words
(sections 2.1, 3.1, 5.1) in exact fractions as far as they go; nothing is read from the recipes.

    python3 tools/golden/schedule.py > tests/golden/network/schedule.txt"""
import math
from fractions import Fraction

IMAGES = 1281167
# recipe: batch, epochs, warm-up epochs, cosine
ROWS = {
    **{f"batch{b}-linear": (b, 120, 0, False) for b in (256, 1024)},
    **{f"batch{b}-{n}": (b, 120, 5, False) for b in (256, 1024) for n in ("warmup", "zero-gamma", "no-bias-decay", "fp16")},
    **{f"tweak-{v}": (1024, 120, 5, False) for v in "abcd"},
    **{f"refine-{n}": (1024, 120, 5, True) for n in ("cosine", "smoothing", "distill")},
    **{f"refine-{n}": (1024, 200, 5, True) for n in ("mixup", "distill-mixup")},
}


def learning_rate(i, batch, epochs, warmup, cosine):
    """Of iteration i, from 0."""
    per_epoch = IMAGES // batch
    peak = Fraction(1, 10) * batch / 256
    if i < warmup * per_epoch:
        return float(peak * (i + 1) / (warmup * per_epoch))
    if cosine:
        t, total = i - warmup * per_epoch, (epochs - warmup) * per_epoch
        return 0.5 * (1 + math.cos(t * math.pi / total)) * float(peak)
    decays = sum(i >= k * epochs // 4 * per_epoch for k in (1, 2, 3))
    return float(peak / 10**decays)


def main():
    for name, (batch, epochs, warmup, cosine) in ROWS.items():
        epoch = IMAGES // batch
        ends = [0, 1, 5 * epoch - 1, 5 * epoch, epochs * epoch // 2, epochs * epoch - 1]
        for i in sorted({*ends, *(k * epochs // 4 * epoch + d for k in (1, 2, 3) for d in (-1, 0))}):
            print(name, i, repr(learning_rate(i, batch, epochs, warmup, cosine)))


if __name__ == "__main__":
    main()
