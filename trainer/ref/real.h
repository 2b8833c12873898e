/* SPDX-License-Identifier: Apache-2.0 */
/* The reference backend is compiled twice from the same sources: in float, as it is used, and in
 * double with every name changed, so that tests can take central differences. */
#ifndef TRAINER_REF_REAL_H
#define TRAINER_REF_REAL_H

#ifdef REF_DOUBLE
typedef double real;
#define REF_PRECISION "fp64"
#define backend_ref backend_ref_double
#define bf16_ref_round bf16_ref_round_double
#define bn_ref_apply bn_ref_apply_double
#define bn_ref_apply_halves bn_ref_apply_halves_double
#define bn_ref_backward bn_ref_backward_double
#define bn_ref_backward_frozen bn_ref_backward_frozen_double
#define bn_ref_backward_sums bn_ref_backward_sums_double
#define bn_ref_mask bn_ref_mask_double
#define bn_ref_statistics bn_ref_statistics_double
#define bn_ref_sums bn_ref_sums_double
#define conv_ref_backward_data conv_ref_backward_data_double
#define conv_ref_backward_weight conv_ref_backward_weight_double
#define conv_ref_forward conv_ref_forward_double
#define conv_ref_packed conv_ref_packed_double
#define fc_ref_backward_bias fc_ref_backward_bias_double
#define fc_ref_forward fc_ref_forward_double
#define fp16_ref_round fp16_ref_round_double
#define pass_ref_logits pass_ref_logits_double
#define pass_ref_run pass_ref_run_double
#define plan_ref plan_ref_double
#define pool_ref_avg pool_ref_avg_double
#define pool_ref_avg_backward pool_ref_avg_backward_double
#define pool_ref_max pool_ref_max_double
#define pool_ref_max_backward pool_ref_max_backward_double
#define program_ref_bytes program_ref_bytes_double
#define program_ref_close program_ref_close_double
#define program_ref_open program_ref_open_double
#define program_ref_seconds program_ref_seconds_double
#define state_ref_average state_ref_average_double
#define state_ref_bucket state_ref_bucket_double
#define state_ref_buckets state_ref_buckets_double
#define state_ref_close state_ref_close_double
#define state_ref_get state_ref_get_double
#define state_ref_metrics state_ref_metrics_double
#define state_ref_open state_ref_open_double
#define state_ref_set state_ref_set_double
#define state_ref_slot_add state_ref_slot_add_double
#define state_ref_slot_get state_ref_slot_get_double
#define state_ref_split state_ref_split_double
#define state_ref_update state_ref_update_double
#define update_ref_average update_ref_average_double
#define update_ref_finite update_ref_finite_double
#define update_ref_nag update_ref_nag_double
#define update_ref_running update_ref_running_double
#else
typedef float real;
#define REF_PRECISION "fp32"
#endif

#endif
