/* SPDX-License-Identifier: Apache-2.0 */
#include "trainer/checks.h"

#include "common/err.h"
#include "trainer/unpack.h"

/* The libraries count a map's values with 31 bits. */
static int check_map(const struct node *node, int batch, const struct net *net)
{
    double values = (double)batch * node->out_channels * node->out_height * node->out_width;
    if (values <= INT32_MAX)
        return 0;
    return err_set(ERR_ARG,
                   "%s: %d images of %d x %d with %d channels are %.3g values, more than 2^31 - 1; "
                   "take a smaller micro-batch or smaller images",
                   net->model, batch, node->out_width, node->out_height, node->out_channels,
                   values);
}

int checks_program(const struct program_config *config, const struct net *net)
{
    if (config->batch < 1)
        return err_set(ERR_ARG, "a batch of %d samples cannot be", config->batch);
    for (int i = 0; i < net->node_count; i++) {
        int code = check_map(&net->nodes[i], config->batch, net);
        if (code)
            return code;
    }
    for (int i = 0; config->mode == PROGRAM_TRAIN && i < net->node_count; i++) {
        const struct node *node = &net->nodes[i];
        if (node->kind == NODE_CONV && !net_bn_frozen(net, node) &&
            (int64_t)config->batch * node->out_height * node->out_width < 2)
            return err_set(ERR_ARG,
                           "%s: batch normalisation needs more than one value a channel; take a "
                           "larger micro-batch or larger images",
                           net->model);
    }
    return 0;
}

int checks_teacher(const struct program_config *teacher, const struct net *teacher_net,
                   const struct program_config *config, const struct net *net)
{
    if (teacher->mode == PROGRAM_INFER && teacher->batch == config->batch &&
        teacher->input.bytes == config->input.bytes && teacher_net->size_px == net->size_px &&
        teacher_net->channels == net->channels && teacher_net->classes == net->classes)
        return 0;
    return err_set(ERR_ARG,
                   "the teacher %s does not fit %s: batch, image size, channels, wire format and "
                   "classes must be the same",
                   teacher_net->model, net->model);
}

int checks_slot(int slot, int slot_total)
{
    if (slot < 0 || slot >= slot_total)
        return err_set(ERR_ARG, "there is no gradient slot %d, only %d", slot, slot_total);
    return 0;
}

int checks_bucket(int bucket, int bucket_total)
{
    if (bucket < BUCKETS_ALL || bucket >= bucket_total)
        return err_set(ERR_ARG, "there is no gradient bucket %d, only %d", bucket, bucket_total);
    return 0;
}

int checks_tensor(const struct net *net, enum state_kind kind, int tensor)
{
    if (tensor < 0 || tensor >= net->tensor_count)
        return err_set(ERR_ARG, "%s has no tensor %d", net->model, tensor);
    if (kind != STATE_WEIGHT && !net->tensors[tensor].trained)
        return err_set(ERR_ARG, "%s: %s is not trained and has no momentum", net->model,
                       net->tensors[tensor].name);
    return 0;
}

int checks_batch(const struct batch *batch, const struct program_config *config,
                 const struct net *net, int slot, int slot_total)
{
    int least = config->mode == PROGRAM_TRAIN ? config->batch : 1;
    if (batch->samples < least || batch->samples > config->batch)
        return err_set(ERR_ARG, "a batch of %d samples where %d..%d are expected", batch->samples,
                       least, config->batch);
    int code = checks_slot(slot, slot_total);
    for (int i = 0; i < batch->samples && !code; i++) {
        const struct chunk_label *label = &batch->labels[i];
        if (label->a != CHUNK_LABEL_MASKED &&
            (label->a >= (uint32_t)net->classes || label->b >= (uint32_t)net->classes))
            code = err_set(ERR_ARG, "sample %d has the labels %u and %u, %s has %d classes", i,
                           label->a, label->b, net->model, net->classes);
    }
    return code ? code : unpack_check(batch, &config->input);
}
