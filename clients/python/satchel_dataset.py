# SPDX-License-Identifier: Apache-2.0
"""The stream of satchel-loader for PyTorch, timm or any other Python program.

    from satchel_dataset import SatchelDataset, Spec
    data = SatchelDataset("tcp://host-a:5555,tcp://host-b:5555", Spec(size=224, mixup_alpha=0.2), total_batch=256)
    for epoch in range(120):
        data.set_epoch(epoch)
        for batch in torch.utils.data.DataLoader(data, batch_size=None, num_workers=2):
            loss = criterion(net(batch["pixels"]), batch)   # label_a, label_b, lam: the weight of label_a

With torch it is an IterableDataset whose pixels are NCHW tensors (channels last in memory); without torch, or with
torch=False, a plain iterable of NumPy arrays in NHWC. Chunks, order and receipts are those of satchel-trainer with the
same spec: docs/protocol.md says what is sent, and this file follows it. Needs pyzmq, protobuf, numpy and xxhash.
"""
import collections
import dataclasses
import struct
import time

import numpy
import xxhash
import zmq
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from zmq.utils.monitor import recv_monitor_message

try:
    import torch as _torch
    from torch.utils.data import IterableDataset as _Base
    from torch.utils.data import get_worker_info as _worker_info
except ImportError:
    _torch = None
    _Base = object

PROTOCOL = 1
MASKED = 0xFFFFFFFF  # both labels of a damaged sample in evaluation
NEVER = 0xFFFFFFFF
CHUNK_LIMIT_BYTES = (32 << 20) + 4096
REASON_BUSY, REASON_DATA, REASON_INTERNAL = 2, 6, 8


class SatchelError(Exception):
    """No loader can serve what was asked for; the text names the loader and the reason."""


# ---- messages: proto/satchel.proto, as a table (a test compares the two) ----

MESSAGES = {
    "Envelope": "hello:1:Hello hello_reply:2:HelloReply spec_offer:3:SpecOffer request:4:Request chunk:5:Chunk "
                "refuse:6:Refuse need_spec:7:NeedSpec goodbye:8:Goodbye ping:9:Ping share:10:Share "
                "release:11:Release",
    "Hello": "protocol:1:uint32 run:2:string wanted:3:WantedStore*",
    "WantedStore": "name:1:string fingerprint:2:bytes",
    "HelloReply": "protocol:1:uint32 program:2:string credits:3:uint32 stores:4:Store* self_test:5:bytes "
                  "memory:6:Memory",
    "Memory": "descriptor:1:uint32",
    "Store": "name:1:string fingerprint:2:bytes sample_count:3:uint32 class_count:4:uint32 channels:5:uint32 classes:6:bytes",
    "SpecOffer": "spec:1:bytes",
    "Request": "spec_hash:1:bytes epoch:2:uint32 chunk:3:uint64 id:4:uint64 isolate:5:bool",
    "Chunk": "spec_hash:1:bytes epoch:2:uint32 chunk:3:uint64 id:4:uint64 samples:5:uint32 substituted:6:uint32 "
             "masked:7:uint32 culprits:8:Culprit* pixels:9:SharedPixels",
    "SharedPixels": "descriptor:1:uint32 serial:2:uint64 generation:3:uint64",
    "Culprit": "id:1:uint32 class_id:2:string",
    "Refuse": "reason:1:uint32 id:2:uint64 what:3:string",
    "NeedSpec": "spec_hash:1:bytes id:2:uint64",
    "Goodbye": "reason:1:string",
    "Ping": "",
    "Share": "token:1:bytes",
    "Release": "ids:1:uint64*",
}


def _envelope_class():
    field = descriptor_pb2.FieldDescriptorProto
    scalars = {"uint32": field.TYPE_UINT32, "uint64": field.TYPE_UINT64, "string": field.TYPE_STRING,
               "bytes": field.TYPE_BYTES, "bool": field.TYPE_BOOL}
    file = descriptor_pb2.FileDescriptorProto(name="satchel_dataset.proto", package="satchel", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        if name == "Envelope":
            message.oneof_decl.add(name="body")
        for entry in fields.split():
            key, number, kind = entry.split(":")
            label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
            kind = kind.rstrip("*")
            added = message.field.add(name=key, number=int(number), label=label)
            if kind in scalars:
                added.type = scalars[kind]
            else:
                added.type = field.TYPE_MESSAGE
                added.type_name = ".satchel." + kind
            if name == "Envelope":
                added.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file) if not hasattr(pool, "AddSerializedFile") else pool.AddSerializedFile(file.SerializeToString())
    descriptor = pool.FindMessageTypeByName("satchel.Envelope")
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(pool).GetPrototype(descriptor)  # before protobuf 4.22


Envelope = _envelope_class()


# ---- spec ----

@dataclasses.dataclass(frozen=True)
class Spec:
    """What shapes the stream; docs/protocol.md, "Spec", says what each field means. The defaults are the training
    stream of the paper's baseline; evaluation() gives that of a validation store."""
    store: str = "train"
    seed: int = 0
    size: int = 224
    channels: int = 3
    chunk_size: int = 8
    shuffled: bool = True
    damaged_masked: bool = False
    crop: str = "rrc"  # rrc | pad | none
    area: tuple = (0.08, 1.0)
    aspect: tuple = (0.75, 4 / 3)
    aspect_log: bool = False
    pad: int = 0
    resize_short: int = 0
    bicubic: bool = False
    flip: bool = True
    jitter: str = "hsv"  # none | hsv | bcs
    jitter_strength: tuple = (0.4, 0.4, 0.4)
    pca_sigma: float = 0.1
    mean: tuple = (123.68, 116.779, 103.939)
    std: tuple = (58.393, 57.12, 57.375)
    mixup_alpha: float = 0.0
    mixup_lam: str = "pair"  # pair | batch
    chunks_per_batch: int = 0
    mixup_off_epoch: int = NEVER
    wire: str = "fp16"  # fp16 | uint8

    @classmethod
    def evaluation(cls, size=224, resize_short=0, **fields):
        fields = {"store": "val", "shuffled": False, "damaged_masked": True, "crop": "none", "flip": False,
                  "jitter": "none", "pca_sigma": 0.0, **fields}
        return cls(size=size, resize_short=resize_short or round(256 * size / 224), **fields)

    def encode(self):
        """The canonical 160 bytes. What has no meaning beside the other fields is zero in them."""
        grey, rrc, mixes = self.channels == 1, self.crop == "rrc", self.mixup_alpha > 0
        jitter = 0 if grey else ("none", "hsv", "bcs").index(self.jitter)
        sigma = 0.0 if grey else self.pca_sigma
        drawn = self.shuffled or self.crop != "none" or self.flip or jitter or sigma or mixes
        per_batch = mixes and self.mixup_lam == "batch"

        def channel_values(values):
            return tuple(values[:1]) + (0.0, 0.0) if grey else tuple(values)

        return struct.pack(
            "<4sHBBQ16sBBBBBBBBHHHHIIIff ff fff f fff fff f 40x",
            b"SPEC", 1, self.shuffled, self.damaged_masked, self.seed if drawn else 0, self.store.encode(),
            self.channels, ("none", "rrc", "pad").index(self.crop), self.aspect_log if rrc else 0, self.bicubic,
            self.flip, jitter, per_batch, ("fp16", "uint8").index(self.wire),
            self.size, 0 if rrc else self.resize_short or self.size, self.pad if self.crop == "pad" else 0, 0,
            self.chunk_size, self.chunks_per_batch if per_batch else 0, self.mixup_off_epoch if mixes else 0,
            *(self.area if rrc else (0.0, 0.0)), *(self.aspect if rrc else (0.0, 0.0)),
            *(self.jitter_strength if jitter else (0.0, 0.0, 0.0)), sigma,
            *channel_values(self.mean), *channel_values(self.std), self.mixup_alpha)

    def hash(self):
        return _hash(self.encode()).to_bytes(16, "little")

    @property
    def label_bytes(self):
        return 24 if self.wire == "uint8" else 12

    @property
    def sample_bytes(self):
        return self.size * self.size * self.channels * (1 if self.wire == "uint8" else 2)


def _hash(*parts):
    state = xxhash.xxh3_128()
    for part in parts:
        state.update(part)
    return state.intdigest()


# ---- one loader ----

class _Peer:
    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.sock = self.monitor = None
        self.retry_at = 0.0
        self.refused = None  # why it is never used again
        self.reset()

    def reset(self):
        self.ready = self.leaving = self.challenged = self.passed = False
        self.credits, self.window, self.service = 0, 2, 0.0
        self.requests = {}  # id -> [chunk, asked at, overdue]
        self.answered = 0.0

    def open(self, context, keys):
        self.reset()
        self.sock = context.socket(zmq.DEALER)
        for option, value in ((zmq.LINGER, 0), (zmq.IMMEDIATE, 1), (zmq.HEARTBEAT_IVL, 1000),
                              (zmq.HEARTBEAT_TIMEOUT, 10000), (zmq.HEARTBEAT_TTL, 10000), (zmq.HANDSHAKE_IVL, 2000),
                              (zmq.CONNECT_TIMEOUT, 2000), (zmq.RECONNECT_IVL, 100), (zmq.RECONNECT_IVL_MAX, 1000),
                              (zmq.MAXMSGSIZE, CHUNK_LIMIT_BYTES), (zmq.RCVHWM, 64),
                              (zmq.IPV6, int("[" in self.endpoint))):
            self.sock.setsockopt(option, value)
        if keys:
            self.sock.curve_serverkey, self.sock.curve_publickey, self.sock.curve_secretkey = keys
        self.monitor = self.sock.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        self.sock.connect(self.endpoint)

    def close(self):
        if self.sock:
            self.sock.disable_monitor()
            self.monitor.close(0)
            self.sock.close(0)
        self.sock = self.monitor = None
        self.ready = False

    def send(self, **body):
        try:
            self.sock.send(Envelope(**body).SerializeToString(), zmq.DONTWAIT)
            return True
        except zmq.Again:
            return False

    def measure(self, asked):
        now = time.monotonic()
        took = now - max(asked, self.answered)
        self.service = took if self.service == 0 else self.service + (took - self.service) / 8
        self.answered = now
        aim = 0.5 / max(self.service, 1e-6)  # half a second of work lies in its queue
        self.window = min(self.window + 1, max(1, min(int(aim) + 1, self.credits)))

    def deadline(self):
        return max(3.0, 4 * self.service * len(self.requests))


# ---- the stream ----

class _Stream:
    """Fetches a list of chunks from a pool of loaders and hands them out in order; each once, whoever dies."""

    def __init__(self, dataset, epoch, chunks):
        self.dataset, self.spec, self.epoch = dataset, dataset.spec, epoch
        self.offer, self.hash = self.spec.encode(), self.spec.hash()
        self.todo = collections.deque(chunks)
        self.wanted = collections.deque()  # chunks to ask for, first ones first
        self.done = {}  # chunk -> arrays
        self.alive = collections.Counter()  # chunk -> requests that may still be answered
        self.next_id = 0
        self.context = zmq.Context()
        self.peers = [_Peer(endpoint) for endpoint in dataset.endpoints]
        self.poller = zmq.Poller()
        self.progress_at = time.monotonic()

    def close(self):
        for peer in self.peers:
            if peer.sock and peer.ready:
                peer.send(goodbye={})
            self.lose(peer, 0)
        self.context.term()

    # -- connections --

    def lose(self, peer, wait):
        if peer.sock:
            self.poller.unregister(peer.sock)
            self.poller.unregister(peer.monitor)
        for chunk, _, overdue in peer.requests.values():
            if chunk is not None:
                self.alive[chunk] -= 1
                if self.alive[chunk] == 0 and chunk not in self.done and chunk not in self.wanted:
                    self.wanted.appendleft(chunk)
        peer.close()
        peer.reset()
        peer.retry_at = time.monotonic() + wait

    def refuse(self, peer, why):
        self.lose(peer, 0)
        peer.refused = why
        if all(other.refused for other in self.peers):
            raise SatchelError("no loader is left that may be used; the last: %s: %s" % (peer.endpoint, why))

    def open_peers(self):
        for peer in self.peers:
            if peer.sock or peer.refused or time.monotonic() < peer.retry_at:
                continue
            peer.open(self.context, self.dataset.keys)
            self.poller.register(peer.sock, zmq.POLLIN)
            self.poller.register(peer.monitor, zmq.POLLIN)

    def on_event(self, peer):
        event = recv_monitor_message(peer.monitor, zmq.DONTWAIT)["event"]
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            peer.send(hello={"protocol": PROTOCOL, "run": self.dataset.run[:60],
                             "wanted": [{"name": self.spec.store}]})
        else:
            self.lose(peer, 0.1)

    # -- asking --

    def ask(self, peer, chunk, epoch):
        self.next_id += 1
        if not peer.challenged and not peer.send(spec_offer={"spec": self.offer}):
            return False
        if not peer.send(request={"spec_hash": self.hash, "epoch": epoch, "chunk": chunk or 0, "id": self.next_id}):
            return False
        peer.requests[self.next_id] = [chunk, time.monotonic(), False]
        return True

    def ask_all(self):
        while self.todo and len(self.done) + len(self.wanted) + len(+self.alive) < self.dataset.prefetch:
            self.wanted.append(self.todo.popleft())
        for peer in sorted(self.peers, key=lambda peer: (len(peer.requests) + 1) * peer.service):
            if peer.ready and not peer.leaving and not peer.challenged and self.ask(peer, None, 0):
                peer.challenged = True  # chunk 0 of epoch 0 comes first; nothing else before its answer is right
            while peer.passed and not peer.leaving and len(peer.requests) < min(peer.window, peer.credits):
                held = {request[0] for request in peer.requests.values()}
                chunk = next((chunk for chunk in self.wanted if chunk not in held), None)
                if chunk is None or not self.ask(peer, chunk, self.epoch):
                    break
                self.wanted.remove(chunk)
                self.alive[chunk] += 1

    def check_deadlines(self):
        now = time.monotonic()
        for peer in self.peers:
            limit = peer.deadline()
            for request in list(peer.requests.values()):
                chunk, asked, overdue = request
                if now - asked > max(30.0, 10 * limit):
                    self.lose(peer, 0.1)
                    break
                if now - asked > limit and not overdue:
                    request[2] = True
                    peer.window = 1
                    if chunk is not None and chunk not in self.done and self.alive[chunk] == 1:
                        self.wanted.appendleft(chunk)
        if self.dataset.timeout and now - self.progress_at > self.dataset.timeout:
            raise SatchelError("no chunk came for %g s from %s" % (self.dataset.timeout,
                                                                  ",".join(self.dataset.endpoints)))

    # -- answers --

    def on_message(self, peer):
        frames = peer.sock.recv_multipart(zmq.DONTWAIT, copy=False)
        envelope = Envelope()
        try:
            envelope.ParseFromString(frames[0].bytes)
        except Exception:
            return self.refuse(peer, "not an envelope of this protocol")
        kind = envelope.WhichOneof("body")
        if kind == "hello_reply":
            self.on_hello_reply(peer, envelope.hello_reply)
        elif kind == "chunk":
            self.on_chunk(peer, envelope.chunk, frames)
        elif kind == "need_spec":
            self.on_need_spec(peer, envelope.need_spec)
        elif kind == "refuse":
            self.on_refuse(peer, envelope.refuse)
        elif kind == "goodbye":
            peer.leaving = True
        elif kind != "ping":
            self.refuse(peer, "a message that only trainers send")

    def on_hello_reply(self, peer, reply):
        store = next((store for store in reply.stores if store.name == self.spec.store), None)
        if reply.protocol != PROTOCOL:
            return self.refuse(peer, "it speaks protocol %d, not %d" % (reply.protocol, PROTOCOL))
        if store is None:
            return self.refuse(peer, "it has no store %s" % self.spec.store)
        facts = (store.fingerprint, store.sample_count, store.class_count, store.channels, store.classes,
                 reply.self_test)
        if self.dataset.facts is None:
            self.dataset.facts = facts
        elif facts != self.dataset.facts:
            return self.refuse(peer, "its store %s, or what its decoders make, is not that of the first loader"
                               % self.spec.store)
        if store.channels != self.spec.channels:
            return self.refuse(peer, "store %s has %d channels, the spec wants %d"
                               % (store.name, store.channels, self.spec.channels))
        peer.credits, peer.ready = max(1, min(reply.credits, 1024)), True

    def on_need_spec(self, peer, need):
        if need.id not in peer.requests:
            return self.refuse(peer, "it wants the spec of a request that was not made")
        chunk = peer.requests[need.id][0]
        peer.send(spec_offer={"spec": self.offer})
        peer.send(request={"spec_hash": self.hash, "epoch": 0 if chunk is None else self.epoch, "chunk": chunk or 0,
                           "id": need.id})

    def on_refuse(self, peer, refusal):
        if refusal.id and refusal.reason == REASON_DATA:
            raise SatchelError("loader %s cannot make a chunk: %s" % (peer.endpoint, refusal.what))
        if refusal.reason in (REASON_BUSY, REASON_INTERNAL):
            return self.lose(peer, 1.0)
        self.refuse(peer, "refused: %s" % refusal.what)

    def on_chunk(self, peer, chunk, frames):
        request = peer.requests.pop(chunk.id, None)
        if request is None:
            return self.refuse(peer, "it sent a chunk that was not asked for")
        index = request[0]
        peer.measure(request[1])
        why = self.check(chunk, frames, 0 if index is None else self.epoch, index or 0)
        if why:
            if index is not None:
                peer.requests[chunk.id] = request
            return self.refuse(peer, why)
        digest = _hash(struct.pack("<IQ", chunk.epoch, chunk.chunk), self.hash, frames[1].buffer, frames[2].buffer)
        if index is None:
            if self.dataset.challenge is None:
                self.dataset.challenge = digest
            if digest != self.dataset.challenge:
                return self.refuse(peer, "it makes other bytes than the first loader")
            peer.passed = True
            return None
        self.alive[index] -= 1
        if index in self.done or index < self.first_open:
            self.dataset.duplicates += 1
            return None
        if index in self.wanted:
            self.wanted.remove(index)
        self.done[index] = (self.arrays(chunk, frames), digest)
        self.progress_at = time.monotonic()
        return None

    def check(self, chunk, frames, epoch, index):
        """Why the message is not the chunk that was asked for; None when it is."""
        count = self.dataset.sample_count
        samples = min(self.spec.chunk_size, count - index * self.spec.chunk_size)
        if len(frames) != 3:
            return "a chunk of %d frames, not 3" % len(frames)
        if (chunk.spec_hash, chunk.epoch, chunk.chunk) != (self.hash, epoch, index):
            return "it answered another request than the one it names"
        if chunk.samples != samples or len(frames[1].buffer) != samples * self.spec.label_bytes or \
                len(frames[2].buffer) != samples * self.spec.sample_bytes:
            return "a chunk of the wrong size"
        words = numpy.frombuffer(frames[1].buffer, "<u4").reshape(samples, -1)
        labels, lam = words[:, :2], words[:, 2].view("<f4")
        good = (labels < self.dataset.class_count) | (labels == MASKED if self.spec.damaged_masked else False)
        if not good.all():
            return "a label of no class"
        if not ((lam >= 0) & (lam <= 1)).all():
            return "a mixing weight that is not within 0 to 1"
        if self.spec.wire == "fp16" and (numpy.frombuffer(frames[2].buffer, "<u2") & 0x7fff).max() >= 0x7c00:
            return "pixels that are not finite"
        if self.spec.wire == "uint8" and not numpy.isfinite(words[:, 3:6].view("<f4")).all():
            return "offsets that are not finite"
        return None

    def arrays(self, chunk, frames):
        spec, samples = self.spec, chunk.samples
        words = numpy.frombuffer(frames[1].buffer, "<u4").reshape(samples, -1)
        shape = (samples, spec.size, spec.size, spec.channels)
        batch = {"pixels": numpy.frombuffer(frames[2].buffer, "<f2" if spec.wire == "fp16" else "u1").reshape(shape),
                 "label_a": words[:, 0].astype("i8"), "label_b": words[:, 1].astype("i8"),
                 "lam": words[:, 2].view("<f4").copy()}
        if spec.wire == "uint8":
            batch["offsets"] = numpy.ascontiguousarray(words[:, 3:6]).view("<f4")
        if spec.damaged_masked:
            batch["masked"] = words[:, 0] == MASKED
        return batch

    # -- the caller's side --

    first_open = 0  # chunks below it were handed out

    def take(self, index):
        while index not in self.done:
            self.open_peers()
            self.ask_all()
            ready = dict(self.poller.poll(100))
            for peer in self.peers:
                if peer.sock in ready:
                    for _ in range(32):
                        try:
                            self.on_message(peer)
                        except zmq.Again:
                            break
                        if not peer.sock:
                            break
                if peer.monitor in ready:
                    self.on_event(peer)
            self.check_deadlines()
        self.first_open = index + 1
        return self.done.pop(index)


class SatchelDataset(_Base):
    """Micro-batches of the stream, as dictionaries: pixels, label_a, label_b, lam; with the uint8 wire also offsets
    (PCA, per sample and channel), in evaluation also masked.

    loaders: endpoints, a list or "a,b". epoch: set_epoch() before each pass. total_batch: of a step over all ranks; an
    epoch has floor(N / total_batch) steps in training, all samples in evaluation. micro_batch: samples handed out at a
    time. rank, ranks: this process's share of each step. prefetch: chunks asked for ahead. timeout: seconds without a
    chunk that end the wait (0: never). keys: (server's public, own public, own secret key) for CURVE.
    After a pass, receipt is that of what this process was given: 32 hexadecimal digits, summed over ranks modulo 2^128
    the receipt of the epoch. One DataLoader worker or none gives it; several each have their own part.
    """

    def __init__(self, loaders, spec, total_batch=256, micro_batch=32, rank=0, ranks=1, epoch=0, prefetch=64, timeout=300,
                 keys=None, run="python", torch=True):
        super().__init__()
        self.endpoints = loaders.split(",") if isinstance(loaders, str) else list(loaders)
        if total_batch % (ranks * micro_batch) or micro_batch % spec.chunk_size:
            raise ValueError("total_batch must be divisible by ranks x micro_batch, micro_batch by chunk_size")
        self.spec, self.total_batch, self.micro_batch = spec, total_batch, micro_batch
        self.rank, self.ranks, self.epoch, self.prefetch = rank, ranks, epoch, max(prefetch, micro_batch // spec.chunk_size)
        self.timeout, self.keys, self.run = timeout, keys, run
        self.torch = torch and _torch is not None
        self.facts = self.challenge = None
        self.receipt, self.duplicates = "0" * 32, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    @property
    def sample_count(self):
        return self.facts[1]

    @property
    def class_count(self):
        return self.facts[2]

    def _plan(self):
        """The micro-batches of this rank: lists of chunks."""
        size, chunks = self.spec.chunk_size, self.micro_batch // self.spec.chunk_size
        if self.spec.shuffled:
            step = self.total_batch // size
            share = step // self.ranks
            first = [n * step + self.rank * share + m for n in range(self.sample_count // self.total_batch)
                     for m in range(0, share, chunks)]
            return [list(range(at, at + chunks)) for at in first]
        total = -(-self.sample_count // size)
        starts = range(self.rank * chunks, total, self.ranks * chunks)
        return [list(range(at, min(at + chunks, total))) for at in starts]

    def _learn_facts(self):
        stream = _Stream(self, 0, [])
        try:
            while self.facts is None:
                stream.open_peers()
                ready = dict(stream.poller.poll(100))
                for peer in stream.peers:
                    if peer.sock in ready:
                        stream.on_message(peer)
                    if peer.monitor in ready:
                        stream.on_event(peer)
                stream.check_deadlines()
        finally:
            stream.close()

    def __len__(self):
        if self.facts is None:
            self._learn_facts()
        return len(self._plan())

    def __iter__(self):
        if self.facts is None:
            self._learn_facts()
        worker = _worker_info() if self.torch else None
        plan = self._plan()[worker.id::worker.num_workers] if worker else self._plan()
        stream = _Stream(self, self.epoch, [chunk for batch in plan for chunk in batch])
        receipt = 0
        try:
            for batch in plan:
                parts = []
                for chunk in batch:
                    arrays, digest = stream.take(chunk)
                    parts.append(arrays)
                    receipt = (receipt + digest) % (1 << 128)
                self.receipt = "%032x" % receipt
                yield self._join(parts)
        finally:
            stream.close()

    def _join(self, parts):
        joined = {key: numpy.concatenate([part[key] for part in parts]) for key in parts[0]}
        if not self.torch:
            return joined
        joined = {key: _torch.from_numpy(value) for key, value in joined.items()}
        joined["pixels"] = joined["pixels"].permute(0, 3, 1, 2)
        return joined
