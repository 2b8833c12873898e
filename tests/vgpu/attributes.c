/* SPDX-License-Identifier: Apache-2.0 */
/* Which attributes each kind of descriptor has: names and element types from cudnn_graph.h and the
 * "cudnn_graph Library" chapter of NVIDIA's API reference, with what the reference calls required.
 */
#include "tests/vgpu/descriptor.h"

#define T(type) CUDNN_TYPE_##type
#define PLAIN_RULE(name, type, least, most)                                                        \
    {                                                                                              \
        CUDNN_ATTR_##name, #name, T(type), least, most, PLAIN                                      \
    }
#define IN(name)                                                                                   \
    {                                                                                              \
        CUDNN_ATTR_OPERATION_##name, #name, T(BACKEND_DESCRIPTOR), 1, 1, INPUT                     \
    }
#define IN_MAYBE(name)                                                                             \
    {                                                                                              \
        CUDNN_ATTR_OPERATION_##name, #name, T(BACKEND_DESCRIPTOR), 0, 1, INPUT                     \
    }
#define OUT(name)                                                                                  \
    {                                                                                              \
        CUDNN_ATTR_OPERATION_##name, #name, T(BACKEND_DESCRIPTOR), 1, 1, OUTPUT                    \
    }
#define OUT_MAYBE(name)                                                                            \
    {                                                                                              \
        CUDNN_ATTR_OPERATION_##name, #name, T(BACKEND_DESCRIPTOR), 0, 1, OUTPUT                    \
    }
#define END                                                                                        \
    {                                                                                              \
        0                                                                                          \
    }

static const struct rule tensor[] = {
    PLAIN_RULE(TENSOR_BYTE_ALIGNMENT, INT64, 1, 1), PLAIN_RULE(TENSOR_DATA_TYPE, DATA_TYPE, 1, 1),
    PLAIN_RULE(TENSOR_DIMENSIONS, INT64, 1, DIMS),  PLAIN_RULE(TENSOR_STRIDES, INT64, 1, DIMS),
    PLAIN_RULE(TENSOR_UNIQUE_ID, INT64, 1, 1),      PLAIN_RULE(TENSOR_IS_VIRTUAL, BOOLEAN, 0, 1),
    PLAIN_RULE(TENSOR_IS_BY_VALUE, BOOLEAN, 0, 1),  END};
static const struct rule convolution[] = {PLAIN_RULE(CONVOLUTION_COMP_TYPE, DATA_TYPE, 1, 1),
                                          PLAIN_RULE(CONVOLUTION_CONV_MODE, CONVOLUTION_MODE, 1, 1),
                                          PLAIN_RULE(CONVOLUTION_DILATIONS, INT64, 2, 2),
                                          PLAIN_RULE(CONVOLUTION_FILTER_STRIDES, INT64, 2, 2),
                                          PLAIN_RULE(CONVOLUTION_POST_PADDINGS, INT64, 2, 2),
                                          PLAIN_RULE(CONVOLUTION_PRE_PADDINGS, INT64, 2, 2),
                                          PLAIN_RULE(CONVOLUTION_SPATIAL_DIMS, INT64, 1, 1),
                                          END};
static const struct rule pointwise[] = {PLAIN_RULE(POINTWISE_MODE, POINTWISE_MODE, 1, 1),
                                        PLAIN_RULE(POINTWISE_MATH_PREC, DATA_TYPE, 1, 1),
                                        PLAIN_RULE(POINTWISE_RELU_LOWER_CLIP, DOUBLE, 0, 1), END};
static const struct rule resample[] = {PLAIN_RULE(RESAMPLE_MODE, RESAMPLE_MODE, 1, 1),
                                       PLAIN_RULE(RESAMPLE_COMP_TYPE, DATA_TYPE, 1, 1),
                                       PLAIN_RULE(RESAMPLE_SPATIAL_DIMS, INT64, 1, 1),
                                       PLAIN_RULE(RESAMPLE_POST_PADDINGS, FRACTION, 2, 2),
                                       PLAIN_RULE(RESAMPLE_PRE_PADDINGS, FRACTION, 2, 2),
                                       PLAIN_RULE(RESAMPLE_STRIDES, FRACTION, 2, 2),
                                       PLAIN_RULE(RESAMPLE_WINDOW_DIMS, FRACTION, 2, 2),
                                       PLAIN_RULE(RESAMPLE_PADDING_MODE, PADDING_MODE, 1, 1),
                                       PLAIN_RULE(RESAMPLE_NAN_PROPAGATION, NAN_PROPOGATION, 0, 1),
                                       END};

#define CONVOLUTION_RULES(side, in_a, in_b, out)                                                   \
    {                                                                                              \
        PLAIN_RULE(OPERATION_CONVOLUTION_##side##_ALPHA, FLOAT, 1, 1),                             \
            PLAIN_RULE(OPERATION_CONVOLUTION_##side##_BETA, FLOAT, 1, 1),                          \
            PLAIN_RULE(OPERATION_CONVOLUTION_##side##_CONV_DESC, BACKEND_DESCRIPTOR, 1, 1),        \
            IN(CONVOLUTION_##side##_##in_a), IN(CONVOLUTION_##side##_##in_b),                      \
            OUT(CONVOLUTION_##side##_##out), END                                                   \
    }
static const struct rule conv_forward[] = CONVOLUTION_RULES(FORWARD, X, W, Y);
static const struct rule conv_backward_data[] = CONVOLUTION_RULES(BWD_DATA, DY, W, DX);
static const struct rule conv_backward_filter[] = CONVOLUTION_RULES(BWD_FILTER, X, DY, DW);
static const struct rule op_pointwise[] = {
    PLAIN_RULE(OPERATION_POINTWISE_PW_DESCRIPTOR, BACKEND_DESCRIPTOR, 1, 1),
    PLAIN_RULE(OPERATION_POINTWISE_ALPHA1, FLOAT, 0, 1),
    PLAIN_RULE(OPERATION_POINTWISE_ALPHA2, FLOAT, 0, 1),
    IN_MAYBE(POINTWISE_XDESC),
    IN_MAYBE(POINTWISE_BDESC),
    IN_MAYBE(POINTWISE_DYDESC),
    OUT_MAYBE(POINTWISE_YDESC),
    OUT_MAYBE(POINTWISE_DXDESC),
    END};
static const struct rule norm_forward[] = {
    PLAIN_RULE(OPERATION_NORM_FWD_MODE, NORM_MODE, 1, 1),
    PLAIN_RULE(OPERATION_NORM_FWD_PHASE, NORM_FWD_PHASE, 1, 1),
    IN(NORM_FWD_XDESC),
    IN(NORM_FWD_SCALE_DESC),
    IN(NORM_FWD_BIAS_DESC),
    IN_MAYBE(NORM_FWD_EPSILON_DESC),
    IN_MAYBE(NORM_FWD_EXP_AVG_FACTOR_DESC),
    IN_MAYBE(NORM_FWD_INPUT_RUNNING_MEAN_DESC),
    IN_MAYBE(NORM_FWD_INPUT_RUNNING_VAR_DESC),
    OUT(NORM_FWD_MEAN_DESC),
    OUT(NORM_FWD_INV_VARIANCE_DESC),
    OUT_MAYBE(NORM_FWD_OUTPUT_RUNNING_MEAN_DESC),
    OUT_MAYBE(NORM_FWD_OUTPUT_RUNNING_VAR_DESC),
    OUT(NORM_FWD_YDESC),
    END};
static const struct rule norm_backward[] = {PLAIN_RULE(OPERATION_NORM_BWD_MODE, NORM_MODE, 1, 1),
                                            IN(NORM_BWD_XDESC),
                                            IN(NORM_BWD_MEAN_DESC),
                                            IN(NORM_BWD_INV_VARIANCE_DESC),
                                            IN(NORM_BWD_DYDESC),
                                            IN(NORM_BWD_SCALE_DESC),
                                            IN_MAYBE(NORM_BWD_EPSILON_DESC),
                                            OUT(NORM_BWD_DSCALE_DESC),
                                            OUT(NORM_BWD_DBIAS_DESC),
                                            OUT(NORM_BWD_DXDESC),
                                            END};
static const struct rule gen_stats[] = {PLAIN_RULE(OPERATION_GENSTATS_MODE, GENSTATS_MODE, 1, 1),
                                        PLAIN_RULE(OPERATION_GENSTATS_MATH_PREC, DATA_TYPE, 1, 1),
                                        IN(GENSTATS_XDESC),
                                        OUT(GENSTATS_SUMDESC),
                                        OUT(GENSTATS_SQSUMDESC),
                                        END};
static const struct rule bn_finalize[] = {
    PLAIN_RULE(OPERATION_BN_FINALIZE_STATS_MODE, BN_FINALIZE_STATS_MODE, 1, 1),
    PLAIN_RULE(OPERATION_BN_FINALIZE_MATH_PREC, DATA_TYPE, 1, 1),
    IN(BN_FINALIZE_Y_SUM_DESC),
    IN(BN_FINALIZE_Y_SQ_SUM_DESC),
    IN(BN_FINALIZE_SCALE_DESC),
    IN(BN_FINALIZE_BIAS_DESC),
    IN(BN_FINALIZE_EPSILON_DESC),
    IN(BN_FINALIZE_ACCUM_COUNT_DESC),
    IN_MAYBE(BN_FINALIZE_EXP_AVERATE_FACTOR_DESC),
    IN_MAYBE(BN_FINALIZE_PREV_RUNNING_MEAN_DESC),
    IN_MAYBE(BN_FINALIZE_PREV_RUNNING_VAR_DESC),
    OUT_MAYBE(BN_FINALIZE_UPDATED_RUNNING_MEAN_DESC),
    OUT_MAYBE(BN_FINALIZE_UPDATED_RUNNING_VAR_DESC),
    OUT(BN_FINALIZE_SAVED_MEAN_DESC),
    OUT(BN_FINALIZE_SAVED_INV_STD_DESC),
    OUT(BN_FINALIZE_EQ_SCALE_DESC),
    OUT(BN_FINALIZE_EQ_BIAS_DESC),
    END};
static const struct rule bn_backward_weights[] = {
    PLAIN_RULE(OPERATION_BN_BWD_WEIGHTS_MATH_PREC, DATA_TYPE, 1, 1),
    IN(BN_BWD_WEIGHTS_X_DESC),
    IN(BN_BWD_WEIGHTS_MEAN_DESC),
    IN(BN_BWD_WEIGHTS_INVSTD_DESC),
    IN(BN_BWD_WEIGHTS_BN_SCALE_DESC),
    IN(BN_BWD_WEIGHTS_DY_DESC),
    OUT(BN_BWD_WEIGHTS_DBN_SCALE_DESC),
    OUT(BN_BWD_WEIGHTS_DBN_BIAS_DESC),
    OUT(BN_BWD_WEIGHTS_EQ_DY_SCALE_DESC),
    OUT(BN_BWD_WEIGHTS_EQ_X_SCALE_DESC),
    OUT(BN_BWD_WEIGHTS_EQ_BIAS),
    END};
static const struct rule resample_forward[] = {
    PLAIN_RULE(OPERATION_RESAMPLE_FWD_DESC, BACKEND_DESCRIPTOR, 1, 1), IN(RESAMPLE_FWD_XDESC),
    OUT(RESAMPLE_FWD_YDESC), OUT_MAYBE(RESAMPLE_FWD_IDXDESC), END};
static const struct rule resample_backward[] = {
    PLAIN_RULE(OPERATION_RESAMPLE_BWD_DESC, BACKEND_DESCRIPTOR, 1, 1), IN(RESAMPLE_BWD_DYDESC),
    IN_MAYBE(RESAMPLE_BWD_IDXDESC), OUT(RESAMPLE_BWD_DXDESC), END};
static const struct rule graph[] = {
    PLAIN_RULE(OPERATIONGRAPH_HANDLE, HANDLE, 1, 1),
    PLAIN_RULE(OPERATIONGRAPH_OPS, BACKEND_DESCRIPTOR, 1, OPERATIONS), END};
static const struct rule heuristics[] = {
    PLAIN_RULE(ENGINEHEUR_OPERATION_GRAPH, BACKEND_DESCRIPTOR, 1, 1),
    PLAIN_RULE(ENGINEHEUR_MODE, HEUR_MODE, 1, 1),
    PLAIN_RULE(ENGINEHEUR_RESULTS, BACKEND_DESCRIPTOR, 0, 0), END};
static const struct rule config[] = {PLAIN_RULE(ENGINECFG_ENGINE, BACKEND_DESCRIPTOR, 0, 0), END};
static const struct rule engine[] = {PLAIN_RULE(ENGINE_NUMERICAL_NOTE, NUMERICAL_NOTE, 0, 0),
                                     PLAIN_RULE(ENGINE_BEHAVIOR_NOTE, BEHAVIOR_NOTE, 0, 0),
                                     PLAIN_RULE(ENGINE_GLOBAL_INDEX, INT64, 0, 0), END};
static const struct rule plan[] = {
    PLAIN_RULE(EXECUTION_PLAN_HANDLE, HANDLE, 1, 1),
    PLAIN_RULE(EXECUTION_PLAN_ENGINE_CONFIG, BACKEND_DESCRIPTOR, 1, 1),
    PLAIN_RULE(EXECUTION_PLAN_WORKSPACE_SIZE, INT64, 0, 0), END};
static const struct rule pack[] = {PLAIN_RULE(VARIANT_PACK_UNIQUE_IDS, INT64, 1, 128),
                                   PLAIN_RULE(VARIANT_PACK_DATA_POINTERS, VOID_PTR, 1, 128),
                                   PLAIN_RULE(VARIANT_PACK_WORKSPACE, VOID_PTR, 0, 1), END};

#define KIND(name, rules)                                                                          \
    {                                                                                              \
        CUDNN_BACKEND_##name##_DESCRIPTOR, #name, rules                                            \
    }
static const struct kind kinds[] = {
    KIND(TENSOR, tensor),
    KIND(CONVOLUTION, convolution),
    KIND(POINTWISE, pointwise),
    KIND(RESAMPLE, resample),
    KIND(OPERATION_CONVOLUTION_FORWARD, conv_forward),
    KIND(OPERATION_CONVOLUTION_BACKWARD_DATA, conv_backward_data),
    KIND(OPERATION_CONVOLUTION_BACKWARD_FILTER, conv_backward_filter),
    KIND(OPERATION_POINTWISE, op_pointwise),
    KIND(OPERATION_NORM_FORWARD, norm_forward),
    KIND(OPERATION_NORM_BACKWARD, norm_backward),
    KIND(OPERATION_GEN_STATS, gen_stats),
    KIND(OPERATION_BN_FINALIZE_STATISTICS, bn_finalize),
    KIND(OPERATION_BN_BWD_WEIGHTS, bn_backward_weights),
    KIND(OPERATION_RESAMPLE_FWD, resample_forward),
    KIND(OPERATION_RESAMPLE_BWD, resample_backward),
    KIND(OPERATIONGRAPH, graph),
    KIND(ENGINEHEUR, heuristics),
    KIND(ENGINECFG, config),
    KIND(ENGINE, engine),
    KIND(EXECUTION_PLAN, plan),
    KIND(VARIANT_PACK, pack),
};

const struct kind *vgpu_kind(cudnnBackendDescriptorType_t type)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i].type == type)
            return &kinds[i];
    vgpu_fail("the double has no descriptors of type %d", (int)type);
}

const struct rule *vgpu_rule(const struct kind *kind, int name)
{
    for (const struct rule *rule = kind->rules; rule->text; rule++)
        if (rule->name == name)
            return rule;
    vgpu_fail("%s descriptors have no attribute %d (%s)", kind->text, name, vgpu_name_of(name));
}

const char *vgpu_name_of(int name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        for (const struct rule *rule = kinds[i].rules; rule->text; rule++)
            if (rule->name == name)
                return rule->text;
    return "one that the double does not know";
}

size_t vgpu_type_bytes(int type)
{
    switch (type) {
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_DOUBLE:
        return 8;
    case CUDNN_TYPE_FRACTION:
        return sizeof(cudnnFraction_t);
    case CUDNN_TYPE_BOOLEAN:
        return sizeof(bool);
    case CUDNN_TYPE_CHAR:
        return 1;
    default: /* enumerations, int32 and float */
        return 4;
    }
}
