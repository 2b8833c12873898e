#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""satchel-predict against timm's own evaluation (its transform, its model) on real images with the same weights,
and onnxruntime on the exported model against satchel-predict's logits.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install torch torchvision timm safetensors onnxruntime
    /tmp/venv/bin/python tools/golden/predict.py BUILD IMAGES... [--model resnet18d] [--interpolation bilinear]

No pretrained weights are needed: the network is drawn (draws.py), and its last layer is made a nearest-neighbour
classifier of the images' own features under timm's transform, so that every image is a class of its own and the
right answer is known. An image that one side prepares otherwise than the other becomes another's neighbour."""
import argparse
import pathlib
import shutil
import subprocess
import tempfile

import numpy as np
import onnxruntime
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import network


def prepared(paths, interpolation):
    transform = timm.data.create_transform(
        (3, 224, 224), interpolation=interpolation, crop_pct=0.875, mean=timm.data.IMAGENET_DEFAULT_MEAN,
        std=timm.data.IMAGENET_DEFAULT_STD,
    )
    return torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])


def classifier(model, x):
    """The last layer: cosine with each image's centred features, sharpened."""
    with torch.no_grad():
        features = torch.cat([model.forward_head(model.forward_features(part), pre_logits=True) for part in x.split(20)])
    centre = features.mean(dim=0)
    directions = torch.nn.functional.normalize(features - centre, dim=1)
    scale = 20 / (features - centre).norm(dim=1).mean()
    model.fc.weight.data = directions * scale
    model.fc.bias.data = -(directions * scale) @ centre
    return model


def same_pixels(tools, folder, images, weights, session, constants):
    """onnxruntime and satchel-predict on the very same pixels, those of a store's first chunk."""
    source, store = pathlib.Path(folder, "source", "any"), f"{folder}/store.lmdb"
    source.mkdir(parents=True)
    for i, image in enumerate(images):
        shutil.copy(image, source / f"{i}.jpg")
    subprocess.run([tools / "satchel-pack", "--source", "folder", source.parent, "--out", store], check=True)
    subprocess.run([tools / "satchel-preview", store, "--out", f"{folder}/p.npz", "--split", "val", *constants], check=True)
    subprocess.run([tools / "satchel-predict", weights, "--data", store, "--logits", f"{folder}/s.npy", *constants], check=True)
    pixels = np.load(f"{folder}/p.npz")["pixels"].astype(np.float32).transpose(0, 3, 1, 2)
    ours, theirs = np.load(f"{folder}/s.npy"), session.run(None, {"pixels": np.ascontiguousarray(pixels)})[0]
    print(f"onnxruntime against satchel-predict on {len(ours)} images: {np.linalg.norm(ours - theirs) / np.linalg.norm(ours):.1e} relative")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("images", nargs="+")
    parser.add_argument("--model", default="resnet18d")
    parser.add_argument("--interpolation", default="bilinear")
    arguments = parser.parse_args()
    x = prepared(arguments.images, arguments.interpolation)
    model = network.fill(timm.create_model(arguments.model, num_classes=len(arguments.images))).float().eval()
    model = classifier(model, x)
    with torch.no_grad():
        theirs = torch.cat([model(part) for part in x.split(20)]).numpy()
    constants = ["--mean", "123.675,116.28,103.53", "--std", "58.395,57.12,57.375", "--interpolation", arguments.interpolation]
    with tempfile.TemporaryDirectory() as folder:
        weights, logits, onnx = (f"{folder}/{name}" for name in ("w.safetensors", "l.npy", "m.onnx"))
        save_file(model.state_dict(), weights)
        tools = arguments.build / "tools"
        subprocess.run([tools / "satchel-predict", weights, *arguments.images, "--logits", logits, "--csv", f"{folder}/t.csv", *constants], check=True)
        subprocess.run([tools / "satchel-export", weights, "--onnx", onnx, *constants], check=True)
        ours = np.load(logits)
        session = onnxruntime.InferenceSession(onnx)
        same_pixels(tools, folder, arguments.images[:8], weights, session, constants)
    agreement = (ours.argmax(1) == theirs.argmax(1)).mean()
    right = (ours.argmax(1) == np.arange(len(ours))).mean()
    print(f"{arguments.model}, {arguments.interpolation}, {len(ours)} images: top-1 agreement {100 * agreement:.1f} % "
          f"(ours right {100 * right:.1f} %), mean abs logit difference {np.abs(ours - theirs).mean():.4f} "
          f"of logits with std {theirs.std():.3f}")


if __name__ == "__main__":
    main()
