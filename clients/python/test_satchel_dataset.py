# SPDX-License-Identifier: Apache-2.0
"""SatchelDataset against live loaders (tests/e2e/python.sh starts them): arguments are satchel.proto, the two
loaders' endpoints, the process id of the first, and the receipts that satchel-bench-feed pulled as WIRE:EPOCH:HEX."""
import os
import re
import signal
import sys
from types import SimpleNamespace

import numpy

from satchel_dataset import _Stream, MASKED, MESSAGES, SatchelDataset, SatchelError, Spec

SIZE, CHUNK, TOTAL, MICRO = 32, 4, 16, 8


def spec(wire="fp16", **fields):
    return Spec(size=SIZE, chunk_size=CHUNK, seed=3, mixup_alpha=0.2, wire=wire, **fields)


def dataset(loaders, of, **options):
    return SatchelDataset(loaders, of, total_batch=TOTAL, micro_batch=MICRO, timeout=60, torch=False, **options)


def check_messages(proto):
    """The table in the module says what proto/satchel.proto says."""
    text = re.sub(r"//.*", "", open(proto).read())
    for name, body in re.findall(r"message (\w+) \{((?:[^{}]|\{[^}]*\})*)\}", text):
        fields = re.findall(r"(repeated )?(\w+) (\w+) = (\d+);", body)
        said = " ".join("%s:%s:%s%s" % (key, number, kind, "*" if many else "") for many, kind, key, number in fields)
        assert said == MESSAGES.pop(name), (name, said)
    assert not MESSAGES, MESSAGES


def check_receipts(loaders, expected):
    for wire in ("fp16", "uint8"):
        data = dataset(loaders, spec(wire))
        for epoch in (0, 1):
            data.set_epoch(epoch)
            batches = list(data)
            assert len(batches) == len(data) == data.sample_count // TOTAL * TOTAL // MICRO
            assert data.receipt == expected[wire, epoch], (wire, epoch, data.receipt)
            for batch in batches:
                assert batch["pixels"].shape == (MICRO, SIZE, SIZE, 3)
                assert batch["pixels"].dtype == (numpy.float16 if wire == "fp16" else numpy.uint8)
                assert (batch["label_a"] < data.class_count).all() and ("offsets" in batch) == (wire == "uint8")
            assert any((batch["lam"] != 1).any() for batch in batches)


def check_ranks(loaders, expected):
    total = 0
    for rank in range(2):
        data = dataset(loaders, spec(), rank=rank, ranks=2)
        assert sum(len(batch["lam"]) for batch in data) == data.sample_count // TOTAL * TOTAL // 2
        total += int(data.receipt, 16)
    assert "%032x" % (total % (1 << 128)) == expected["fp16", 0]


def check_evaluation(loaders):
    data = dataset(loaders, Spec.evaluation(SIZE, store="train", chunk_size=CHUNK))
    batches = list(data)
    labels = numpy.concatenate([batch["label_a"] for batch in batches])
    assert len(labels) == data.sample_count and not any(batch["masked"].any() for batch in batches)
    assert MASKED not in labels and (numpy.diff(labels) >= 0).all()  # ids follow classes


def check_death(loaders, victim, expected):
    """The first loader is killed in mid epoch: the second gives the rest."""
    data = dataset(loaders, spec(), prefetch=4)
    data.set_epoch(1)
    for number, _ in enumerate(data):
        if number == 1:
            os.kill(victim, signal.SIGKILL)
    assert data.receipt == expected["fp16", 1], data.receipt


def check_content():
    """What a chunk may hold, without any loader."""
    stream = object.__new__(_Stream)
    stream.spec, stream.hash = Spec(size=2, chunk_size=2), b"hash"
    stream.dataset = SimpleNamespace(sample_count=2, class_count=10)
    chunk = SimpleNamespace(spec_hash=b"hash", epoch=0, chunk=0, samples=2)

    def why(label=9, lam=1.0, pixel=65504.0):
        words = numpy.zeros((2, 3), "<u4")
        words[1] = label, label, numpy.float32(lam).view("u4")
        pixels = numpy.zeros(2 * 2 * 2 * 3, "<f2")
        pixels[-1] = pixel
        frames = [SimpleNamespace(buffer=array.tobytes()) for array in (words, words, pixels)]
        return stream.check(chunk, frames, 0, 0)

    assert why() is None and why(lam=0) is None and why(pixel=-65504.0) is None
    assert "label" in why(label=10) and "label" in why(label=MASKED)
    for lam in (-0.5, 1.5, numpy.nan):
        assert "weight" in why(lam=lam), lam
    for pixel in (numpy.inf, -numpy.inf, numpy.nan):
        assert "finite" in why(pixel=pixel), pixel


def check_refusals(endpoint):
    for wrong in (spec(store="missing"), spec(channels=1, mean=(100.0,), std=(50.0,))):
        try:
            next(iter(dataset(endpoint, wrong)))
        except SatchelError as error:
            assert endpoint in str(error), error
        else:
            raise AssertionError("served a spec that fits no store")


def main():
    proto, first, second, victim = sys.argv[1:5]
    expected = {}
    for entry in sys.argv[5:]:
        wire, epoch, receipt = entry.split(":")
        expected[wire, int(epoch)] = receipt
    check_messages(proto)
    check_content()
    check_receipts(first, expected)
    check_receipts([first, second], expected)
    check_ranks([first, second], expected)
    check_evaluation(second)
    check_refusals(second)
    check_death([first, second], int(victim), expected)


main()
