/* SPDX-License-Identifier: Apache-2.0 */
/* The same 15 pictures in every layout give the same fingerprint; labels that make no sense are
 * refused with the reason. */
#include "tests/unit/datasets/packing.h"

#include "datasets/labels.h"

enum { COUNT = INPUT_CLASSES * INPUT_FILES, TEXT_BYTES = 8192 };

static const char *const sorted_ids[INPUT_CLASSES] = {"N3", "n100", "n20"};

/* Class and file of sample `id`, as indices of inputs.h. */
static const int class_order[INPUT_CLASSES] = {2, 1, 0};
static const int file_order[INPUT_FILES] = {1, 2, 3, 0, 4};

static int label_of(int c)
{
    return INPUT_CLASSES - 1 - c;
}

static struct hash128 expect_packed(const struct job *job)
{
    struct pack_result result;
    if (pack_job(&result, job) != 0)
        fail_msg("%s: %s", job->layout, err_message());
    assert_int_equal(result.samples, COUNT);
    assert_int_equal(result.classes, INPUT_CLASSES);
    struct hash128 fingerprint = result.fingerprint;
    pack_result_release(&result);
    assert_int_equal(unlink(job->out), 0);
    return fingerprint;
}

static struct hash128 of_folders(const char *folders, const char *out)
{
    struct job job = {"folder", {folders}, out};
    return expect_packed(&job);
}

static void expect_same(struct hash128 wanted, const struct job *job)
{
    if (!hash128_equal(wanted, expect_packed(job)))
        fail_msg("%s (labels %s): another fingerprint", job->layout,
                 job->labels ? job->labels : "none");
}

static void expect_refused(const struct job *job, int code, const char *word)
{
    struct pack_result result = {0};
    int got = pack_job(&result, job);
    if (got != code || !strstr(err_message(), word))
        fail_msg("%s: code %d: %s", job->layout, got, err_message());
    assert_int_equal(access(job->out, F_OK), -1);
    pack_result_release(&result);
}

enum form { COLUMNS, COLUMNS_NUMBERS, LST, CSV, KAGGLE, FORMS };

/* Labels of all pictures in an order of the seed. flat: names without folders but unique. */
static void write_labels(const char *directory, const char *name, enum form form, bool flat,
                         const char *prefix, uint64_t seed)
{
    char text[TEXT_BYTES], file[128];
    size_t used = 0;
    int order[COUNT];
    shuffle(order, COUNT, &seed);
    if (form == KAGGLE)
        used = (size_t)sprintf(text, "ImageId,PredictionString\n");
    else if (form == CSV)
        used = (size_t)sprintf(text, "path,class\r\n");
    for (int i = 0; i < COUNT; i++) {
        int c = order[i] / INPUT_FILES, f = order[i] % INPUT_FILES;
        snprintf(file, sizeof file, "%s%s%s%s", prefix, input_classes[c], flat ? "_" : "/",
                 input_files[f]);
        if (form == COLUMNS)
            used += (size_t)sprintf(text + used, "%s %s\n", file, input_classes[c]);
        else if (form == COLUMNS_NUMBERS)
            used += (size_t)sprintf(text + used, "%s\t%d\n\n", file, label_of(c));
        else if (form == LST)
            used += (size_t)sprintf(text + used, "%d\t%d.000000\t%s\n", i, label_of(c), file);
        else if (form == CSV)
            used += (size_t)sprintf(text + used, "\"%s\",%s,more\r\n", file, input_classes[c]);
        else
            used += (size_t)sprintf(text + used, "%s,%s 85 1 499 272 \n", file, input_classes[c]);
    }
    write_file(directory, name, text, used);
}

/* All pictures as CLASS_FILE in one tar or folder. */
static char *make_flat_folder(char path[TESTING_PATH_BYTES])
{
    char name[128];
    strcpy(path, testing_directory());
    for (int i = 0; i < COUNT; i++) {
        struct bytes picture = input_picture(i / INPUT_FILES, i % INPUT_FILES);
        snprintf(name, sizeof name, "%s_%s", input_classes[i / INPUT_FILES],
                 input_files[i % INPUT_FILES]);
        write_file(path, name, picture.data, picture.count);
        free(picture.data);
    }
    return path;
}

/* Members FOLDER/CLASS/FILE or CLASS_FILE, in an order of the seed. */
static char *make_plain_tar(char path[TESTING_PATH_BYTES], bool compressed, bool flat,
                            uint64_t seed)
{
    char name[128];
    int order[COUNT];
    struct archive *tar = begin_tar(testing_path(path, testing_directory(), "p.tar"), compressed);
    shuffle(order, COUNT, &seed);
    for (int i = 0; i < COUNT; i++) {
        int c = order[i] / INPUT_FILES, f = order[i] % INPUT_FILES;
        struct bytes picture = input_picture(c, f);
        snprintf(name, sizeof name, flat ? "%s_%s" : "./train/%s/%s", input_classes[c],
                 input_files[f]);
        add_member(tar, name, picture.data, picture.count);
        free(picture.data);
    }
    end_tar(tar);
    return path;
}

static void test_tars_and_folders(void **state)
{
    (void)state;
    char folders[TESTING_PATH_BYTES], flat[TESTING_PATH_BYTES], tar[TESTING_PATH_BYTES];
    char out[TESTING_PATH_BYTES], labels[TESTING_PATH_BYTES];
    const char *directory = testing_directory();
    uint64_t seed = testing_seed();
    make_folders(folders);
    make_flat_folder(flat);
    testing_path(out, directory, "a.lmdb");
    testing_path(labels, directory, "labels");
    struct hash128 wanted = of_folders(folders, out);
    for (int compressed = 0; compressed < 2; compressed++) {
        struct job job = {"tar", {make_plain_tar(tar, compressed, false, seed)}, out};
        expect_same(wanted, &job);
    }
    for (int form = 0; form < FORMS; form++) {
        for (int kind = 0; kind < 4; kind++) {
            bool is_flat = kind % 2;
            write_labels(directory, "labels", (enum form)form, is_flat, kind == 2 ? "val/" : "",
                         seed + (uint64_t)form);
            struct job job = {.layout = kind < 2 ? "tar" : "folder",
                              .inputs = {kind < 2  ? make_plain_tar(tar, form == 1, is_flat, seed)
                                         : is_flat ? flat
                                                   : folders},
                              .out = out,
                              .labels = labels,
                              .class_ids = sorted_ids,
                              .class_count = INPUT_CLASSES};
            expect_same(wanted, &job);
        }
    }
}

static void test_lists(void **state)
{
    (void)state;
    char folders[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES], list[TESTING_PATH_BYTES];
    const char *directory = testing_directory();
    make_folders(folders);
    testing_path(out, directory, "a.lmdb");
    struct hash128 wanted = of_folders(folders, out);
    for (int form = 0; form < KAGGLE; form++) {
        struct job job = {.layout = "list",
                          .inputs = {testing_path(list, directory, "list"), folders},
                          .out = out,
                          .class_ids = sorted_ids,
                          .class_count = INPUT_CLASSES};
        write_labels(directory, "list", (enum form)form, false, "./", testing_seed());
        expect_same(wanted, &job);
        write_labels(folders, "list", (enum form)form, false, "", testing_seed());
        job.inputs[0] = testing_path(list, folders, "list");
        job.inputs[1] = NULL;
        expect_same(wanted, &job);
    }
}

static void put32(FILE *file, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        fputc((int)(value >> 8 * i & 255), file);
}

static void put_padding(FILE *file, size_t bytes)
{
    while (bytes++ % 4)
        fputc(0, file);
}

/* A record as dmlc's writer cuts it: at the magic where it stands at a multiple of 4. */
static void write_record(FILE *file, const uint8_t *data, size_t bytes)
{
    const uint32_t magic = 0xced7230a;
    size_t begin = 0;
    bool first = true;
    for (size_t at = 0; at + 4 <= bytes; at += 4) {
        uint32_t word;
        memcpy(&word, data + at, 4);
        if (word != magic)
            continue;
        put32(file, magic);
        put32(file, (uint32_t)(at - begin) | (first ? 1U : 2U) << 29);
        fwrite(data + begin, 1, at - begin, file);
        begin = at + 4;
        first = false;
    }
    put32(file, magic);
    put32(file, (uint32_t)(bytes - begin) | (first ? 0U : 3U) << 29);
    fwrite(data + begin, 1, bytes - begin, file);
    put_padding(file, bytes - begin);
}

/* extra: bytes behind the picture. */
static void write_sample(FILE *file, int id, const void *extra, size_t extra_bytes)
{
    int c = class_order[id / INPUT_FILES], f = file_order[id % INPUT_FILES];
    struct bytes picture = input_picture(c, f);
    uint8_t *data = calloc(1, 24 + picture.count + extra_bytes);
    float label = (float)label_of(c);
    memcpy(data + 4, &label, 4);
    data[8] = (uint8_t)id;
    memcpy(data + 24, picture.data, picture.count);
    if (extra_bytes)
        memcpy(data + 24 + picture.count, extra, extra_bytes);
    write_record(file, data, 24 + picture.count + extra_bytes);
    free(data);
    free(picture.data);
}

static char *make_rec(char path[TESTING_PATH_BYTES], uint64_t seed)
{
    int order[COUNT];
    FILE *file = fopen(testing_path(path, testing_directory(), "a.rec"), "wb");
    assert_non_null(file);
    shuffle(order, COUNT, &seed);
    for (int i = 0; i < COUNT; i++)
        write_sample(file, order[i], NULL, 0);
    fclose(file);
    return path;
}

/* Parts put together again: a picture with the magic behind its end, twice in a row. */
static void test_rec_parts(void **state)
{
    (void)state;
    char path[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES];
    const char *directory = testing_directory();
    uint8_t extra[32] = {0};
    struct bytes picture = input_picture(class_order[0], file_order[0]);
    size_t pad = (4 - picture.count % 4) % 4, bytes = pad + 12;
    memcpy(extra + pad, (uint8_t[]){0x0a, 0x23, 0xd7, 0xce, 0x0a, 0x23, 0xd7, 0xce}, 8);
    FILE *file = fopen(testing_path(path, directory, "a.rec"), "wb");
    write_sample(file, 0, extra, bytes);
    write_sample(file, 1, NULL, 0);
    fclose(file);
    struct job job = {.layout = "rec",
                      .inputs = {path},
                      .out = testing_path(out, directory, "a.lmdb"),
                      .class_ids = sorted_ids,
                      .class_count = 1};
    struct pack_result result;
    struct store *store;
    struct store_record record;
    if (pack_job(&result, &job) != 0)
        fail_msg("%s", err_message());
    pack_result_release(&result);
    assert_int_equal(store_open(&store, out), 0);
    assert_int_equal(store_read(&record, store, 0), 0);
    assert_int_equal(record.image_bytes, picture.count + bytes);
    assert_memory_equal(record.image, picture.data, picture.count);
    assert_memory_equal(record.image + picture.count, extra, bytes);
    store_close(store);
    free(picture.data);

    /* A first part of nothing: the magic is what the data begin with, too many labels. */
    uint8_t data[4 + 24 + 4] = {0x0a, 0x23, 0xd7, 0xce};
    file = fopen(testing_path(path, directory, "b.rec"), "wb");
    write_record(file, data, sizeof data);
    fclose(file);
    job.out = testing_path(out, directory, "b.lmdb");
    expect_refused(&job, ERR_DATA, "a list of labels");
}

static char *make_shards(char first[TESTING_PATH_BYTES], char second[TESTING_PATH_BYTES],
                         bool numbers, uint64_t seed)
{
    const char *directory = testing_directory();
    char name[128], text[32];
    int order[COUNT];
    shuffle(order, COUNT, &seed);
    for (int shard = 0; shard < 2; shard++) {
        struct archive *tar = begin_tar(
            testing_path(shard ? second : first, directory, shard ? "b.tar" : "a.tar"), shard == 1);
        for (int i = shard * 7; i < (shard ? COUNT : 7); i++) {
            int id = order[i], c = class_order[id / INPUT_FILES], f = file_order[id % INPUT_FILES];
            struct bytes picture = input_picture(c, f);
            int length = numbers ? sprintf(text, "%d\n", label_of(c))
                                 : sprintf(text, "%s", input_classes[c]);
            for (int part = 0; part < 3; part++) { /* cls before, between or behind */
                int what = (part + i) % 3;
                snprintf(name, sizeof name, "train/x%02d.%s", id,
                         what == 0   ? "cls"
                         : what == 1 ? "jpg"
                                     : "json");
                if (what == 1)
                    add_member(tar, name, picture.data, picture.count);
                else
                    add_member(tar, name, what ? "{}" : text, what ? 2 : (size_t)length);
            }
            free(picture.data);
        }
        end_tar(tar);
    }
    return first;
}

static void test_rec_and_webdataset(void **state)
{
    (void)state;
    char folders[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES], path[TESTING_PATH_BYTES],
        second[TESTING_PATH_BYTES];
    uint64_t seed = testing_seed();
    testing_path(out, testing_directory(), "a.lmdb");
    struct hash128 wanted = of_folders(make_folders(folders), out);
    struct job job = {.layout = "rec",
                      .inputs = {make_rec(path, seed)},
                      .out = out,
                      .class_ids = sorted_ids,
                      .class_count = INPUT_CLASSES};
    expect_same(wanted, &job);
    for (int numbers = 0; numbers < 2; numbers++) {
        make_shards(path, second, numbers, seed);
        job.layout = "webdataset";
        job.inputs[0] = second; /* in any order */
        job.inputs[1] = path;
        expect_same(wanted, &job);
    }
}

static void test_cifar(void **state)
{
    (void)state;
    enum { RECORDS = 40 };
    char path[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES];
    const char *directory = testing_directory();
    for (unsigned label_bytes = 1; label_bytes <= 2; label_bytes++) {
        size_t record_bytes = label_bytes + 3072;
        uint8_t *data = calloc(RECORDS, record_bytes);
        uint64_t seed = testing_seed();
        for (size_t i = 0; i < RECORDS * record_bytes; i++)
            data[i] = (uint8_t)testing_random(&seed);
        for (size_t i = 0; i < RECORDS; i++)
            data[i * record_bytes + label_bytes - 1] = (uint8_t)(i * 3 % 10);
        const char *names[2] = {label_bytes == 1 ? "data_batch_1.bin" : "train.bin",
                                label_bytes == 1 ? "test_batch.bin" : "test.bin"};
        const char *folder = testing_directory();
        write_file(folder, names[0], data, RECORDS * record_bytes);
        write_file(folder, names[1], data, 10 * record_bytes);
        struct job job = {.layout = "cifar",
                          .inputs = {folder},
                          .out = testing_path(out, directory, "a.lmdb"),
                          .skip_bad = true};
        struct pack_result result;
        struct store *store;
        struct store_record record;
        if (pack_job(&result, &job) != 0)
            fail_msg("%s", err_message());
        assert_int_equal(result.samples, RECORDS);
        assert_int_equal(result.classes, label_bytes == 1 ? 10 : 100);
        pack_result_release(&result);
        assert_int_equal(store_open(&store, out), 0);
        for (uint32_t id = 0; id < RECORDS; id++) {
            assert_int_equal(store_read(&record, store, id), 0);
            /* labels i * 3 % 10: sample k of class c is i = (7 c) % 10 + 10 k */
            uint32_t i = record.label * 7 % 10 + 10 * (id % 4);
            assert_int_equal(record.label, id / 4);
            assert_int_equal(record.encoding, STORE_RAW);
            assert_memory_equal(record.image, data + i * record_bytes + label_bytes, 3072);
        }
        store_close(store);
        unlink(out);
        job.inputs[0] = testing_path(path, folder, names[1]);
        assert_int_equal(pack_job(&result, &job), 0);
        assert_int_equal(result.samples, 10);
        pack_result_release(&result);
        unlink(out);
        data[label_bytes - 1] = label_bytes == 1 ? 10 : 100;
        write_file(folder, names[1], data, record_bytes);
        expect_refused(&job, ERR_DATA, "record 0: label");
        write_file(folder, names[1], data, record_bytes - 2);
        expect_refused(&job, ERR_DATA, "binary version");
        free(data);
    }
}

/* Labels that are wrong, one sentence each. */
static void test_refuses_labels(void **state)
{
    (void)state;
    static const struct {
        const char *text, *word;
    } cases[] = {
        {"", "no labels"},
        {"490\n361\n171\n", "meta.mat"},
        {"a.jpg n1\na.jpg n2\n", "a.jpg is there twice"},
        {"a.jpg\n", "line 1: not FILE and CLASS"},
        {"a.jpg,n1\nb.jpg\n", "line 2: no comma"},
        {"a.jpg,\n", "no class"},
        {"0\t1.5\ta.jpg\n", "not a whole number"},
        {"0\t1\t2\ta.jpg\n", "several labels"},
        {"0\t1.0\ta.jpg\n1\tb.jpg\n", "line 2"},
        {"\n\n0\t-1\ta.jpg\n", "not a whole number"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct labels labels;
        char *text = strdup(cases[i].text);
        assert_int_equal(labels_parse(&labels, text, strlen(text), "the/file"), ERR_DATA);
        if (!strstr(err_message(), cases[i].word) || !strstr(err_message(), "the/file"))
            fail_msg("\"%s\": %s", cases[i].text, err_message());
        labels_release(&labels);
    }
    struct labels labels;
    assert_int_equal(labels_parse(&labels, memcpy(malloc(9), "a b\0c d\n", 9), 8, "f"), ERR_DATA);
    labels_release(&labels);
}

static void test_refuses_inputs(void **state)
{
    (void)state;
    char folders[TESTING_PATH_BYTES], flat[TESTING_PATH_BYTES], tar[TESTING_PATH_BYTES];
    char out[TESTING_PATH_BYTES], labels[TESTING_PATH_BYTES];
    const char *directory = testing_directory();
    testing_path(labels, directory, "labels");
    struct job job = {.layout = "folder",
                      .inputs = {make_flat_folder(flat)},
                      .out = testing_path(out, directory, "a.lmdb"),
                      .labels = labels};
    write_file(directory, "labels", "N3_b.JPEG N3\n", 13);
    expect_refused(&job, ERR_DATA, "no label for 14 files");
    job.labels = NULL;
    expect_refused(&job, ERR_DATA, "--labels");
    job.layout = "tar";
    job.inputs[0] = make_plain_tar(tar, false, true, 1);
    expect_refused(&job, ERR_DATA, "in no class folder");
    job.layout = "imagenet-tar";
    expect_refused(&job, ERR_DATA, "--source tar");
    job = (struct job){.layout = "folder", .inputs = {make_folders(folders)}, .out = out};
    static const char *const more[] = {"N3", "n100", "n20", "n999"}, *const fewer[] = {"N3",
                                                                                       "n100"};
    job.class_ids = more, job.class_count = 4, job.only_these = true;
    expect_refused(&job, ERR_DATA, "class n999 holds no files");
    job.class_ids = fewer, job.class_count = 2;
    expect_refused(&job, ERR_DATA, "class n20 is none of the 2 classes");
    write_labels(directory, "labels", COLUMNS_NUMBERS, true, "", 1);
    job = (struct job){.layout = "folder", .inputs = {flat}, .out = out, .labels = labels};
    job.class_ids = fewer, job.class_count = 2;
    expect_refused(&job, ERR_DATA, "label 2, but there are 2 classes");
    job = (struct job){.layout = "list", .inputs = {labels}, .out = out};
    expect_refused(&job, ERR_IO, "N3_");
}

static void test_refuses_rec(void **state)
{
    (void)state;
    char path[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES];
    make_rec(path, 1);
    struct bytes file = read_whole(path);
    const char *directory = testing_directory();
    struct job job = {.layout = "rec",
                      .inputs = {testing_path(path, directory, "bad.rec")},
                      .out = testing_path(out, directory, "a.lmdb")};
    static const struct {
        size_t at;
        uint8_t value;
        const char *word;
    } cases[] = {{0, 0, "not a RecordIO"}, {7, 0xe0, "part without"},  {7, 0x20, "part that does"},
                 {8, 1, "list of labels"}, {14, 0x99, "whole number"}, {4, 8, ""},
                 {6, 0xff, "truncated"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t kept = file.data[cases[i].at];
        file.data[cases[i].at] = cases[i].value;
        write_file(directory, "bad.rec", file.data, file.count);
        expect_refused(&job, ERR_DATA, cases[i].word);
        file.data[cases[i].at] = kept;
    }
    memcpy(file.data + 12, (uint8_t[]){0, 0, 0xc8, 0x41}, 4); /* 25.0 as float32 */
    write_file(directory, "bad.rec", file.data, file.count);
    expect_refused(&job, ERR_DATA, "labels up to 25, but 15 samples");
    write_file(directory, "bad.rec", file.data, file.count - 1);
    expect_refused(&job, ERR_DATA, "truncated");
    free(file.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tars_and_folders),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_rec_parts),
        cmocka_unit_test(test_rec_and_webdataset),
        cmocka_unit_test(test_cifar),
        cmocka_unit_test(test_refuses_labels),
        cmocka_unit_test(test_refuses_inputs),
        cmocka_unit_test(test_refuses_rec),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
