# SPDX-License-Identifier: Apache-2.0
"""docs/format.md is enough to read a store: clients/python's reader, which shares no code with the
programs, finds what was packed. Usage: test_store.py SOURCE_ROOT PACK INSPECT"""
import json
import os
import struct
import subprocess
import sys
import tempfile

root, pack, inspect = sys.argv[1:4]
sys.path.insert(0, os.path.join(root, "clients", "python"))
try:
    import lmdb  # noqa: F401
    import xxhash  # noqa: F401
except ImportError as error:
    print("skipped: %s (Debian: python3-lmdb, python3-xxhash)" % error)
    sys.exit(77)
from satchel_store import Store, StoreError

golden = os.path.join(root, "tests", "golden", "loader")
images = sorted(name for name in os.listdir(golden) if name.endswith((".jpg", ".png")))


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def read(path):
    with open(path, "rb") as file:
        return file.read()


def make_folders(folder):
    """Returns what ids must be: (class, bytes) by class and name."""
    expected = []
    for i, class_id in enumerate(["n02", "N1", "n10", "über"]):
        os.makedirs(os.path.join(folder, class_id))
        for name in images[i::4]:
            data = read(os.path.join(golden, name))
            with open(os.path.join(folder, class_id, name), "wb") as file:
                file.write(data)
            expected.append((class_id.encode(), name.encode(), data))
    return sorted(expected)


def check_jpegs(directory):
    folder, path = os.path.join(directory, "images"), os.path.join(directory, "a.lmdb")
    expected = make_folders(folder)
    run(pack, "--source", "folder", folder, "--out", path, "--split", "train", "--json")
    facts = run(inspect, path, "--json")
    with Store(path) as store:
        assert len(store) == len(expected) == facts["samples"]
        assert store.class_ids == facts["class_ids"]
        assert store.fingerprint == facts["fingerprint"] == store.compute_fingerprint()
        assert (store.split, store.encoding, store.channels) == ("train", "jpeg", 3)
        assert store.indexed == facts["indexed"] == sum(len(sample.index) > 0 for sample in store) > 0
        for sample, (class_id, _, data) in zip(store, expected):
            assert store.class_ids[sample.label].encode() == class_id
            assert sample.image == data
        assert [sum(s.label == c for s in store) for c in range(4)] == store.class_samples
        try:
            store[len(store)]
            raise AssertionError("a record too many")
        except IndexError:
            pass
    return path, expected


def check_damage(directory, path, expected):
    data = bytearray(read(path))
    at = data.find(expected[3][2])
    assert at > 0
    data[at + 5] ^= 4
    bad = os.path.join(directory, "bad.lmdb")
    with open(bad, "wb") as file:
        file.write(data)
    with Store(bad) as store:
        assert store[2].image == expected[2][2]
        try:
            store[3]
            raise AssertionError("damage is not noticed")
        except StoreError as error:
            assert "record 3" in str(error), error


def check_cut(directory, path):
    """Any length but the whole is refused before LMDB reads behind the end, which would end the process."""
    data = read(path)
    cut = os.path.join(directory, "cut.lmdb")
    for length in (0, 43, 44, 4096, len(data) // 2, len(data) - 4096, len(data) - 1):
        with open(cut, "wb") as file:
            file.write(data[:length])
        try:
            Store(cut)
            raise AssertionError("%d of %d bytes are taken" % (length, len(data)))
        except StoreError:
            pass


def check_raw(directory):
    """CIFAR's form: one label byte, then planes."""
    records = [(i * 7 % 10, bytes((i + j) & 255 for j in range(3072))) for i in range(20)]
    source, path = os.path.join(directory, "data_batch_1.bin"), os.path.join(directory, "c.lmdb")
    with open(source, "wb") as file:
        for label, pixels in records:
            file.write(struct.pack("B", label) + pixels)
    run(pack, "--source", "cifar", source, "--out", path, "--json")
    with Store(path) as store:
        assert store.encoding == "raw" and store.compute_fingerprint() == store.fingerprint
        assert [(s.label, s.image) for s in store] == sorted(records, key=lambda record: record[0])
        assert (store[0].width, store[0].height, store.channels) == (32, 32, 3)


with tempfile.TemporaryDirectory() as scratch:
    packed, wanted = check_jpegs(scratch)
    check_damage(scratch, packed, wanted)
    check_cut(scratch, packed)
    check_raw(scratch)
