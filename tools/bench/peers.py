# SPDX-License-Identifier: Apache-2.0
"""Images per second and core of other loaders, and of Satchel, on the same files in one run.

Each contestant does RandomResizedCrop(224, 0.08..1), flip and normalisation, alone on one core; what it does more or less
is in its name. Rates are images per second of processor time of the whole process, medians of five passes that
take turns with the other contestants' passes. Called by peers.sh.

    peers.py IMAGES_FOLDER PACKS_FOLDER BUILD_FOLDER [FFCV_PYTHON]

PACKS_FOLDER: original.lmdb, long500.lmdb, short256.lmdb, and long500.beton is made there.
"""
import atexit
import io
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

PASSES = 5
MEAN, STD = (123.68, 116.779, 103.939), (58.393, 57.12, 57.375)


def process_rate(work, images):
    begin = time.process_time()
    work()
    return images / (time.process_time() - begin)


def torchvision_peers(folder):
    import torch
    from PIL import Image
    from torchvision import transforms as v1
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms import v2

    torch.set_num_threads(1)
    files = [path.read_bytes() for path in sorted(folder.glob("*/*"))]
    normalise = dict(mean=[m / 255 for m in MEAN], std=[s / 255 for s in STD])

    def first(jitter):
        steps = [v1.RandomResizedCrop(224), v1.RandomHorizontalFlip()]
        steps += [v1.ColorJitter(0.4, 0.4, 0.4, 0.1)] if jitter else []
        chain = v1.Compose(steps + [v1.ToTensor(), v1.Normalize(**normalise)])
        return lambda: [chain(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]

    def second(jitter):
        steps = [v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip()]
        steps += [v2.ColorJitter(0.4, 0.4, 0.4, 0.1)] if jitter else []
        chain = v2.Compose(steps + [v2.ToDtype(torch.float32, scale=True), v2.Normalize(**normalise)])
        buffers = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
        return lambda: [chain(decode_image(buffer, mode=ImageReadMode.RGB)) for buffer in buffers]

    for name, work in (
        ("torchvision on PIL, float32", first(False)),
        ("torchvision on PIL, float32, ColorJitter", first(True)),
        ("torchvision v2 on its own decoder, float32", second(False)),
        ("torchvision v2 on its own decoder, float32, ColorJitter", second(True)),
    ):
        yield name, lambda work=work: process_rate(work, len(files))


def dali_peers(folder):
    from nvidia.dali import fn, pipeline_def, types

    batch, batches = 50, 10

    @pipeline_def(batch_size=batch, num_threads=1, device_id=None, prefetch_queue_depth=1)
    def pipeline(kind, hsv):
        files, labels = fn.readers.file(file_root=str(folder), random_shuffle=True)
        images = fn.decoders.image_random_crop(
            files, device="cpu", output_type=types.RGB, random_area=[0.08, 1], random_aspect_ratio=[3 / 4, 4 / 3], num_attempts=10
        )
        images = fn.resize(images, size=[224, 224], interp_type=types.INTERP_TRIANGULAR, antialias=True)
        if hsv:
            images = fn.hsv(
                images,
                hue=fn.random.uniform(range=[-30.0, 30.0]),
                saturation=fn.random.uniform(range=[0.6, 1.4]),
                value=fn.random.uniform(range=[0.6, 1.4]),
            )
        images = fn.crop_mirror_normalize(
            images, dtype=kind, output_layout="HWC", mirror=fn.random.coin_flip(), mean=list(MEAN), std=list(STD)
        )
        return images, labels

    for name, kind, hsv in (
        ("DALI CPU, float32", types.FLOAT, False),
        ("DALI CPU, float16, hsv", types.FLOAT16, True),
    ):
        built = pipeline(kind, hsv)
        built.build()
        built.run()

        def work(built=built):
            for _ in range(batches):
                built.run()

        yield name, lambda work=work: process_rate(work, batch * batches)


def ffcv_peer(python, folder, packs):
    script = pathlib.Path(__file__).with_name("peers_ffcv.py")
    worker = subprocess.Popen(
        [python, script, folder, packs / "long500.beton"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(worker.kill)  # which does not always end by itself
    image_bytes = float(worker.stdout.readline())
    print(f"FFCV's pack: {image_bytes / 1e3:.1f} KB an image", file=sys.stderr)

    def rate():
        worker.stdin.write("\n")
        worker.stdin.flush()
        return float(worker.stdout.readline())

    return "FFCV, its pack of max side 500 q90, float16", rate


def libjpeg(folder, build):
    """libjpeg-turbo's decode to RGB and nothing else, over the same files."""

    def rate():
        command = [build / "tools/satchel-bench-decode", "--rounds", "1", "--only", "to RGB", *sorted(folder.glob("*/*"))]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return float(output.splitlines()[-1].split()[-2])

    return rate


def satchel(store, build, *options, isa=""):
    def rate():
        command = [build / "tools/satchel-bench-loader", store, "--threads", "1", "--seconds", "1", "--json", *options]
        environment = dict(os.environ, SATCHEL_ISA=isa)
        output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
        return json.loads(output.splitlines()[-1])["images_per_cpu_second"]

    return rate


def own(packs, build):
    plain, full = ("--augment", "crop"), ("--augment", "full", "--mixup-alpha", "0.2")
    original = packs / "original.lmdb"
    yield "Satchel, float16", satchel(original, build, *plain)
    yield "Satchel, float16, everything", satchel(original, build, *full)
    if "avx512_vbmi2" in pathlib.Path("/proc/cpuinfo").read_text():
        yield "Satchel held to AVX2, float16", satchel(original, build, *plain, isa="avx2")
        yield "Satchel held to AVX2, float16, everything", satchel(original, build, *full, isa="avx2")
    yield "Satchel, libjpeg-turbo decodes, float16", satchel(original, build, *plain, "--decoder", "reference")
    for pack, name in (("long500", "max side 500 q90"), ("short256", "short side 256 q90")):
        yield f"Satchel, pack of {name}, float16", satchel(packs / f"{pack}.lmdb", build, *plain)
        yield f"Satchel, pack of {name}, everything", satchel(packs / f"{pack}.lmdb", build, *full)


def main():
    folder, packs, build = (pathlib.Path(argument) for argument in sys.argv[1:4])
    ours = dict(own(packs, build))
    contestants = dict(torchvision_peers(folder))
    contestants.update(dali_peers(folder))
    if len(sys.argv) > 4:
        contestants.update([ffcv_peer(sys.argv[4], folder, packs)])
    contestants["libjpeg-turbo, decode to RGB and nothing else"] = libjpeg(folder, build)
    contestants.update(ours)
    rates = {name: [] for name in contestants}
    for _ in range(PASSES):
        for name, rate in contestants.items():
            rates[name].append(rate())
    plain, full = (statistics.median(rates[name]) for name in list(ours)[:2])
    print("| contestant | images/s/core | Satchel, float16 / it | Satchel, everything on / it |\n|---|---|---|---|")
    for name, values in sorted(rates.items(), key=lambda item: -statistics.median(item[1])):
        rate = statistics.median(values)
        print(f"| {name} | {rate:.0f} | {plain / rate:.2f} | {full / rate:.2f} |")


main()
