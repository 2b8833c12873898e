/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/export_onnx.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/file.h"
#include "onnx.pb-c.h"

enum {
    OPSET = 13,
    IR_VERSION = 7,
    NAME_BYTES = 96,
    VALUE_BYTES = 24,
    NODE_INPUTS = 3,
    NODE_ATTRIBUTES = 5,
    INTS = 4
};

/* One operator with all that its message points to. */
struct operator_node {
    Onnx__NodeProto message;
    char inputs[NODE_INPUTS][NAME_BYTES], output[NAME_BYTES], name[NAME_BYTES];
    char *input_list[NODE_INPUTS], *output_list[1];
    Onnx__AttributeProto attributes[NODE_ATTRIBUTES];
    Onnx__AttributeProto *attribute_list[NODE_ATTRIBUTES];
    int64_t ints[NODE_ATTRIBUTES][INTS];
};

struct constant {
    Onnx__TensorProto message;
    char name[NAME_BYTES];
    int64_t dims[4];
    float *values;
};

struct model {
    const struct net *net;
    struct operator_node *operators;
    struct constant *constants;
    Onnx__NodeProto **operator_list;
    Onnx__TensorProto **constant_list;
    size_t operator_count, constant_count;
    int code;
};

/* --- operators ----------------------------------------------------------------------------------
 */

static void value_name(char dst[VALUE_BYTES], const struct net *net, int node)
{
    if (node == 0)
        snprintf(dst, VALUE_BYTES, "pixels");
    else if (node == net->node_count - 1)
        snprintf(dst, VALUE_BYTES, "logits");
    else
        snprintf(dst, VALUE_BYTES, "node%d", node);
}

static struct operator_node *add_operator(struct model *model, char *type, const char *output)
{
    struct operator_node *added = &model->operators[model->operator_count];
    onnx__node_proto__init(&added->message);
    added->message.op_type = type;
    snprintf(added->output, NAME_BYTES, "%s", output);
    snprintf(added->name, NAME_BYTES, "%s.%zu", type, model->operator_count);
    added->message.name = added->name;
    added->output_list[0] = added->output;
    added->message.output = added->output_list;
    added->message.n_output = 1;
    added->message.input = added->input_list;
    added->message.attribute = added->attribute_list;
    model->operator_list[model->operator_count++] = &added->message;
    return added;
}

static void add_input(struct operator_node *to, const char *name)
{
    size_t at = to->message.n_input++;
    snprintf(to->inputs[at], NAME_BYTES, "%s", name);
    to->input_list[at] = to->inputs[at];
}

static Onnx__AttributeProto *add_attribute(struct operator_node *to, char *name)
{
    size_t at = to->message.n_attribute++;
    Onnx__AttributeProto *attribute = &to->attributes[at];
    onnx__attribute_proto__init(attribute);
    attribute->name = name;
    attribute->has_type = true;
    to->attribute_list[at] = attribute;
    return attribute;
}

static void add_int(struct operator_node *to, char *name, int64_t value)
{
    Onnx__AttributeProto *attribute = add_attribute(to, name);
    attribute->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT;
    attribute->has_i = true;
    attribute->i = value;
}

static void add_ints(struct operator_node *to, char *name, int64_t value, size_t count)
{
    int64_t *ints = to->ints[to->message.n_attribute];
    Onnx__AttributeProto *attribute = add_attribute(to, name);
    attribute->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS;
    for (size_t i = 0; i < count; i++)
        ints[i] = value;
    attribute->ints = ints;
    attribute->n_ints = count;
}

static void add_window(struct operator_node *to, const struct node *node)
{
    add_ints(to, "kernel_shape", node->kernel, 2);
    add_ints(to, "strides", node->stride, 2);
    add_ints(to, "pads", node->pad, 4);
}

/* --- constants ----------------------------------------------------------------------------------
 */

/* [count] floats to be filled; NULL when memory is out. */
static float *add_constant(struct model *model, const char *name, int rank, const int *shape)
{
    struct constant *added = &model->constants[model->constant_count];
    size_t count = 1;
    onnx__tensor_proto__init(&added->message);
    for (int d = 0; d < rank; d++) {
        added->dims[d] = shape[d];
        count *= (size_t)shape[d];
    }
    added->values = malloc(count * sizeof *added->values);
    if (!added->values) {
        model->code = err_set(ERR_NOMEM, "out of memory for the weights of %s", model->net->model);
        return NULL;
    }
    snprintf(added->name, NAME_BYTES, "%s", name);
    added->message.name = added->name;
    added->message.dims = added->dims;
    added->message.n_dims = (size_t)rank;
    added->message.has_data_type = true;
    added->message.data_type = ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT;
    added->message.has_raw_data = true;
    added->message.raw_data.data =
        (uint8_t *)added->values; /* little-endian, as the standard wants */
    added->message.raw_data.len = count * sizeof *added->values;
    model->constant_list[model->constant_count++] = &added->message;
    return added->values;
}

static void copy_constant(struct model *model, const struct tensor *tensor, const float *values)
{
    float *copy = add_constant(model, tensor->name, tensor->rank, tensor->shape);
    if (copy)
        memcpy(copy, values, tensor->count * sizeof *copy);
}

/* Convolution and BN as one: weights times scale, and a bias. */
static void fold_constants(struct model *model, const struct node *node, float *const *values,
                           char bias_name[NAME_BYTES])
{
    const struct tensor *tensor = &model->net->tensors[node->weight];
    size_t row = tensor->count / (size_t)tensor->shape[0];
    snprintf(bias_name, NAME_BYTES, "%s.folded_bias", tensor->name);
    float *weights = add_constant(model, tensor->name, 4, tensor->shape);
    float *bias = weights ? add_constant(model, bias_name, 1, tensor->shape) : NULL;
    for (int c = 0; bias && c < node->out_channels; c++) {
        double scale = values[node->gamma][c] /
                       sqrt((double)values[node->running_var][c] + (double)NET_BN_EPSILON);
        bias[c] = (float)(values[node->beta][c] - values[node->running_mean][c] * scale);
        for (size_t i = (size_t)c * row; i < ((size_t)c + 1) * row; i++)
            weights[i] = (float)(values[node->weight][i] * scale);
    }
}

/* --- the graph ----------------------------------------------------------------------------------
 */

static void add_conv(struct model *model, const struct node *node, float *const *values,
                     const char *input, const char *output)
{
    char bias[NAME_BYTES], conv[2 * VALUE_BYTES], sum[2 * VALUE_BYTES], residual[VALUE_BYTES];
    bool adds = node->residual >= 0;
    snprintf(conv, sizeof conv, node->relu || adds ? "%s.conv" : "%s", output);
    snprintf(sum, sizeof sum, node->relu ? "%s.sum" : "%s", output);
    fold_constants(model, node, values, bias);
    struct operator_node *added = add_operator(model, "Conv", conv);
    add_input(added, input);
    add_input(added, model->net->tensors[node->weight].name);
    add_input(added, bias);
    add_window(added, node);
    if (adds) {
        value_name(residual, model->net, node->residual);
        added = add_operator(model, "Add", sum);
        add_input(added, conv);
        add_input(added, residual);
    }
    if (node->relu)
        add_input(add_operator(model, "Relu", output), adds ? sum : conv);
}

static void add_fc(struct model *model, const struct node *node, float *const *values,
                   const char *input, const char *output)
{
    char flat[2 * VALUE_BYTES];
    snprintf(flat, sizeof flat, "%s.flat", input);
    add_input(add_operator(model, "Flatten", flat), input);
    copy_constant(model, &model->net->tensors[node->weight], values[node->weight]);
    copy_constant(model, &model->net->tensors[node->bias], values[node->bias]);
    struct operator_node *added = add_operator(model, "Gemm", output);
    add_input(added, flat);
    add_input(added, model->net->tensors[node->weight].name);
    add_input(added, model->net->tensors[node->bias].name);
    add_int(added, "transB", 1);
}

static void add_node(struct model *model, int index, float *const *values)
{
    const struct node *node = &model->net->nodes[index];
    char input[VALUE_BYTES], output[VALUE_BYTES];
    struct operator_node *added;
    value_name(output, model->net, index);
    if (node->input >= 0)
        value_name(input, model->net, node->input);
    switch (node->kind) {
    case NODE_INPUT:
        break;
    case NODE_CONV:
        add_conv(model, node, values, input, output);
        break;
    case NODE_MAX_POOL:
        added = add_operator(model, "MaxPool", output);
        add_input(added, input);
        add_window(added, node);
        break;
    case NODE_AVG_POOL:
        added = add_operator(model, "AveragePool", output);
        add_input(added, input);
        add_window(added, node);
        add_int(added, "ceil_mode", 1);
        add_int(added, "count_include_pad", 0);
        break;
    case NODE_GLOBAL_AVG:
        add_input(add_operator(model, "GlobalAveragePool", output), input);
        break;
    case NODE_FC:
        add_fc(model, node, values, input, output);
        break;
    }
}

/* A graph's input or output: float32 [batch][...]. */
struct port {
    Onnx__ValueInfoProto message;
    Onnx__TypeProto type;
    Onnx__TypeProto__Tensor tensor;
    Onnx__TensorShapeProto shape;
    Onnx__TensorShapeProto__Dimension dims[4];
    Onnx__TensorShapeProto__Dimension *dim_list[4];
    Onnx__ValueInfoProto *list[1];
};

static void describe_port(struct port *port, char *name, int rank, const int *sizes)
{
    onnx__value_info_proto__init(&port->message);
    onnx__type_proto__init(&port->type);
    onnx__type_proto__tensor__init(&port->tensor);
    onnx__tensor_shape_proto__init(&port->shape);
    for (int d = 0; d <= rank; d++) {
        onnx__tensor_shape_proto__dimension__init(&port->dims[d]);
        port->dims[d].value_case = d ? ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE
                                     : ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
        if (d)
            port->dims[d].dim_value = sizes[d - 1];
        else
            port->dims[d].dim_param = "batch";
        port->dim_list[d] = &port->dims[d];
    }
    port->shape.dim = port->dim_list;
    port->shape.n_dim = (size_t)rank + 1;
    port->tensor.has_elem_type = true;
    port->tensor.elem_type = ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT;
    port->tensor.shape = &port->shape;
    port->type.value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    port->type.tensor_type = &port->tensor;
    port->message.name = name;
    port->message.type = &port->type;
    port->list[0] = &port->message;
}

static int write_message(const char *path, const Onnx__ModelProto *message)
{
    size_t bytes = onnx__model_proto__get_packed_size(message);
    if (bytes > INT32_MAX)
        return err_set(ERR_UNSUPPORTED, "'%s': a model of more than 2 GB does not fit into ONNX",
                       path);
    uint8_t *packed = malloc(bytes);
    if (!packed)
        return err_set(ERR_NOMEM, "out of memory for '%s'", path);
    onnx__model_proto__pack(message, packed);
    int code = file_write_atomic(path, packed, bytes);
    free(packed);
    return code;
}

static int write_model(const struct model *model, const char *path,
                       const struct onnx_property *properties, size_t property_count)
{
    enum { PROPERTIES_MAX = 16 };
    const struct net *net = model->net;
    Onnx__ModelProto message = ONNX__MODEL_PROTO__INIT;
    Onnx__GraphProto graph = ONNX__GRAPH_PROTO__INIT;
    Onnx__OperatorSetIdProto opset = ONNX__OPERATOR_SET_ID_PROTO__INIT, *opsets[] = {&opset};
    Onnx__StringStringEntryProto entries[PROPERTIES_MAX], *entry_list[PROPERTIES_MAX];
    struct port in, out;
    describe_port(&in, "pixels", 3, (const int[]){net->channels, net->size_px, net->size_px});
    describe_port(&out, "logits", 1, &net->classes);
    graph.name = (char *)net->model;
    graph.node = model->operator_list;
    graph.n_node = model->operator_count;
    graph.initializer = model->constant_list;
    graph.n_initializer = model->constant_count;
    graph.input = in.list;
    graph.output = out.list;
    graph.n_input = graph.n_output = 1;
    opset.has_version = true;
    opset.version = OPSET;
    opset.domain = "";
    for (size_t i = 0; i < property_count && i < PROPERTIES_MAX; i++) {
        onnx__string_string_entry_proto__init(&entries[i]);
        entries[i].key = (char *)properties[i].key;
        entries[i].value = (char *)properties[i].value;
        entry_list[i] = &entries[i];
        message.n_metadata_props = i + 1;
    }
    message.metadata_props = entry_list;
    message.has_ir_version = true;
    message.ir_version = IR_VERSION;
    message.producer_name = "satchel";
    message.producer_version = SATCHEL_VERSION;
    message.graph = &graph;
    message.opset_import = opsets;
    message.n_opset_import = 1;
    return write_message(path, &message);
}

static void release(struct model *model)
{
    for (size_t i = 0; i < model->constant_count; i++)
        free(model->constants[i].values);
    free(model->operators);
    free(model->constants);
    free(model->operator_list);
    free(model->constant_list);
}

int export_onnx(const char *path, const struct net *net, float *const *values,
                const struct onnx_property *properties, size_t property_count)
{
    size_t nodes = (size_t)net->node_count;
    struct model model = {.net = net,
                          .operators = calloc(3 * nodes, sizeof *model.operators),
                          .constants = calloc(2 * nodes, sizeof *model.constants),
                          .operator_list = calloc(3 * nodes, sizeof *model.operator_list),
                          .constant_list = calloc(2 * nodes, sizeof *model.constant_list)};
    if (!model.operators || !model.constants || !model.operator_list || !model.constant_list)
        model.code = err_set(ERR_NOMEM, "out of memory for a model of %zu nodes", nodes);
    for (int i = 0; i < net->node_count && !model.code; i++)
        add_node(&model, i, values);
    if (!model.code)
        model.code = write_model(&model, path, properties, property_count);
    release(&model);
    return model.code;
}
