/* SPDX-License-Identifier: Apache-2.0 */
/* Packing small inputs in a test's own process. */
#ifndef TESTS_UNIT_DATASETS_PACKING_H
#define TESTS_UNIT_DATASETS_PACKING_H

#include "tests/unit/datasets/inputs.h"

#include "common/err.h"
#include "datasets/pack.h"
#include "tools/image_decoder.h"

/* One packing, by the real decoder. */
struct job {
    const char *layout;
    const char *inputs[2];
    const char *out;
    const char *names;
    bool skip_bad, raw;
    const char *labels;
    const char *const *class_ids; /* what labels count that are numbers */
    size_t class_count;
    bool only_these;
    const struct image_decoder *decoder; /* NULL: the real one */
    int jobs;                            /* 0: 3 */
};

static inline int pack_job(struct pack_result *result, const struct job *job)
{
    struct source *source;
    char **names = NULL;
    struct source_request request = {.inputs = job->inputs,
                                     .input_count = job->inputs[1] ? 2 : 1,
                                     .out = job->out,
                                     .labels = job->labels,
                                     .class_ids = job->class_ids,
                                     .class_count = job->class_count,
                                     .only_these = job->only_these,
                                     .allow_empty = job->skip_bad};
    *result = (struct pack_result){0};
    int code = source_open(&source, job->layout, &request);
    if (code)
        return code;
    if (job->names)
        assert_int_equal(
            class_names_read(&names, job->names, source->list.class_ids, source->list.class_count),
            0);
    struct pack_options options = {
        .out = job->out,
        .split = "train",
        .class_names = (const char *const *)names,
        .packed_by = "test",
        .encoding = job->raw || source->channels ? STORE_RAW : STORE_JPEG,
        .jobs = job->jobs ? job->jobs : 3,
        .skip_bad = job->skip_bad,
        .decoder = job->decoder ? job->decoder : &image_decoder,
    };
    code = pack_run(result, source, &options);
    class_names_free(names, source->list.class_count);
    source_close(source);
    return code;
}

#endif
