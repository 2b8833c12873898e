/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/bench_profile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"

enum { WORKS_MOST = 16 }; /* kinds of work of a node */

/* A row of a table: seconds of all steps, flops and bytes of one. */
struct row {
    char name[128];
    double seconds, flops, bytes;
};

struct table {
    struct row *rows;
    int count;
    double steps, step_s, peak_flops, peak_bytes;
};

static struct row *row_named(struct table *table, const char *name)
{
    for (int i = 0; i < table->count; i++)
        if (strcmp(table->rows[i].name, name) == 0)
            return &table->rows[i];
    struct row *row = &table->rows[table->count++];
    memset(row, 0, sizeof *row);
    snprintf(row->name, sizeof row->name, "%s", name);
    return row;
}

static void add(struct row *row, const struct profile_line *line)
{
    row->seconds += line->seconds;
    row->flops += line->flops;
    row->bytes += line->bytes;
}

/* By the name of its weights, or its kind. */
static void name_node(char name[128], const struct net *net, int index)
{
    static const char *const kinds[] = {"input",    "convolution",    "max pool",
                                        "avg pool", "global average", "classifier"};
    const struct node *node = &net->nodes[index];
    if (node->weight < 0)
        snprintf(name, 128, "%d %s", index, kinds[node->kind]);
    else
        snprintf(name, 128, "%d %s %dx%d, %d to %d, %d px", index, net->tensors[node->weight].name,
                 node->kernel, node->kernel, node->in_channels, node->out_channels,
                 node->out_height);
}

static int slower_first(const void *a, const void *b)
{
    const struct row *x = a, *y = b;
    return (x->seconds < y->seconds) - (x->seconds > y->seconds);
}

static void print_rate(double amount, double seconds, double peak)
{
    if (amount > 0 && peak > 0)
        printf(" %8.1f %4.0f %%", amount / seconds / 1e9, 100 * amount / seconds / peak);
    else
        printf(" %8s %6s", "", "");
}

static void print_table(struct table *table, const char *title)
{
    qsort(table->rows, (size_t)table->count, sizeof *table->rows, slower_first);
    printf("\n%-48s %9s %7s %8s %6s %8s %6s\n", title, "ms", "share", "GFLOP/s", "peak", "GB/s",
           "peak");
    for (int i = 0; i < table->count; i++) {
        const struct row *row = &table->rows[i];
        printf("%-48s %9.2f %5.1f %%", row->name, row->seconds / table->steps * 1e3,
               100 * row->seconds / table->step_s);
        print_rate(row->flops * table->steps, row->seconds, table->peak_flops);
        print_rate(row->bytes * table->steps, row->seconds, table->peak_bytes);
        printf("\n");
    }
}

static void add_update(struct table *table, const struct net *net, double update_s)
{
    struct row *row = row_named(table, "update");
    row->seconds = update_s;
    for (int i = 0; i < net->tensor_count;
         i++) /* gradient, momentum and weight; the last two back */
        if (net->tensors[i].trained)
            row->bytes += 5.0 * (double)net->tensors[i].count * sizeof(float);
}

static int print_all(struct table *table, const struct profile_line *lines, int count,
                     const struct net *net, const struct bench_profile_times *times)
{
    double known_s = times->update_s;
    for (int i = 0; i < count; i++) {
        add(row_named(table, lines[i].work), &lines[i]);
        known_s += lines[i].seconds;
    }
    add_update(table, net, times->update_s);
    row_named(table, "all else")->seconds = times->step_s - known_s;
    printf("\nAt best this machine does %.1f GFLOP/s (a matrix product) and %.1f GB/s (a copy).\n",
           table->peak_flops / 1e9, table->peak_bytes / 1e9);
    print_table(table, "kind of work");
    table->count = 0;
    for (int i = 0; i < count; i++) {
        char name[128];
        name_node(name, net, lines[i].node);
        add(row_named(table, name), &lines[i]);
    }
    print_table(table, "node, forward and backward");
    return 0;
}

int bench_profile_print(const struct backend_ops *ops, struct backend *backend,
                        const struct program *program, const struct net *net,
                        const struct bench_profile_times *times)
{
    if (!ops->profile_read || !ops->peaks)
        return err_set(ERR_UNSUPPORTED, "the %s backend has no profile", ops->name);
    int most = net->node_count * WORKS_MOST;
    struct table table = {.steps = times->steps, .step_s = times->step_s};
    struct profile_line *lines = malloc((size_t)most * sizeof *lines);
    table.rows = calloc((size_t)most + 2, sizeof *table.rows);
    int code = lines && table.rows ? ops->peaks(&table.peak_flops, &table.peak_bytes, backend)
                                   : err_set(ERR_NOMEM, "out of memory for a profile");
    if (!code)
        code = print_all(&table, lines, ops->profile_read(lines, most, program), net, times);
    free(lines);
    free(table.rows);
    return code;
}
