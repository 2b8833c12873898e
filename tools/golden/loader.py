# SPDX-License-Identifier: Apache-2.0
"""Writes tests/golden/loader: what the loader's tests compare with, worked out by reference.py.

  loader.py FOLDER

crops.txt: width height sample log_aspect -> x y w h flip; seed 11, epoch 3, the paper's ranges.
validation.txt: width height size short -> resized width, height, offset x, y.
colour.txt: r g b (Q7), hue, saturation and value factors, three offsets -> the three normalised values.
images.txt: file, width, height, crop x y w h, output size, least PSNR in dB; FILE.q7 holds the float64
result times 128, rounded, as little-endian int16 [size][size][3]."""

import io
import pathlib
import random
import sys

import numpy as np
from PIL import Image

import reference

SEED, EPOCH = 11, 3
MEAN = np.array([123.68, 116.779, 103.939])
STD = np.array([58.393, 57.12, 57.375])


def photo(rng, width, height):
    """Something photo-like: slow gradients, a few soft edges, a little noise."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    image = np.zeros((height, width, 3))
    for channel in range(3):
        image[..., channel] = 120 + 60 * np.sin(3 * x + channel) * np.cos(2 * y - channel)
    for _ in range(4):
        cx, cy, radius = rng.random(), rng.random(), 0.1 + 0.2 * rng.random()
        soft = 1 / (1 + np.exp((np.hypot(x - cx, y - cy) - radius) * 60))
        image += soft[..., None] * rng.normal(0, 40, 3)
    image += rng.normal(0, 2, image.shape[:2])[..., None]
    return np.clip(image, 0, 255).round().astype(np.uint8)


def jpeg(image, mode="RGB", **options):
    out = io.BytesIO()
    Image.fromarray(image, mode).save(out, "JPEG", quality=92, **options)
    return out.getvalue()


def jpeg_440(image):
    """Pillow does not write 4:4:0. Its MCUs hold the same blocks as those of 4:2:2, so: write the blocks
    as 4:2:2, then change the sampling factors and the size in the frame header."""
    height, width = image.shape[:2]
    columns, rows = -(-width // 8), -(-height // 16)
    padded = np.pad(image, ((0, rows * 16 - height), (0, columns * 8 - width), (0, 0)), "edge")
    ycc = np.asarray(Image.fromarray(padded).convert("YCbCr"), float)
    tiles = ycc.reshape(rows, 2, 8, columns, 8, 3)
    wide = np.empty((rows, 8, columns, 16, 3))
    wide[..., :8, 0], wide[..., 8:, 0] = (tiles[:, half, ..., 0] for half in (0, 1))
    halved = tiles.reshape(rows, 8, 2, columns, 8, 3)[..., 1:].mean(2)
    wide[..., 1:] = np.repeat(halved, 2, axis=3)
    data = bytearray(jpeg(wide.reshape(rows * 8, columns * 16, 3).round().astype(np.uint8), "YCbCr",
                          subsampling="4:2:2"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5:frame + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    assert data[frame + 11] == 0x21
    data[frame + 11] = 0x12
    return bytes(data)


def png(image, mode=None):
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image, mode)).save(out, "PNG")
    return out.getvalue()


def rgb_of(data):
    """float64 RGB of a file, as the loader defines it."""
    image = Image.open(io.BytesIO(data))
    if image.mode == "CMYK":
        ink = np.asarray(image, float)
        return (255 - ink[..., :3]) * (255 - ink[..., 3:]) / 255
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.uint16) >> 8
        return np.repeat(grey[..., None], 3, 2).astype(float)
    if image.mode == "RGBA":
        return np.asarray(image, float)[..., :3]
    return np.asarray(image.convert("RGB"), float)


def pictures(rng):
    """name, bytes, crop, size, least PSNR. 52 dB where only rounding differs; 40 dB, the quality bar's
    floor, where libjpeg's own upsampling of chroma is part of what is compared with."""
    full, sub = 52, 40
    whole = None
    big, odd = photo(rng, 96, 72), photo(rng, 83, 61)
    grey = odd.mean(2).round().astype(np.uint8)
    cmyk = np.concatenate([255 - odd, np.full(odd.shape[:2] + (1,), 40, np.uint8)], 2)
    yield "444.jpg", jpeg(big, subsampling="4:4:4"), (13, 7, 61, 50), 24, full
    yield "422.jpg", jpeg(big, subsampling="4:2:2"), (8, 5, 80, 60), 24, sub
    yield "420.jpg", jpeg(odd, subsampling="4:2:0"), (3, 5, 71, 51), 24, sub
    yield "440.jpg", jpeg_440(odd), (3, 5, 71, 51), 24, sub
    yield "grey.jpg", jpeg(grey, "L"), (10, 0, 40, 61), 24, full
    yield "progressive.jpg", jpeg(odd, subsampling="4:2:0", progressive=True), whole, 20, sub
    yield "restart.jpg", jpeg(big, subsampling="4:4:4", restart_marker_blocks=3), whole, 20, full
    yield "rgb.jpg", jpeg(odd, keep_rgb=True), (20, 20, 9, 11), 24, full
    yield "cmyk.jpg", jpeg(cmyk, "CMYK"), whole, 20, full
    yield "1x1.jpg", jpeg(photo(rng, 1, 1), subsampling="4:2:0"), whole, 8, sub
    yield "3x2.jpg", jpeg(photo(rng, 3, 2), subsampling="4:4:4"), whole, 8, full
    yield "wide.jpg", jpeg(photo(rng, 401, 150), subsampling="4:2:0"), whole, 6, sub
    yield "rgb.png", png(odd), (1, 2, 50, 40), 20, full
    yield "alpha.png", png(np.concatenate([odd, odd[..., :1]], 2), "RGBA"), whole, 12, full
    yield "palette.png", png(Image.fromarray(odd).quantize(32)), whole, 12, full
    yield "grey16.png", png(Image.fromarray(grey.astype(np.uint16) * 257)), whole, 12, full


def write_pictures(folder):
    lines = []
    for name, data, crop, size, least in pictures(np.random.default_rng(1)):
        image = rgb_of(data)
        height, width = image.shape[:2]
        x, y, w, h = crop or (0, 0, width, height)
        result = reference.resize(image, (x, w, x, x + w), (y, h, y, y + h), size)
        (folder / name).write_bytes(data)
        (folder / (name + ".q7")).write_bytes((result * 128).round().astype("<i2").tobytes())
        lines.append(f"{name} {width} {height} {x} {y} {w} {h} {size} {least}\n")
    (folder / "images.txt").write_text("".join(lines))


def write_crops(folder):
    rng = random.Random(2)
    sizes = [(1, 1), (1, 9), (40, 3), (3, 40), (1000, 10), (10, 1000), (500, 375)]
    sizes += [(rng.randint(1, 900), rng.randint(1, 900)) for _ in range(73)]
    sizes += [(rng.randint(600, 900), rng.randint(1, 60)) for _ in range(20)]  # mostly the fallback
    with open(folder / "crops.txt", "w") as out:
        for number, (width, height) in enumerate(sizes):
            sample, log_aspect = number * 977, number % 4 == 3
            # The spec holds float32.
            aspect = float(np.float32(3 / 4)), float(np.float32(4 / 3))
            area = float(np.float32(0.08)), 1.0
            box = reference.training_box(SEED, EPOCH, sample, width, height, area, aspect, log_aspect)
            flip = int(reference.flipped(SEED, EPOCH, sample))
            print(width, height, sample, int(log_aspect), *box, flip, file=out)


def write_validation(folder):
    rng = random.Random(3)
    cases = [(500, 375, 224, 256), (375, 500, 224, 256), (256, 256, 224, 256), (28, 28, 28, 28), (1, 1, 8, 9),
             (1, 700, 32, 33), (32, 32, 32, 37), (333, 500, 299, 342), (2592, 3888, 224, 256)]
    for _ in range(151):
        size = rng.choice([32, 64, 128, 224, 225, 256, 299])
        cases.append((rng.randint(1, 2000), rng.randint(1, 2000), size, size + rng.randint(0, 80)))
    with open(folder / "validation.txt", "w") as out:
        for case in cases:
            print(*case, *reference.validation_geometry(*case), file=out)


def write_colour(folder):
    rng = np.random.default_rng(4)
    q7 = rng.integers(0, 32641, (300, 3))
    q7[:8] = [[0, 0, 0], [32640] * 3, [32640, 0, 0], [0, 32640, 0], [0, 0, 32640], [0, 32640, 32640],
              [32640, 32640, 0], [32640, 0, 32640]]
    q7[8:40, 1] = q7[8:40, 0]  # two equal, the edges between sextants
    q7[40:72, 2] = q7[40:72, 1]
    q7[72:104, 2] = q7[72:104, 0]
    q7[104:120] = q7[104:120, :1]  # greys
    q7[120:160] = q7[120:160] // 64  # dark
    q7[160:200] = q7[160:200, :1] + rng.integers(-2, 3, (40, 3))  # nearly grey
    q7 = np.clip(q7, 0, 32640)
    factors = rng.uniform(0.6, 1.4, (300, 3)).astype(np.float32)
    offsets = rng.normal(0, 4, (300, 3)).astype(np.float32)
    factors[200:220], offsets[200:220] = 1, 0
    with open(folder / "colour.txt", "w") as out:
        for q, f, o in zip(q7, factors, offsets):
            rgb = reference.jitter_hsv(q[None] / 128.0, *f.astype(float))[0]
            values = (rgb + o.astype(float) - MEAN) / STD
            print(*q, *("%.9g" % v for v in (*f, *o)), *("%.9g" % v for v in values), file=out)


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write_pictures(folder)
    write_crops(folder)
    write_validation(folder)
    write_colour(folder)


main()
