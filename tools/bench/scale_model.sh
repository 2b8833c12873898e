#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A model of training ResNet-50-D on more than one node: where the all-reduce stops hiding behind the backward.
# Prints the tables of docs/performance.md. tools/bench/scale_model.sh takes its inputs from the environment:
#   RATE (3158)      images/s of one device, its own step alone
#   GRADIENT (102.3) MB of gradients and statistics, fp32
#   BUCKET (26.2)    MB of the last bucket, which nothing hides
#   LOCAL (200)      GB/s of all-reduce bandwidth within a node of 8 devices
#   LATENCY (15)     microseconds of a hop between nodes
set -eu
. "$(dirname "$0")/../explain.sh"
awk -v rate="${RATE:-3158}" -v grad="${GRADIENT:-102.3}" -v bucket="${BUCKET:-26.2}" -v loc="${LOCAL:-200}" \
    -v hop="${LATENCY:-15}" '
# Seconds to sum MB megabytes over n devices, 8 a node, with gbit/s out of each node: within the node, then between the
# nodes by a ring (2 (N-1)/N of the data, 2 (N-1) hops) or a tree (2 x the data, 2 log2 N hops), in pieces that overlap.
function reduce(mb, n, gbit, tree,    nodes, inner, outer) {
    nodes = n / 8
    inner = 2 * mb * 1e6 * 7 / 8 / (loc * 1e9)
    if (nodes <= 1)
        return inner
    if (tree)
        outer = 2 * mb * 1e6 * 8 / (gbit * 1e9) + 2 * log(nodes) / log(2) * hop * 1e-6
    else
        outer = 2 * (nodes - 1) / nodes * mb * 1e6 * 8 / (gbit * 1e9) + 2 * (nodes - 1) * hop * 1e-6
    return inner > outer ? inner : outer
}
# The backward is two thirds of a step; the last bucket comes when it is over.
function efficiency(n, batch, gbit, tree,    step, all, hidden) {
    step = batch / rate
    all = reduce(grad - bucket, n, gbit, tree)
    hidden = 2 / 3 * step
    return step / (step + (all > hidden ? all - hidden : 0) + reduce(bucket, n, gbit, tree))
}
function best(n, batch, gbit,    ring, tree) {
    ring = efficiency(n, batch, gbit, 0)
    tree = efficiency(n, batch, gbit, 1)
    return sprintf("%.2f %s", ring >= tree ? ring : tree, n == 8 ? "" : ring >= tree ? "ring" : "tree")
}
function table(title, fixed,    n, batch) {
    printf "\n%s\n\n| devices | batch of a device | 25 Gb/s | 100 Gb/s | 400 Gb/s |\n|---|---|---|---|---|\n", title
    for (n = 8; n <= 1024; n *= 2) {
        batch = fixed ? fixed / n : 128
        if (batch < 8)
            break
        printf "| %d | %d | %s | %s | %s |\n", n, batch, best(n, batch, 25), best(n, batch, 100), best(n, batch, 400)
    }
}
BEGIN {
    printf "%.0f images/s a device, %.1f MB of gradients\n", rate, grad
    table("Share of the devices'"'"' own rate, 128 images a device (the total batch grows)", 0)
    table("The same at a total batch of 1,024", 1024)
}'
