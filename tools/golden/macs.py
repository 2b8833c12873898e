#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Multiply-accumulates of convolutions and FC for one image of 224 px, counted from the shapes that torchvision's and
timm's networks produce; tests/unit/trainer/net_test.c holds them. Variant A is torchvision's with the strides of a
block's first two convolutions exchanged.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch torchvision timm
    /tmp/venv/bin/python tools/golden/macs.py"""

import timm
import torch
import torchvision


def count(model):
    total = 0

    def hook(layer, _, output):
        nonlocal total
        if isinstance(layer, torch.nn.Conv2d):
            total += output.shape[1] * output.shape[2] * output.shape[3] * layer.weight[0].numel()
        elif isinstance(layer, torch.nn.Linear):
            total += layer.weight.numel()

    for layer in model.modules():
        layer.register_forward_hook(hook)
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, 224, 224, device="meta"))
    return total


def variant_a():
    model = torchvision.models.resnet50()
    for block in model.modules():
        if isinstance(block, torchvision.models.resnet.Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    return model


with torch.device("meta"):
    print("resnet50a", count(variant_a()))
    print("resnet50b", count(torchvision.models.resnet50()))
    for name in ("resnet50c", "resnet50d", "resnet18d", "resnet152d"):
        print(name, count(timm.create_model(name)))
