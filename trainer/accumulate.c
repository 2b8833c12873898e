/* SPDX-License-Identifier: Apache-2.0 */
#include "trainer/accumulate.h"

/* sum(n) with its result in slot `base` uses slots base..base+slots-1. */
int accumulate_slots(int n)
{
    int slots = 1;
    for (; n > 1 && n % 2 == 0; n /= 2)
        slots++;
    return n > 1 ? slots + 1 : slots;
}

void accumulate_plan(struct accumulate_step *step, int i, int n)
{
    /* Down the tree to the odd node (a run of `odd` leaves) that holds leaf i. The left half of a
     * node leaves its sum in the node's own slot, the right half in the next one. */
    int odd = n, base = 0, at = i;
    while (odd % 2 == 0) {
        odd /= 2;
        if (at >= odd) {
            at -= odd;
            base++;
        }
    }
    step->slot = at > 0 ? base + 1 : base;
    step->adds = 0;
    if (at > 0) {
        step->add_dst[step->adds] = base;
        step->add_src[step->adds++] = base + 1;
    }
    if (at < odd - 1)
        return;
    /* Up again while this node is a right half: its parent is then complete. */
    for (int run = i / odd; run % 2 == 1; run /= 2, base--) {
        step->add_dst[step->adds] = base - 1;
        step->add_src[step->adds++] = base;
    }
}
