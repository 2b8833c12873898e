/* SPDX-License-Identifier: Apache-2.0 */
#include "trainer/fusion.h"

struct readers { /* of a node's output */
    int convs, residuals, others;
    int last;
};

static struct readers readers_of(const struct net *net, int index)
{
    struct readers readers = {.last = -1};
    for (int i = index + 1; i < net->node_count; i++) {
        const struct node *node = &net->nodes[i];
        if (node->residual == index) {
            readers.residuals++;
            readers.last = i;
        }
        if (node->input != index)
            continue;
        if (node->kind == NODE_CONV && !net_bn_frozen(net, node))
            readers.convs++;
        else
            readers.others++;
        readers.last = i;
    }
    return readers;
}

static enum fusion_form form_of(const struct net *net, int index)
{
    const struct node *node = &net->nodes[index];
    const struct readers readers = readers_of(net, index);
    if (node->residual >= 0 || readers.others)
        return FORM_STORED;
    if (!node->relu) {
        bool once = readers.residuals == 1 && !readers.convs;
        return once && !net_bn_frozen(net, &net->nodes[readers.last]) ? FORM_SHORTCUT : FORM_STORED;
    }
    if (readers.residuals)
        return FORM_STORED;
    return readers.convs ? FORM_PROLOGUE : FORM_STORED;
}

/* A block's end in front of a 1x1 convolution. */
static bool ends_in_reader(const struct net *net, int index)
{
    int reader = fusion_first_reader(net, index);
    const struct node *node = &net->nodes[index];
    return node->relu && node->residual >= 0 && reader >= 0 && net->nodes[reader].kernel == 1 &&
           net->nodes[reader].stride == 1 && !net_bn_frozen(net, &net->nodes[reader]);
}

static bool is_shortcut_of_block(const enum fusion_form *forms, const struct net *net, int index)
{
    return forms[index] == FORM_SHORTCUT && forms[readers_of(net, index).last] == FORM_BLOCK;
}

bool fusion_halves(const enum fusion_form *forms, const struct net *net, int index)
{
    return forms[index] == FORM_PROLOGUE || forms[index] == FORM_BLOCK ||
           is_shortcut_of_block(forms, net, index);
}

bool fusion_sums(const enum fusion_form *forms, const struct net *net, enum fusion fusion,
                 int index)
{
    return fusion == FUSION_BLOCK &&
           (forms[index] == FORM_BLOCK || is_shortcut_of_block(forms, net, index) ||
            (forms[index] == FORM_PROLOGUE && fusion_first_reader(net, index) >= 0));
}

void fusion_forms(enum fusion_form *forms, const struct net *net, enum fusion fusion)
{
    for (int i = 0; i < net->node_count; i++) {
        const struct node *node = &net->nodes[i];
        bool fused = fusion >= FUSION_PROLOGUE && node->kind == NODE_CONV;
        forms[i] = fused && !net_bn_frozen(net, node) ? form_of(net, i) : FORM_PLAIN;
        if (fusion == FUSION_BLOCK && forms[i] == FORM_STORED && ends_in_reader(net, i))
            forms[i] = FORM_BLOCK;
    }
}

int fusion_first_reader(const struct net *net, int index)
{
    for (int i = index + 1; i < net->node_count; i++) {
        const struct node *node = &net->nodes[i];
        if (node->residual == index)
            return -1;
        if (node->input == index)
            return node->kind == NODE_CONV ? i : -1;
    }
    return -1;
}
