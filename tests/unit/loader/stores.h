/* SPDX-License-Identifier: Apache-2.0 */
/* A small store of JPEGs, some of them damaged if wanted, and the specs of its streams. */
#ifndef TESTS_UNIT_LOADER_STORES_H
#define TESTS_UNIT_LOADER_STORES_H

#include "datasets/store.h"
#include "loader/jpeg/jpeg_index.h"
#include "tests/unit/loader/pictures.h"

enum { SAMPLES = 11, CLASSES = 4 };

static const char *const class_ids[CLASSES] = {"n01", "n02", "n03", "n04"};
static const char *const class_names[CLASSES] = {"", "", "", ""};

static inline uint32_t label_of(uint32_t id)
{
    return id * CLASSES / SAMPLES;
}

/* Of SAMPLES small JPEGs, those that can be with a side index; the ids whose bit is set in
 * `damaged` are cut short. */
static inline struct store *make_store(unsigned damaged)
{
    struct jpeg_indexer *indexer;
    assert_int_equal(jpeg_indexer_open(&indexer), 0);
    char path[TESTING_PATH_BYTES];
    struct store_writer *writer;
    struct store *store;
    testing_path(path, testing_directory(), "train.lmdb");
    assert_int_equal(store_writer_open(&writer, path, 0), 0);
    for (uint32_t id = 0; id < SAMPLES; id++) {
        struct picture_options options = {30 + (int)id * 5,
                                          60 - (int)id * 3,
                                          id == 3 ? JCS_GRAYSCALE : JCS_YCbCr,
                                          1 + (int)id % 2,
                                          1,
                                          .progressive = id == 7};
        struct bytes file = picture_make(options, id);
        struct store_sample sample = {.label = label_of(id),
                                      .width = (uint32_t)options.width,
                                      .height = (uint32_t)options.height,
                                      .channels = 3,
                                      .encoding = STORE_JPEG,
                                      .image = file.data,
                                      .image_bytes = file.count - (damaged >> id & 1 ? 50 : 0)};
        enum jpeg_refusal refusal;
        assert_int_equal(jpeg_index_build(indexer, &sample.index, &sample.index_bytes, &refusal,
                                          sample.image, sample.image_bytes, 2),
                         0);
        if (refusal != JPEG_TAKEN)
            sample.index = NULL;
        assert_int_equal(sample.index != NULL, !(damaged >> id & 1) && id != 7);
        assert_int_equal(store_writer_add(writer, &sample), 0);
        free(file.data);
    }
    jpeg_indexer_close(indexer);
    struct store_meta meta = {.class_count = CLASSES,
                              .channels = 3,
                              .encoding = STORE_JPEG,
                              .class_ids = class_ids,
                              .class_names = class_names,
                              .split = "train",
                              .packed_by = "test"};
    assert_int_equal(store_writer_publish(writer, &meta, NULL), 0);
    assert_int_equal(store_open(&store, path), 0);
    return store;
}

#endif
