# SPDX-License-Identifier: Apache-2.0
"""PyTorch's training step for comparison: timm's model, channels_last, autocast to fp16 with GradScaler, torch.compile, SGD with
Nesterov momentum, on synthetic data. Called by tools/gpu_check.sh.

    torch_step.py MODEL BATCH [STEPS]
"""
import json
import statistics
import sys
import time

import timm
import torch


def main():
    model_name, batch = sys.argv[1], int(sys.argv[2])
    steps = int(sys.argv[3]) if len(sys.argv) > 3 else 20
    torch.backends.cudnn.benchmark = True
    model = timm.create_model(model_name).cuda().to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, nesterov=True, weight_decay=1e-4)
    scaler = torch.amp.GradScaler("cuda")
    forward = torch.compile(model)
    images = torch.randn(batch, 3, 224, 224, device="cuda").to(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (batch,), device="cuda")

    def step():
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cuda", dtype=torch.float16):
            loss = torch.nn.functional.cross_entropy(forward(images), labels)
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        torch.cuda.synchronize()

    for _ in range(5):
        step()
    seconds = []
    for _ in range(steps):
        begin = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begin)
    median = statistics.median(seconds)
    print(json.dumps({"images_per_second": batch / median, "step_ms": 1e3 * median}))


main()
