# SPDX-License-Identifier: Apache-2.0
"""Reads Satchel's stores (docs/format.md) without any of Satchel's own code.

    from satchel_store import Store
    with Store("train.lmdb") as store:
        print(len(store), store.class_ids, store.fingerprint)
        sample = store[0]              # label, width, height, encoding, image: bytes

Needs the package lmdb; with xxhash every checksum is verified, and Store.compute_fingerprint() works.
"""
import os
import struct
from collections import namedtuple

import lmdb

try:
    import xxhash
except ImportError:
    xxhash = None

Sample = namedtuple("Sample", "id label width height encoding channels image index")

_META_KEY = 0xFFFFFFFF
_HEADER = struct.Struct("<QQ4sIIHHBBHIII")
_PADDING = 64
_ENCODINGS = {1: "jpeg", 2: "raw"}


class StoreError(Exception):
    """The file is no store, or something in it is damaged."""


def _varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7


def _fields(data):
    """(field number, value) of a protobuf message: int, or bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
        elif kind == 1:
            value, at = int.from_bytes(data[at:at + 8], "little"), at + 8
        elif kind == 2:
            length, at = _varint(data, at)
            value, at = data[at:at + length], at + length
        else:
            raise StoreError("meta record: wire type %d" % kind)
        yield tag >> 3, value


def _packed(data):
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value


def _check(sum_bytes, data, what):
    if xxhash and struct.unpack("<Q", sum_bytes)[0] != xxhash.xxh3_64_intdigest(data):
        raise StoreError("%s: checksum does not match" % what)


def _check_head(path):
    """LMDB divides by the page size that it finds."""
    try:
        with open(path, "rb") as file:
            head = file.read(44)
    except OSError as error:
        raise StoreError("%s: %s" % (path, error.strerror)) from None
    magic, size = struct.unpack("<16xI20xI", head) if len(head) == 44 else (0, 0)
    if magic != 0xBEEFC0DE or not 512 <= size <= 32768 or size & (size - 1):
        raise StoreError("%s: not a store" % path)


class Store:
    def __init__(self, path):
        self.path = path
        if str(path).endswith(".partial"):
            raise StoreError("%s: packing did not finish" % path)
        _check_head(path)
        try:
            self._env = lmdb.open(path, subdir=False, readonly=True, lock=False)
        except lmdb.Error as error:
            raise StoreError("%s: %s" % (path, error)) from None
        if (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"] > os.path.getsize(path):
            self._env.close()
            raise StoreError("%s: truncated" % path)
        self._txn = self._env.begin(buffers=True)
        self._read_meta()

    def close(self):
        self._txn.abort()
        self._env.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _read_meta(self):
        record = self._txn.get(_META_KEY.to_bytes(4, "little"))
        if record is None or bytes(record[:8]) != b"SATCHEL\0":
            raise StoreError("%s: not a complete store" % self.path)
        data = bytes(record[16:])
        _check(record[8:16], data, "%s: meta record" % self.path)
        self.class_ids, self.class_names, self.class_samples = [], [], []
        numbers = {1: 0, 5: 0, 6: 0, 7: 0, 9: 0, 11: 0}
        texts = {2: b"", 8: b"", 10: b""}
        for field, value in _fields(data):
            if field == 3:
                self.class_ids.append(value.decode())
            elif field == 4:
                self.class_names.append(value.decode())
            elif field == 12:
                self.class_samples.extend(_packed(value) if isinstance(value, bytes) else [value])
            elif field in numbers:
                numbers[field] = value
            elif field in texts:
                texts[field] = value
        if numbers[1] != 1:
            raise StoreError("%s: format version %d" % (self.path, numbers[1]))
        self._count, self._tag = numbers[5], numbers[11]
        self.encoding = _ENCODINGS[numbers[6]]
        self.channels, self.indexed = numbers[7], numbers[9]
        self.split, self.packed_by = texts[2].decode(), texts[10].decode()
        self.fingerprint = texts[8][::-1].hex()

    def __len__(self):
        return self._count

    def __getitem__(self, sample_id):
        if not 0 <= sample_id < self._count:
            raise IndexError(sample_id)
        what = "%s: record %d" % (self.path, sample_id)
        record = self._txn.get(sample_id.to_bytes(4, "little"))
        if record is None or len(record) < _HEADER.size + _PADDING:
            raise StoreError("%s: not there" % what)
        (_, tag, magic, own_id, label, width, height, encoding, channels, flags, image_bytes, index_bytes,
         reserved) = _HEADER.unpack_from(record)
        _check(record[:8], record[8:], what)
        if (magic, tag, own_id) != (b"SMPL", self._tag, sample_id):
            raise StoreError("%s: another record in its place" % what)
        end = _HEADER.size + image_bytes
        if (len(record) != end + index_bytes + _PADDING or label >= len(self.class_ids) or flags or reserved
                or _ENCODINGS.get(encoding) != self.encoding or channels != self.channels):
            raise StoreError("%s: a header that cannot be" % what)
        return Sample(sample_id, label, width, height, self.encoding, channels, bytes(record[_HEADER.size:end]),
                      bytes(record[end:end + index_bytes]))

    def __iter__(self):
        return (self[i] for i in range(self._count))

    def compute_fingerprint(self):
        """The fingerprint of what is in the file, to compare with the one that it says."""
        whole = xxhash.xxh3_128()
        whole.update(struct.pack("<II", self._count, len(self.class_ids)))
        for class_id in self.class_ids:
            text = class_id.encode()
            whole.update(struct.pack("<I", len(text)) + text)
        for sample in self:
            code = 1 if sample.encoding == "jpeg" else 2
            whole.update(struct.pack("<IB", sample.label, code))
            whole.update(xxhash.xxh3_128_digest(sample.image)[::-1])
        return whole.hexdigest()
