# SPDX-License-Identifier: Apache-2.0
"""docs/stream.md is enough to know what a chunk holds: its order, draws, boxes and weights, worked out here from that page
alone (hence not by tools/golden/reference.py) with no package but Python's own, are what satchel-preview shows. Usage: test_stream.py PACK PREVIEW"""
import ast
import math
import os
import struct
import subprocess
import sys
import tempfile
import zipfile

pack, preview = sys.argv[1:3]
WIDTH, HEIGHT, COUNT, SIZE, CHUNK = 56, 40, 200, 32, 8
LOW32 = 0xFFFFFFFF
EIGENVALUES = (55.46, 4.794, 1.148)
EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


# -- draws --

def block(seed, epoch, purpose, index, number=0):
    c = [index & LOW32, index >> 32, number + (purpose << 24), epoch]
    k = [seed & LOW32, seed >> 32]
    for _ in range(10):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [second >> 32 ^ c[1] ^ k[0], second & LOW32, first >> 32 ^ c[3] ^ k[1], first & LOW32]
        k = [k[0] + 0x9E3779B9 & LOW32, k[1] + 0xBB67AE85 & LOW32]
    return c


def unit(word):
    return (word + 0.5) / 2**32


def uniform(word, low, high):
    return low + (high - low) * unit(word)


def below(word, count):
    return word * count >> 32


def fine(high, low):
    return ((high << 20 | low >> 12) + 0.5) / 2**52


def normals(words):
    pairs = [(math.sqrt(-2 * math.log(unit(words[i]))), 2 * math.pi * unit(words[i + 1])) for i in (0, 2)]
    return [pairs[0][0] * math.cos(pairs[0][1]), pairs[0][0] * math.sin(pairs[0][1]), pairs[1][0] * math.cos(pairs[1][1])]


def beta(alpha, seed, epoch, index):
    if alpha > 0.5:
        w = block(seed, epoch, 6, index)
        depth = fine(w[0], w[1]) ** (1 / (alpha - 0.5))
        return 0.5 + 0.5 * math.sqrt(1 - depth) * math.cos(2 * math.pi * fine(w[2], w[3]))
    for number in range(64):
        w = block(seed, epoch, 6, index, number)
        x, y = fine(w[0], w[1]) ** (1 / alpha), fine(w[2], w[3]) ** (1 / alpha)
        if x + y <= 1:
            return x / (x + y)
    raise AssertionError("64 refusals")


# -- order and boxes --

def order(seed, epoch, position, count):
    half = 4
    while 2 ** (2 * half) < count:
        half += 1
    value = position
    while True:
        left, right = value >> half, value & 2**half - 1
        for number in range(8):
            word = block(seed, epoch, 1, (number << 32) + right)[0]
            left, right = right, left ^ word >> 32 - half
        value = left << half | right
        if value < count:
            return value


def random_box(seed, epoch, sample):
    """Begin and extent of both axes."""
    for attempt in range(10):
        w = block(seed, epoch, 2, sample, attempt)
        area, aspect = uniform(w[0], 0.08, 1) * WIDTH * HEIGHT, uniform(w[1], 0.75, struct.unpack("f", struct.pack("f", 4 / 3))[0])
        wide, high = math.floor(math.sqrt(area * aspect) + 0.5), math.floor(math.sqrt(area / aspect) + 0.5)
        if 1 <= wide <= WIDTH and 1 <= high <= HEIGHT:
            return (below(w[2], WIDTH - wide + 1), wide), (below(w[3], HEIGHT - high + 1), high)
    wide = round(HEIGHT * 4 / 3)  # the image's own aspect is above 4/3
    return ((WIDTH - wide) // 2, wide), (0, HEIGHT)


def flipped(seed, epoch, sample):
    return unit(block(seed, epoch, 3, sample)[0]) < 0.5


def moved_window(seed, epoch, sample, pad):
    """The same for crop pad, and how many outputs from the start or (negative) the end are zeros."""
    w, axes = block(seed, epoch, 2, sample), []
    for side, word in ((WIDTH, w[2]), (HEIGHT, w[3])):
        resized = SIZE * side // min(WIDTH, HEIGHT)
        shift = below(word, 2 * pad + 1) - pad
        offset = round((resized - SIZE) / 2) + shift
        axes.append((offset * side / resized, SIZE * side / resized, -shift))
    return axes


# -- the programs --

def run(*command):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)


def chunk_of(store, epoch, chunk, *options):
    """The arrays of a preview, as lists: pixels flat, in the order [sample][y][x][channel]."""
    out = store + ".npz"
    run(preview, store, "--out", out, "--epoch", epoch, "--chunk", chunk, "--size", SIZE, "--chunk-size", CHUNK, *options)
    arrays = {}
    with zipfile.ZipFile(out) as archive:
        for name in archive.namelist():
            data = archive.read(name)
            length = struct.unpack_from("<H", data, 8)[0]
            header = ast.literal_eval(data[10:10 + length].decode())
            code = {"<f2": "e", "<f4": "f", "<u4": "I", "<i4": "i", "<i8": "q", "<u8": "Q"}[header["descr"]]
            arrays[name.removesuffix(".npy")] = [value[0] for value in struct.iter_unpack("<" + code, data[10 + length:])]
    return arrays


def check_ramp(values, begin, extent, side, slope, zeros=0):
    """values[o] along an axis of an image that is slope times the px: where no edge of the box is near, nor zeros are."""
    support = max(1, extent / SIZE) + 1
    low, high = max(begin, 0), min(begin + extent, side)
    for at, value in enumerate(values):
        if not max(zeros, 0) <= at < SIZE + min(zeros, 0):
            continue
        centre = begin + (at + 0.5) * extent / SIZE
        if low + support <= centre <= high - support:
            assert abs(value - slope * (centre - 0.5)) < 1.2, (at, value, slope * (centre - 0.5), begin, extent)


def lines_of(arrays, position):
    """A row of the middle from left to right, and a column of the middle."""
    picture = arrays["pixels"][position * SIZE * SIZE:(position + 1) * SIZE * SIZE]
    return picture[SIZE // 2 * SIZE:(SIZE // 2 + 1) * SIZE], picture[SIZE // 2::SIZE]


def check_order_and_crops(store, seed):
    plain = ("--seed", seed, "--augment", "crop", "--mean", 0, "--std", 1)
    for epoch in (0, 3):
        seen = []
        for chunk in range(COUNT // CHUNK):
            arrays = chunk_of(store, epoch, chunk, *plain)
            expected = [order(seed, epoch, chunk * CHUNK + i, COUNT) for i in range(CHUNK)]
            assert arrays["id"] == arrays["label_a"] == arrays["label_b"] == expected, (chunk, arrays["id"], expected)
            seen += expected
            for position, sample in enumerate(expected):
                (x, wide), (y, high) = random_box(seed, epoch, sample)
                row, column = lines_of(arrays, position)
                if sample % 2:
                    check_ramp(column, y, high, HEIGHT, 6)
                else:
                    check_ramp(row[::-1] if flipped(seed, epoch, sample) else row, x, wide, WIDTH, 4)
        assert sorted(seen) == list(range(COUNT))


def check_pad(store, seed, pad):
    for chunk in range(4):
        arrays = chunk_of(store, 1, chunk, "--seed", seed, "--augment", "crop", "--crop", "pad:%d" % pad, "--mean", 0, "--std", 1)
        for position, sample in enumerate(arrays["id"]):
            axes = moved_window(seed, 1, sample, pad)
            row, column = lines_of(arrays, position)
            row = row[::-1] if flipped(seed, 1, sample) else row
            for line, (begin, extent, zeros), side, slope in ((row, axes[0], WIDTH, 4), (column, axes[1], HEIGHT, 6)):
                outside = line[:zeros] if zeros > 0 else line[SIZE + zeros:] if zeros < 0 else []
                assert not any(outside), (sample, outside)
                if (slope == 6) == sample % 2:
                    check_ramp(line, begin, extent, side, slope, zeros)


def check_mixup(store, seed):
    for alpha in (0.2, 1.0):
        for how in ("pair", "batch"):
            for chunk in (0, 5, 24):
                arrays = chunk_of(store, 2, chunk, "--seed", seed, "--mixup-alpha", alpha, "--mixup-lam", how, "--total-batch", 32)
                for p in range(CHUNK):
                    partner = CHUNK - 1 - p
                    index = chunk // 4 if how == "batch" else (chunk << 32) + min(p, partner)
                    lam = beta(struct.unpack("f", struct.pack("f", alpha))[0], seed, 2, index)
                    assert abs(arrays["lam"][p] - lam) < 1e-6, (alpha, how, chunk, p, arrays["lam"][p], lam)
                    assert arrays["label_b"][p] == arrays["label_a"][partner] == order(seed, 2, chunk * CHUNK + partner, COUNT)
            arrays = chunk_of(store, 2, 0, "--mixup-alpha", alpha, "--epochs", 4, "--mixup-off-last-epochs", 2)
            assert set(arrays["lam"]) == {1.0} and arrays["label_a"] == arrays["label_b"]


def check_colour(store, seed):
    """Flat grey pictures: of hsv the value alone shows, then the noise."""
    arrays = chunk_of(store, 1, 0, "--seed", seed, "--jitter-strength", "0.3,0.2,0.4", "--mean", 0, "--std", 1)
    for position, sample in enumerate(arrays["id"]):
        value = uniform(block(seed, 1, 4, sample)[2], 0.6, 1.4)
        alphas = [0.1 * normal for normal in normals(block(seed, 1, 5, sample))]
        for c in range(3):
            noise = sum(EIGENVECTORS[c][j] * EIGENVALUES[j] * alphas[j] for j in range(3))
            shown = arrays["pixels"][position * SIZE * SIZE * 3 + c]
            assert abs(shown - (100 * value + noise)) < 0.1, (sample, c, shown, 100 * value + noise)


def main():
    with tempfile.TemporaryDirectory() as scratch:
        grey, flat = os.path.join(scratch, "grey.lmdb"), os.path.join(scratch, "flat.lmdb")
        images, labels, batch = (os.path.join(scratch, name) for name in ("images", "labels", "batch.bin"))
        with open(images, "wb") as file:
            file.write(struct.pack(">IIII", 0x803, COUNT, HEIGHT, WIDTH))
            for sample in range(COUNT):
                file.write(bytes(6 * y if sample % 2 else 4 * x for y in range(HEIGHT) for x in range(WIDTH)))
        with open(labels, "wb") as file:
            file.write(struct.pack(">II", 0x801, COUNT) + bytes(range(COUNT)))
        with open(batch, "wb") as file:
            for sample in range(20):
                file.write(bytes([sample % 10]) + bytes([100]) * 3072)
        run(pack, "--source", "idx", images, labels, "--out", grey)
        run(pack, "--source", "cifar", batch, "--out", flat)
        check_order_and_crops(grey, 7)
        check_pad(grey, 1 << 40 | 5, 4)
        check_mixup(grey, 11)
        check_colour(flat, 13)


main()
