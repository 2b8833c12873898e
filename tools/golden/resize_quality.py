# SPDX-License-Identifier: Apache-2.0
"""How far the loader's integer resize is from a float64 one of libjpeg's full decode.

  resize_quality.py LOADER.so FOLDER [COUNT]

LOADER.so: the loader's and common's objects as a shared library:
  gcc -shared -fPIC -O2 -ffp-contract=off -D_GNU_SOURCE -I. -o LOADER.so loader/{crop,decode*,resize*,colour}.c \\
      common/{err,half}.c proto/{draw*,philox}.c -ljpeg -lspng -lm
Prints mean, least and pooled PSNR over COUNT (100) JPEGs of the folder, one training crop to 224 each,
per chroma layout."""

import ctypes
import io
import pathlib
import sys

import numpy as np
from PIL import Image

import reference

SIZE, SEED = 224, 7


class Axis(ctypes.Structure):
    _fields_ = [("begin", ctypes.c_int64), ("extent", ctypes.c_int64), ("denominator", ctypes.c_int64),
                ("low", ctypes.c_uint32), ("high", ctypes.c_uint32),
                ("zero_before", ctypes.c_int32), ("zero_after", ctypes.c_int32)]


class Crop(ctypes.Structure):
    _fields_ = [("x", Axis), ("y", Axis), ("flip", ctypes.c_int)]


class Loader:
    def __init__(self, path):
        self.library = ctypes.CDLL(path)
        self.library.err_message.restype = ctypes.c_char_p
        self.decoder, self.resizer = ctypes.c_void_p(), ctypes.c_void_p()
        self.must(self.library.decoder_open(ctypes.byref(self.decoder)))
        self.must(self.library.resize_open(ctypes.byref(self.resizer), 0))

    def must(self, code):
        if code:
            raise RuntimeError(self.library.err_message().decode())

    def resize(self, data, box):
        """[SIZE, SIZE, 3] float64 of the box, and the colour of the planes."""
        x, y, w, h = box
        crop = Crop(Axis(x, w, 1, x, x + w, 0, 0), Axis(y, h, 1, y, y + h, 0, 0), 0)
        planes = ctypes.create_string_buffer(4096)  # struct planes, larger than it is
        self.must(self.library.decode_file(self.decoder, planes, data, ctypes.c_size_t(len(data))))
        out = [np.zeros((SIZE, SIZE), np.int16) for _ in range(3)]
        pointers = [o.ctypes.data_as(ctypes.c_void_p) for o in out]
        self.must(self.library.resize_planes(self.resizer, (ctypes.c_void_p * 3)(*pointers), planes,
                                             ctypes.byref(crop), SIZE))
        colour = int.from_bytes(planes.raw[:4], "little")
        if colour == 1:
            self.library.colour_ycc_to_rgb(*pointers, ctypes.c_size_t(SIZE * SIZE))
        elif colour == 0:
            out = [out[0]] * 3
        return np.clip(np.stack(out, -1) / 128.0, 0, 255), colour


def main():
    loader, folder = Loader(sys.argv[1]), pathlib.Path(sys.argv[2])
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 100
    results = {}
    for number, path in enumerate(sorted(p for p in folder.rglob("*") if p.is_file())[:count]):
        data = path.read_bytes()
        image = Image.open(io.BytesIO(data))
        layout = "/".join("%dx%d" % tuple(t[1:3]) for t in getattr(image, "layer", [])) or image.mode
        full = np.asarray(image.convert("RGB"), float)
        box = reference.training_box(SEED, 0, number, image.width, image.height, (0.08, 1), (0.75, 4 / 3))
        x, y, w, h = box
        expected = reference.resize(full, (x, w, x, x + w), (y, h, y, y + h), SIZE)
        got, _ = loader.resize(data, box)
        error = np.mean((got - expected) ** 2)
        results.setdefault(layout, []).append((reference.psnr(got, expected), error, path.name))
    everything = [r for group in results.values() for r in group]
    for layout, group in sorted(results.items()) + [("all", everything)]:
        values = [g[0] for g in group]
        worst = min(group)
        pooled = 10 * np.log10(255**2 / np.mean([g[1] for g in group]))
        print(f"{layout}: {len(group)} images, PSNR mean {np.mean(values):.2f}, pooled {pooled:.2f}, "
              f"least {worst[0]:.2f} dB ({worst[2]})")


main()
