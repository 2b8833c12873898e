# SPDX-License-Identifier: Apache-2.0
"""Whole training steps on a CPU: PyTorch's beside Satchel's, in one run; prints a table.

Every contestant is a process of its own and runs forward, loss, backward and NAG on the same synthetic shapes in float32; medians
of its steps, peak memory of the process. PyTorch is tried eager and compiled, channels_last and contiguous, with and without
jemalloc where that is installed; its best counts. Called by train_peers.sh. Environment: SATCHEL_STEP_SECONDS, how long a contestant
is timed, about; SATCHEL_TORCH_WAYS, words such as compile:channels_last, the ways of PyTorch that are tried (default: all four).

    train_peers.py BUILD_FOLDER [ROW...]      ROW: MODEL:SIZE:CHANNELS:BATCH:THREADS (default: the list below)
    train_peers.py --step MODEL SIZE CHANNELS BATCH THREADS MODE FORMAT     one contestant, for itself
"""
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

ROWS = [
    "resnet50b:224:3:32:2",
    "resnet50b:224:3:32:1",
    "resnet18b:224:3:32:2",
    "resnet50d:224:3:32:2",
    "resnet152d:224:3:8:2",
    "resnet50b:224:3:1:2",
    "resnet50b:224:3:8:2",
    "resnet50b:224:3:64:2",
    "resnet8d:28:1:128:2",
    "resnet20b:32:3:128:2",
]
JEMALLOC = pathlib.Path("/usr/lib/x86_64-linux-gnu/libjemalloc.so.2")
WAYS = os.environ.get(
    "SATCHEL_TORCH_WAYS", "eager:channels_last compile:channels_last eager:contiguous compile:contiguous"
)
SMALL = (8, 14, 20, 26, 32, 44, 56)
STEPS_S = float(os.environ.get("SATCHEL_STEP_SECONDS", "12"))  # of timed steps, about


def small_net(name, channels):
    """He et al. 2015 section 4.2, as Satchel's resnet{8,20,...}{b,d}: three stages of 16, 32, 64 channels."""
    from timm.models.resnet import BasicBlock
    from torch import nn

    tweak_d = name.endswith("d")

    def block(inputs, outputs, stride):
        down = None
        if stride > 1 or inputs != outputs:
            pool = [nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)] if tweak_d and stride > 1 else []
            convolution = nn.Conv2d(inputs, outputs, 1, 1 if tweak_d else stride, bias=False)
            down = nn.Sequential(*pool, convolution, nn.BatchNorm2d(outputs))
        return BasicBlock(inputs, outputs, stride, down)

    layers = [nn.Conv2d(channels, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    inputs = 16
    for outputs, stride in ((16, 1), (32, 2), (64, 2)):
        for index in range((depth_of(name) - 2) // 6):
            layers.append(block(inputs, outputs, stride if index == 0 else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 1000))


def depth_of(name):
    return int(name.removeprefix("resnet")[:-1])


def torch_step(name, size, channels, batch, threads, mode, layout):
    import timm
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if depth_of(name) in SMALL:
        model = small_net(name, channels)
    else:
        model = timm.create_model(name[:-1] if name.endswith("b") else name, num_classes=1000, in_chans=channels)
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    model = model.train().to(memory_format=memory_format)
    images = torch.randn(batch, channels, size, size).to(memory_format=memory_format)
    labels = torch.arange(batch) * 7919 % 1000
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=1e-4)
    run = torch.compile(model) if mode == "compile" else model
    seconds, begin = [], time.time()
    while len(seconds) < 5 or (sum(seconds) < STEPS_S and len(seconds) < 200):
        start = time.time()
        optimiser.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(run(images), labels).backward()
        optimiser.step()
        seconds.append(time.time() - start)
        if time.time() - begin > 10 * STEPS_S:
            break
    seconds = seconds[2:]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"images_per_second": batch / statistics.median(seconds), "peak_bytes": peak, "torch": torch.__version__}))


def result_of(command, environment=None):
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    if process.returncode != 0:
        print(f"{' '.join(map(str, command))}: {process.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return json.loads(process.stdout.splitlines()[-1])


def torch_best(model, size, channels, batch, threads):
    best, best_name = None, ""
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
    preloads = ["", str(JEMALLOC)] if JEMALLOC.exists() else [""]
    for way in WAYS.split():
        mode, layout = way.split(":")
        for preload in preloads:
            command = [sys.executable, __file__, "--step", model, size, channels, batch, threads, mode, layout]
            result = result_of(list(map(str, command)), dict(environment, LD_PRELOAD=preload))
            name = f"{mode}, {layout}" + (", jemalloc" if preload else "")
            if result:
                print(f"{model} batch {batch}, {threads} threads: {name}: {result['images_per_second']:.2f}", file=sys.stderr)
            if result and (not best or result["images_per_second"] > best["images_per_second"]):
                best, best_name = result, name
    return best, best_name


def satchel(build, model, size, channels, batch, threads):
    command = [build / "tools/satchel-bench-step", "--backend", "dnnl", "--model", model, "--size", size, "--channels", channels]
    command += ["--batch", batch, "--threads", threads, "--json", "--steps"]
    first = result_of(list(map(str, command + [3])))
    steps = max(3, min(200, int(STEPS_S * 1e3 / first["step_ms"]))) if first else 3
    return result_of(list(map(str, command + [steps])))


def main():
    build, rows = pathlib.Path(sys.argv[1]), sys.argv[2:] or ROWS
    print("| model, px, batch, threads | PyTorch's best | images/s | MiB | Satchel images/s | MiB | rate | memory |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for row in rows:
        model, *numbers = row.split(":")
        size, channels, batch, threads = map(int, numbers)
        peer, how = torch_best(model, size, channels, batch, threads)
        ours = satchel(build, model, size, channels, batch, threads)
        if not peer or not ours:
            continue
        rates = [result["images_per_second"] for result in (peer, ours)]
        peaks = [result["peak_bytes"] / (1 << 20) for result in (peer, ours)]
        print(
            f"| {model}, {size}, {batch}, {threads} | {how} | {rates[0]:.2f} | {peaks[0]:.0f} | {rates[1]:.2f} | {peaks[1]:.0f} "
            f"| {rates[1] / rates[0]:.2f} | {peaks[1] / peaks[0]:.2f} |",
            flush=True,
        )


if sys.argv[1] == "--step":
    torch_step(sys.argv[2], *map(int, sys.argv[3:7]), *sys.argv[7:9])
else:
    main()
