#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Golden values of whole networks from timm and torchvision, in float64: logits, one training step, twenty
steps with and without micro-batches. Nothing here comes from Satchel but the formulas of the paper.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch torchvision timm safetensors
    /tmp/venv/bin/python tools/golden/network.py tests/golden/network

Written with torch 2.5.1, torchvision 0.20.1, timm 1.0.31."""
import math
import pathlib
import sys

import numpy as np
import timm
import torch
import torchvision
from safetensors.numpy import save_file

import draws

EPSILON = 0.1  # label smoothing
TRIES = 3  # of images, see steady_images
PEAK = 0.0003  # learning rate of the twenty steps: the losses fall, without leaps that would magnify rounding


def fill(model, steady=False, zero_gamma=False):
    """Draws every parameter and statistic by its name."""
    state = model.state_dict()
    last = "conv3" if any(".conv3." in name for name in state) else "conv2"
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        values = draws.parameter(name, tuple(tensor.shape), steady)
        if zero_gamma and name.startswith("layer") and name.endswith(last.replace("conv", "bn") + ".weight"):
            values[:] = 0
        tensor.copy_(torch.from_numpy(values))
    return model.double()


def images(name, count, size):
    nhwc = draws.pixels(name, (count, size, size, 3))
    return torch.from_numpy(nhwc.transpose(0, 3, 1, 2).astype(np.float64).copy())


def targets(name, count, classes):
    """Soft targets: smoothing by eps / (K - 1), then mixed."""
    a, b, lam = draws.labels(name, count, classes)
    smooth = torch.full((classes, classes), EPSILON / (classes - 1), dtype=torch.float64)
    smooth.fill_diagonal_(1 - EPSILON)
    lam = torch.from_numpy(lam)[:, None]
    return lam * smooth[a] + (1 - lam) * smooth[b]


def loss_of(model, x, q):
    return -(q * torch.log_softmax(model(x), dim=1)).sum(dim=1).mean()


def optimiser(model, lr):
    """NAG, no bias decay."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 1e-4}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)


def write_logits(folder):
    models = {name: timm.create_model(name) for name in ("resnet18d", "resnet50d", "resnet152d")}
    models["resnet50b"] = torchvision.models.resnet50()
    for name, model in models.items():
        fill(model).eval()
        with torch.no_grad():
            logits = model(images("pixels", 2, 224)).float().numpy()
        save_file({"logits": logits}, folder / f"logits-{name}.safetensors")
        print(name, "logits", logits.std())


def tips(model, x):
    """What every ReLU and max pool decides by: the sums' distance from 0, the windows' two largest values."""
    seen = []

    def at_relu(module, args):
        seen.append(args[0].detach().double().clone())

    def at_pool(module, args):
        windows = torch.nn.functional.unfold(args[0].detach().double(), 3, padding=1, stride=2)
        two = windows.reshape(args[0].shape[0], args[0].shape[1], 9, -1).topk(2, dim=2).values
        seen.append((two[:, :, 0] - two[:, :, 1])[two[:, :, 0] > 0])

    hooks = [m.register_forward_pre_hook(at_relu) for m in model.modules() if isinstance(m, torch.nn.ReLU)]
    hooks += [m.register_forward_pre_hook(at_pool) for m in model.modules() if isinstance(m, torch.nn.MaxPool2d)]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return seen


def steady_images(name, count, size):
    """The name of images on which no ReLU and no max pool tips over by float32's rounding: one that does
    changes a gradient by more than any sensible tolerance. How far the nearest is from tipping is told in
    units of its layer's largest rounding error."""
    best = (0.0, "")
    double, single = (fill(timm.create_model(name), True).to(kind).train() for kind in (torch.float64, torch.float32))
    for attempt in range(TRIES):
        pixels = f"pixels.{size}.{attempt}"
        x = images(pixels, count, size)
        exact, rounded = tips(double, x), tips(single, x.float())
        if any(a.shape != b.shape for a, b in zip(exact, rounded)):
            continue
        margin = min((a.abs().min() / (a - b).abs().max()).item() for a, b in zip(exact, rounded))
        best = max(best, (margin, pixels))
        if margin > 1.5:
            break
    print(name, "steady images:", best, flush=True)
    return best[1]


def write_step(folder, name, count, size):
    """One whole step: gradients, what the weights and the statistics moved by."""
    pixels = steady_images(name, count, size)
    model = fill(timm.create_model(name), True).train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    sgd = optimiser(model, 0.1)
    loss = loss_of(model, images(pixels, count, size), targets("labels", count, 1000))
    loss.backward()
    sgd.step()
    after = model.state_dict()
    names = [n for n, _ in model.named_parameters()]
    stats = [n for n in before if n.endswith(("running_mean", "running_var"))]
    gradients = {n: p.grad for n, p in model.named_parameters()}
    save_file(
        {
            "loss": np.array([loss.item()]),
            "gradients": np.stack([draws.sketch(n, gradients[n].numpy()) for n in names]),
            "moves": np.stack([draws.sketch(n, (after[n] - before[n]).numpy()) for n in names + stats]),
        },
        folder / f"step-{name}.safetensors",
        metadata={"names": "\n".join(names + stats), "pixels": pixels},
    )
    print(name, "step, loss", loss.item())


def learning_rate(step, peak, warmup, total):
    """Paper, sections 3.1 and 5.1."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return 0.5 * (1 + math.cos((step - warmup) * math.pi / (total - warmup))) * peak


def twenty_steps(kind, images_name, micro_batches):
    """resnet18d learns two batches of 16 by heart; statistics move once a step, by the micro-batches' mean.
    The losses, and the logits of four images in the end."""
    count, size, classes = 16, 32, 10
    model = fill(timm.create_model("resnet18d", num_classes=classes), steady=True, zero_gamma=True)
    model = model.to(kind).train()
    sgd = optimiser(model, 0.0)
    losses = []
    for step in range(20):
        for group in sgd.param_groups:
            group["lr"] = learning_rate(step, PEAK, 5, 20)
        x = images(f"{images_name}.{step % 2}", count, size).to(kind).chunk(micro_batches)
        q = targets(f"labels.{step % 2}", count, classes).to(kind).chunk(micro_batches)
        before = {n: t.clone() for n, t in model.named_buffers()}
        moved = {n: torch.zeros_like(t) for n, t in before.items()}
        sgd.zero_grad()
        total = 0.0
        for part in range(micro_batches):
            for n, t in model.named_buffers():
                t.copy_(before[n])
            loss = loss_of(model, x[part], q[part]) / micro_batches
            loss.backward()
            total += loss.item()
            for n, t in model.named_buffers():
                moved[n] += t
        for n, t in model.named_buffers():
            t.copy_(moved[n] / micro_batches)
        sgd.step()
        losses.append(total)
    model.eval()
    with torch.no_grad():
        logits = model(images(f"{images_name}.0", 4, size).to(kind)).float().numpy()
    return np.array(losses), logits


def write_twenty(folder):
    """On images with which PyTorch's own float32 stays near its float64."""
    for attempt in range(TRIES):
        name = f"twenty.{attempt}"
        exact = [twenty_steps(torch.float64, name, parts) for parts in (1, 2)]
        rounded = [twenty_steps(torch.float32, name, parts) for parts in (1, 2)]
        apart = max(np.abs(a[0] - b[0]).max() for a, b in zip(exact, rounded))
        print(name, "float32 is apart by", apart, "losses", exact[0][0][[0, -1]], flush=True)
        if apart < 2e-4:
            break
    save_file(
        {f"{what}.{parts}": exact[parts - 1][i] for parts in (1, 2) for i, what in enumerate(("losses", "logits"))},
        folder / "twenty-steps.safetensors",
        metadata={"pixels": name},
    )


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)  # timm's own initial values, which are overwritten
    if "--no-logits" not in sys.argv:
        write_logits(folder)
    write_step(folder, "resnet18d", 4, 64)
    write_step(folder, "resnet50d", 8, 64)
    write_twenty(folder)


if __name__ == "__main__":
    main()
