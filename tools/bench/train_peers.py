# SPDX-License-Identifier: Apache-2.0
"""Training steps and inference on a CPU: PyTorch's and onnxruntime's beside Satchel's; prints a table.

Every contestant is a process of its own on the same synthetic shapes; medians of its steps, peak memory of the process. A step is
forward, loss, backward and NAG in float32; with :bf16 PyTorch's forward is under autocast to bfloat16; with :infer it is the forward
alone, batch normalisation folded. The small networks have 10 classes, the others 1,000. PyTorch is tried eager and compiled,
channels_last and contiguous, with and without jemalloc where that is installed, inference with onnxruntime as well: whichever is
best counts. Called by train_peers.sh.

    train_peers.py BUILD_FOLDER RESULTS [ROW...]     ROW: MODEL:SIZE:CHANNELS:BATCH:THREADS[:bf16|:infer] (default: the list below)
    train_peers.py --table RESULTS                   prints what is known
    train_peers.py --step MODEL SIZE CHANNELS BATCH THREADS KIND MODE FORMAT     one contestant, for itself

RESULTS is a file of one JSON object a line, one for each way that was measured beside Satchel, whose own rate stands in the same
object, measured right before and after: ways that are there already are left out, so that a table can be made in pieces. A row's
rate is that against the way that is fastest by it. Environment: SATCHEL_STEP_SECONDS, how long a contestant is timed, about;
SATCHEL_WAYS, words such as compile:channels_last or eager:contiguous:jemalloc: the ways that are tried (default: all).
"""
import datetime
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
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
    "resnet14d-w32:32:3:128:2",
    "resnet50b:224:3:1:2:infer",
    "resnet50b:224:3:32:2:infer",
    "resnet50b:224:3:32:2:bf16",
    "resnet18b:224:3:32:2:bf16",
    "resnet8d:28:1:128:2:bf16",
    "resnet14d-w32:32:3:128:2:bf16",
]
JEMALLOC = pathlib.Path("/usr/lib/x86_64-linux-gnu/libjemalloc.so.2")
STEPS_S = float(os.environ.get("SATCHEL_STEP_SECONDS", "8"))  # of timed steps, about
SMALL = (8, 14, 20, 26, 32, 44, 56)


def parse(row):
    model, size, channels, batch, threads, *kind = row.split(":")
    return model, int(size), int(channels), int(batch), int(threads), kind[0] if kind else "train"


def small_net(name, channels):
    """He et al. 2015 section 4.2, as Satchel's resnet{8,20,...}{b,d}[-wN]: three stages of N, 2 N, 4 N channels; N is 16."""
    from timm.models.resnet import BasicBlock
    from torch import nn

    name, _, width = name.partition("-w")
    tweak_d, width = name.endswith("d"), int(width or 16)

    def block(inputs, outputs, stride):
        down = None
        if stride > 1 or inputs != outputs:
            pool = [nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)] if tweak_d and stride > 1 else []
            convolution = nn.Conv2d(inputs, outputs, 1, 1 if tweak_d else stride, bias=False)
            down = nn.Sequential(*pool, convolution, nn.BatchNorm2d(outputs))
        return BasicBlock(inputs, outputs, stride, down)

    layers = [nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    inputs = width
    for outputs, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
        for index in range((depth_of(name) - 2) // 6):
            layers.append(block(inputs, outputs, stride if index == 0 else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10))


def depth_of(name):
    return int(name.partition("-")[0].removeprefix("resnet")[:-1])


def classes_of(name):
    return 10 if depth_of(name) in SMALL else 1000


def network(name, channels):
    import timm

    if depth_of(name) in SMALL:
        return small_net(name, channels)
    return timm.create_model(name[:-1] if name.endswith("b") else name, num_classes=1000, in_chans=channels)


def onnx_step(model, images, threads):
    import onnxruntime
    import torch

    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        torch.onnx.export(model, images, file.name, opset_version=17, input_names=["images"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = onnxruntime.InferenceSession(file.name, options, providers=["CPUExecutionProvider"])
    array = images.numpy()
    return lambda: session.run(None, {"images": array})


def torch_step(model, images, labels, kind, mode):
    import torch

    run = torch.compile(model) if mode == "compile" else model
    if kind == "infer":

        def infer():
            with torch.inference_mode():
                run(images)

        return infer
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=1e-4)

    def train():
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == "bf16"):
            logits = run(images)
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        optimiser.step()

    return train


def contestant(name, size, channels, batch, threads, kind, mode, layout):
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = network(name, channels)
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    model = model.train(kind != "infer").to(memory_format=memory_format)
    images = torch.randn(batch, channels, size, size).to(memory_format=memory_format)
    labels = torch.arange(batch) * 7919 % classes_of(name)
    step = onnx_step(model, images, threads) if mode == "onnx" else torch_step(model, images, labels, kind, mode)
    begin = time.time()
    step()  # compiles
    seconds = []
    while len(seconds) < 3 or (sum(seconds) < STEPS_S and len(seconds) < 300):
        start = time.time()
        step()
        seconds.append(time.time() - start)
        if time.time() - begin > 60 + 6 * STEPS_S:
            break
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    rate = batch / statistics.median(seconds[1:])  # the first one still allocates
    print(json.dumps({"images_per_second": rate, "peak_bytes": peak, "version": torch.__version__}))


def result_of(command, environment=None):
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    if process.returncode != 0:
        print(f"{' '.join(map(str, command))}: {process.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return json.loads(process.stdout.splitlines()[-1])


def satchel(build, row):
    model, size, channels, batch, threads, kind = parse(row)
    command = [build / "tools/satchel-bench-step", "--backend", "dnnl", "--model", model, "--size", size, "--channels", channels]
    command += ["--batch", batch, "--threads", threads, "--classes", classes_of(model), "--json", "--warmup", 1, "--steps"]
    tail = ["--infer"] if kind == "infer" else ["--precision", "bf16"] if kind == "bf16" else []
    first = result_of(list(map(str, command + [1] + tail)))
    if not first:
        return None
    steps = max(3, min(300, int(STEPS_S * 0.5e3 / first["step_ms"])))
    return result_of(list(map(str, command + [steps] + tail)))


def peer(row, way):
    mode, layout, *preload = way.split(":")
    model, size, channels, batch, threads, kind = parse(row)
    command = [sys.executable, __file__, "--step", model, size, channels, batch, threads, kind, mode, layout]
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads), TORCHINDUCTOR_FX_GRAPH_CACHE="1")
    environment["LD_PRELOAD"] = str(JEMALLOC) if preload else ""
    return result_of(list(map(str, command)), environment)


def ways_of(row, chosen=None):
    ways = [f"{mode}:{layout}" for mode in ("eager", "compile") for layout in ("channels_last", "contiguous")]
    if JEMALLOC.exists():
        ways += [way + ":jemalloc" for way in ways]
    if row.endswith(":infer"):
        ways.insert(0, "onnx:contiguous")
    return [way for way in ways if not chosen or way in chosen.split()]


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def rate_of(result):
    return result["satchel"]["images_per_second"] / result["peer"]["images_per_second"]


def table(path):
    results = read(path)
    print("| model, px, batch, threads | fastest peer | images/s | MiB | Satchel images/s | MiB | rate | memory | ways tried | date |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for row in ROWS + sorted({result["row"] for result in results} - set(ROWS)):
        model, size, _, batch, threads, kind = parse(row)
        name = f"{model}, {size}, {batch}, {threads}" + ("" if kind == "train" else f", {kind}")
        mine = [result for result in results if result["row"] == row]
        if not mine:
            print(f"| {name} | not measured | | | | | | | | |")
            continue
        best = min(mine, key=rate_of)
        rates = [best[who]["images_per_second"] for who in ("peer", "satchel")]
        peaks = [best[who]["peak_bytes"] / (1 << 20) for who in ("peer", "satchel")]
        print(
            f"| {name} | {best['way'].replace(':', ', ')} | {rates[0]:.2f} | {peaks[0]:.0f} | {rates[1]:.2f} | {peaks[1]:.0f} "
            f"| {rates[1] / rates[0]:.2f} | {peaks[1] / peaks[0]:.2f} | {len(mine)} of {len(ways_of(row))} | {best['date']} |"
        )


def measure(build, path, rows):
    for row in rows:
        known = {result["way"] for result in read(path) if result["row"] == row}
        for way in ways_of(row, os.environ.get("SATCHEL_WAYS")):
            if way in known:
                continue
            before, theirs = satchel(build, row), peer(row, way)
            after = satchel(build, row) if before and theirs else None
            if not after:
                continue
            ours = dict(before, images_per_second=(before["images_per_second"] + after["images_per_second"]) / 2)
            result = {"row": row, "way": way, "peer": theirs, "satchel": ours, "date": str(datetime.date.today())}
            with path.open("a") as file:
                file.write(json.dumps(result) + "\n")
            print(f"{row} {way}: {theirs['images_per_second']:.2f}, Satchel {ours['images_per_second']:.2f}", file=sys.stderr)


if sys.argv[1] == "--step":
    contestant(sys.argv[2], *map(int, sys.argv[3:7]), *sys.argv[7:10])
elif sys.argv[1] == "--table":
    table(pathlib.Path(sys.argv[2]))
else:
    measure(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3:] or ROWS)
    table(pathlib.Path(sys.argv[2]))
