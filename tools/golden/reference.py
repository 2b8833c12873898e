# SPDX-License-Identifier: Apache-2.0
"""The loader's mathematics once more, in float64 and plain NumPy, written from the documents and not
from the C code: what the golden data and the quality figures are measured against."""

import math

import numpy as np

MASK32 = 0xFFFFFFFF
ORDER, CROP, FLIP, JITTER, PCA = 1, 2, 3, 4, 5


def philox(counter, key):
    """Philox 4x32-10 (Salmon et al. 2011)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & MASK32, (p0 >> 32) ^ c3 ^ k1, p0 & MASK32
        k0, k1 = (k0 + 0x9E3779B9) & MASK32, (k1 + 0xBB67AE85) & MASK32
    return c0, c1, c2, c3


def draw(seed, epoch, purpose, index, block=0):
    counter = (index & MASK32, index >> 32, block | purpose << 24, epoch)
    return philox(counter, (seed & MASK32, seed >> 32))


def unit(word):
    return (word + 0.5) / 2**32


def uniform(word, low, high):
    return low + (high - low) * unit(word)


def below(word, count):
    return word * count >> 32


def training_box(seed, epoch, sample, width, height, area, aspect, log_aspect=False):
    """x, y, width, height of the random-resized crop."""
    for attempt in range(10):
        words = draw(seed, epoch, CROP, sample, attempt)
        target = uniform(words[0], *area) * (width * height)
        if log_aspect:
            ratio = math.exp(uniform(words[1], math.log(aspect[0]), math.log(aspect[1])))
        else:
            ratio = uniform(words[1], *aspect)
        w = math.floor(math.sqrt(target * ratio) + 0.5)
        h = math.floor(math.sqrt(target / ratio) + 0.5)
        if 0 < w <= width and 0 < h <= height:
            return below(words[2], width - w + 1), below(words[3], height - h + 1), w, h
    w, h = width, height  # torchvision.transforms.RandomResizedCrop.get_params
    if width / height < aspect[0]:
        h = min(max(round(width / aspect[0]), 1), height)
    elif width / height > aspect[1]:
        w = min(max(round(height * aspect[1]), 1), width)
    return (width - w) // 2, (height - h) // 2, w, h


def flipped(seed, epoch, sample):
    return unit(draw(seed, epoch, FLIP, sample)[0]) < 0.5


def validation_geometry(width, height, size, short):
    """Resized width and height, and the window's offset in them (torchvision: Resize, CenterCrop)."""
    if width <= height:
        w, h = short, int(short * height / width)
    else:
        w, h = int(short * width / height), short
    return w, h, int(round((w - size) / 2.0)), int(round((h - size) / 2.0))


def triangle_matrix(begin, extent, low, high, outputs, samples):
    """[outputs, samples] weights of the antialiased triangle filter; begin, extent, low and high in
    samples, the last two whole numbers."""
    scale = extent / outputs
    support = max(1.0, scale)
    centres = begin + (np.arange(outputs) + 0.5) * scale
    positions = np.arange(samples) + 0.5
    weights = np.maximum(0, support - np.abs(positions[None] - centres[:, None]))
    weights[:, :low] = 0
    weights[:, high:] = 0
    return weights / weights.sum(1, keepdims=True)


def resize(image, x, y, size):
    """image [H, W, C] float64; x and y: (begin, extent, low, high)."""
    mx = triangle_matrix(*x, size, image.shape[1])
    my = triangle_matrix(*y, size, image.shape[0])
    return np.einsum("oh,hwc,pw->opc", my, image, mx, optimize=True)


def jitter_hsv(rgb, hue, saturation, value):
    """rgb [..., 3] on 0..255, by the textbook's sextants."""
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    high, low = rgb.max(-1), rgb.min(-1)
    chroma = high - low
    safe = np.where(chroma > 0, chroma, 1)
    turn = np.select([chroma == 0, high == r, high == g],
                     [0, (g - b) / safe, 2 + (b - r) / safe], 4 + (r - g) / safe) / 6
    turn = np.where(turn > 0.5, turn - 1, turn) * hue
    turn = np.where(turn > 0.5, turn - 1, np.where(turn <= -0.5, turn + 1, turn))
    s = np.minimum(1, np.where(high > 0, chroma / np.where(high > 0, high, 1), 0) * saturation)
    v = np.minimum(255, high * value)
    sixth = np.mod(turn, 1) * 6
    sector = np.floor(sixth).astype(int) % 6
    f = sixth - np.floor(sixth)
    p, q, t = v * (1 - s), v * (1 - s * f), v * (1 - s * (1 - f))
    table = [(v, t, p), (q, v, p), (p, v, t), (p, q, v), (t, p, v), (v, p, q)]
    out = np.empty_like(rgb)
    for k, channels in enumerate(table):
        for c in range(3):
            out[..., c] = np.where(sector == k, channels[c], out[..., c])
    return out


def psnr(a, b):
    error = np.mean((np.asarray(a, float) - b) ** 2)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)
