# SPDX-License-Identifier: Apache-2.0
"""Values for nets and images that Python and C draw alike (tests/unit/trainer/golden.h), so that only
results have to be kept: splitmix64 (Steele et al. 2014) over a hash (FNV-1a, 64 bits) of a name."""
import numpy as np

SIGNS = 16  # random projections of a tensor


def fnv1a(name):
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def bits(name, count):
    """uint64 [count]"""
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a(name)) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def units(name, count):
    """float64 [count] in [0, 1), multiples of 2^-24"""
    return (bits(name, count) >> np.uint64(40)).astype(np.float64) / 2.0**24


def parameter(name, shape, steady=False):
    """float32 of this shape; by timm's names of tensors. steady: betas that keep most of what a ReLU sees
    away from 0, for comparisons of gradients in float32."""
    count = int(np.prod(shape))
    if len(shape) > 1:
        bound = np.sqrt(3.0 / float(np.prod(shape[1:])))
        low, high = -bound, bound
    elif name.endswith(".running_var") or (name.endswith(".weight") and len(shape) == 1):
        low, high = 0.5, 1.5  # gammas too: no path is dead
    else:
        low, high = -0.2, 0.2
    values = units(name, count)
    if steady and len(shape) == 1 and name.endswith(".bias") and name != "fc.bias":
        values = np.where(values < 0.75, 2.25 + values, -1.5 - values)
    else:
        values = low + (high - low) * values
    return values.astype(np.float32).reshape(shape)


def pixels(name, shape):
    """float32 NHWC in [-2, 2), multiples of 1/256: half floats hold them"""
    count = int(np.prod(shape))
    return (np.floor(units(name, count) * 1024.0 - 512.0) / 256.0).astype(np.float32).reshape(shape)


def labels(name, count, classes):
    """a, b: int64 [count]; lam: float64 [count], multiples of 1/256"""
    draws = bits(name, 3 * count).reshape(count, 3)
    a = (draws[:, 0] % np.uint64(classes)).astype(np.int64)
    b = (draws[:, 1] % np.uint64(classes)).astype(np.int64)
    return a, b, (draws[:, 2] >> np.uint64(56)).astype(np.float64) / 256.0


def sketch(name, values):
    """float64 [1 + SIGNS]: the norm, and the sums with random signs. The mean of the squared differences
    of two tensors' sums is an unbiased estimate of their squared distance."""
    flat = np.asarray(values, dtype=np.float64).reshape(-1)
    signs = bits(name + ".signs", flat.size)
    sums = [np.where(signs >> np.uint64(k) & np.uint64(1), flat, -flat).sum() for k in range(SIGNS)]
    return np.array([np.sqrt((flat * flat).sum())] + sums)
