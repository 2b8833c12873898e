# SPDX-License-Identifier: Apache-2.0
"""What a second stream for the teacher could gain at most: while the last blocks of a convolution run, processors stand idle, and
only those could do another stream's work, for a convolution that fills a chip leaves no others. Counted for a teacher ResNet-152-D
and the forward pass of a student ResNet-50-D, tiles of 128 x 128, two of them on a multiprocessor at a time, each convolution as
long as the larger of its bytes by the bandwidth and its operations by the chip's best.

    teacher_tails.py
"""
import math

CHIPS = {"H100": (132, 3.35e12, 800e12), "A100": (108, 2.04e12, 250e12)}  # multiprocessors, bytes/s, FLOP/s
STEP_OF_FORWARD = 3.2  # a student's whole step; performance.md, bytes of a step
NODE_SECONDS = 1.5e-6  # between two kernels of a CUDA graph


def convolutions(blocks, size=224):
    """Of a ResNet-D: input channels, output channels, kernel, side of the output."""
    side = size // 2
    yield from ((8, 32, 3, side), (32, 32, 3, side), (32, 64, 3, side))
    side //= 2
    channels = 64
    for stage, (count, width) in enumerate(zip(blocks, (64, 128, 256, 512))):
        for block in range(count):
            yield channels, width, 1, side
            side //= 2 if block == 0 and stage > 0 else 1
            yield width, width, 3, side
            yield width, 4 * width, 1, side
            if block == 0:
                yield channels, 4 * width, 1, side
            channels = 4 * width


def forward(blocks, batch, chip):
    """Seconds, those of them that the tails' idle processors are worth, and kernels."""
    processors, bandwidth, best = CHIPS[chip]
    seconds = idle = 0
    kernels = 0
    for before, after, kernel, side in convolutions(blocks):
        rows = batch * side * side
        bytes_moved = 2 * (rows * (before + after) + before * after * kernel * kernel)
        spent = max(bytes_moved / bandwidth, 2 * rows * after * before * kernel * kernel / best)
        waves = math.ceil(rows / 128) * math.ceil(after / 128) / (2 * processors)
        seconds += spent
        idle += spent * (1 - waves / math.ceil(waves))
        kernels += 1
    return seconds, idle, kernels


def main():
    print("chip  batch  teacher ms  its tails  student's tails  of a step, at most  with gaps between kernels")
    for chip in CHIPS:
        for batch in (64, 128, 256):
            teacher, idle, kernels = forward((3, 8, 36, 3), batch, chip)
            student, its_idle, its_kernels = forward((3, 4, 6, 3), batch, chip)
            step = teacher + STEP_OF_FORWARD * student
            window = min(1, student / teacher)  # the teacher's part that runs beside the student's forward
            gain = (window * idle + its_idle) / step
            gaps = (window * kernels + its_kernels) * NODE_SECONDS / step
            print(f"{chip}  {batch:5}  {1e3 * teacher:10.2f}  {idle / teacher:9.1%}  {its_idle / student:15.1%}"
                  f"  {gain:18.1%}  {gain + gaps:25.1%}")


main()
