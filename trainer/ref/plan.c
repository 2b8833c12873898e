/* SPDX-License-Identifier: Apache-2.0 */
/* Which blocks of memory may share a buffer. */
#include "trainer/ref/ref.h"

/* A free buffer: the smallest that is large enough, else the largest; -1 when none is free. */
static int choose(const size_t *buffer_size, const int *buffer, const struct plan_block *blocks,
                  int count, int buffers)
{
    int best = -1;
    size_t wanted = blocks[count].size;
    for (int b = 0; b < buffers; b++) {
        bool busy = false;
        for (int i = 0; i < count && !busy; i++)
            busy = buffer[i] == b && blocks[i].end >= blocks[count].begin &&
                   blocks[i].begin <= blocks[count].end;
        if (busy)
            continue;
        bool fits = buffer_size[b] >= wanted, best_fits = best >= 0 && buffer_size[best] >= wanted;
        if (best < 0 || (fits && !best_fits) ||
            (fits == best_fits && (buffer_size[b] < buffer_size[best]) == fits))
            best = b;
    }
    return best;
}

int plan_ref(int *buffer, size_t *buffer_size, const struct plan_block *blocks, int count)
{
    int buffers = 0;
    for (int i = 0; i < count; i++) {
        buffer[i] = -1;
        if (blocks[i].size == 0)
            continue;
        int b = choose(buffer_size, buffer, blocks, i, buffers);
        if (b < 0) {
            b = buffers++;
            buffer_size[b] = 0;
        }
        if (buffer_size[b] < blocks[i].size)
            buffer_size[b] = blocks[i].size;
        buffer[i] = b;
    }
    return buffers;
}
