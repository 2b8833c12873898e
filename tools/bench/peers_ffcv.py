# SPDX-License-Identifier: Apache-2.0
"""FFCV's loader as a contestant of peers.py, in a process of its own: its packages do not go with the others'.

Writes its pack (max side 500, quality 90) where there is none, prints the pack's bytes an image, then, for every line
that it reads, the images per second of processor time of two epochs. Called by peers.sh.

    peers_ffcv.py IMAGES_FOLDER PACK.beton
"""
import pathlib
import sys
import time

import numpy
import torch
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, Squeeze, ToTensor
from ffcv.writer import DatasetWriter
from PIL import Image

MEAN, STD = numpy.array([123.68, 116.779, 103.939]), numpy.array([58.393, 57.12, 57.375])
EPOCHS = 2


class Images:
    def __init__(self, folder):
        self.files = sorted(folder.glob("*/*"))

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        return Image.open(self.files[index]).convert("RGB"), 0


def main():
    torch.set_num_threads(1)
    images, pack = Images(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2])
    if not pack.exists():
        fields = {"image": RGBImageField(write_mode="jpg", max_resolution=500, jpeg_quality=90), "label": IntField()}
        DatasetWriter(str(pack), fields, num_workers=1).from_indexed_dataset(images, chunksize=50)
    loader = Loader(
        str(pack),
        batch_size=50,
        num_workers=1,
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=False,
        pipelines={
            "image": [
                RandomResizedCropRGBImageDecoder((224, 224)),
                RandomHorizontalFlip(),
                NormalizeImage(MEAN, STD, numpy.float16),
                ToTensor(),
            ],
            "label": [IntDecoder(), ToTensor(), Squeeze()],
        },
    )
    for _ in loader:  # compiles
        pass
    print(pack.stat().st_size / len(images), flush=True)
    for _ in sys.stdin:
        begin = time.process_time()
        for _ in range(EPOCHS):
            for _ in loader:
                pass
        print(EPOCHS * len(images) / (time.process_time() - begin), flush=True)


main()
