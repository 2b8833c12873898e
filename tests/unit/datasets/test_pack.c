/* SPDX-License-Identifier: Apache-2.0 */
/* Packing from every layout: the same samples give the same store whatever their order, what is bad
 * is named and nothing is left behind. The decoder is the loader's own. */
#include "tests/unit/datasets/packing.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "common/err.h"
#include "common/stop.h"
#include "datasets/check.h"

/* The order that ids must have, by the bytes of class and name. */
static const int class_order[INPUT_CLASSES] = {2, 1, 0};
static const int file_order[INPUT_FILES] = {1, 2, 3, 0, 4};

static void check_store(const char *path)
{
    struct store *store;
    struct store_record record;
    assert_int_equal(store_open(&store, path), 0);
    const struct store_meta *meta = store_meta(store);
    assert_int_equal(meta->sample_count, INPUT_CLASSES * INPUT_FILES);
    assert_int_equal(meta->class_count, INPUT_CLASSES);
    assert_int_equal(meta->channels, 3);
    assert_int_equal(meta->encoding, STORE_JPEG);
    for (uint32_t id = 0; id < meta->sample_count; id++) {
        int c = class_order[id / INPUT_FILES], f = file_order[id % INPUT_FILES];
        struct bytes picture = input_picture(c, f);
        assert_int_equal(store_read(&record, store, id), 0);
        assert_int_equal(record.label, id / INPUT_FILES);
        assert_string_equal(meta->class_ids[record.label], input_classes[c]);
        assert_int_equal(record.image_bytes, picture.count);
        assert_memory_equal(record.image, picture.data, picture.count);
        assert_int_equal(record.width, 20 + c * INPUT_FILES + f);
        assert_int_equal(record.height, 30 - c * INPUT_FILES - f);
        free(picture.data);
    }
    store_close(store);
}

static void test_same_store_from_any_layout(void **state)
{
    (void)state;
    char folders[TESTING_PATH_BYTES], tar[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES];
    const char *directory = testing_directory();
    struct pack_result first, other;
    uint64_t seed = testing_seed();
    struct job job = {"folder", {make_folders(folders)}, testing_path(out, directory, "a.lmdb")};
    assert_int_equal(pack_job(&first, &job), 0);
    assert_int_equal(first.samples, INPUT_CLASSES * INPUT_FILES);
    check_store(out);
    for (int round = 0; round < 6; round++) {
        testing_path(out, directory, "b.lmdb");
        job = (struct job){"imagenet-tar",
                           {make_tar(tar, round % 3 == 1, round % 3 == 2, seed + (uint64_t)round)},
                           out};
        if (pack_job(&other, &job) != 0)
            fail_msg("round %d: %s", round, err_message());
        assert_true(hash128_equal(first.fingerprint, other.fingerprint));
        check_store(out);
        assert_int_equal(count_names(directory), 2);
        unlink(out);
        pack_result_release(&other);
    }
    pack_result_release(&first);
}

/* Adds a file to the first class, and expects it to be refused with the word. */
static void expect_bad(const void *data, size_t bytes, const char *word)
{
    char folders[TESTING_PATH_BYTES], folder[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES];
    const char *directory = testing_directory();
    struct pack_result result;
    struct job job = {"folder", {make_folders(folders)}, testing_path(out, directory, "a.lmdb")};
    write_file(testing_path(folder, folders, "n100"), "odd.JPEG", data, bytes);
    assert_int_equal(pack_job(&result, &job), ERR_DATA);
    assert_int_equal(result.bad_count, 1);
    assert_string_equal(result.bad[0].file, "n100/odd.JPEG");
    if (!strstr(result.bad[0].reason, word))
        fail_msg("reason: %s", result.bad[0].reason);
    assert_int_equal(count_names(directory), 0);
    pack_result_release(&result);
    job.skip_bad = true;
    assert_int_equal(pack_job(&result, &job), 0);
    assert_int_equal(result.bad_count, 1);
    assert_int_equal(result.samples, INPUT_CLASSES * INPUT_FILES);
    pack_result_release(&result);
    check_store(out);
}

static void test_bad_files(void **state)
{
    (void)state;
    struct bytes picture = input_picture(1, 1);
    expect_bad("", 0, "empty");
    expect_bad("hello, I am a text\n", 19, "");
    expect_bad(picture.data, picture.count / 2, "");
    expect_bad(picture.data, picture.count - 3, "");
    free(picture.data);
}

/* What datasets really hold: all of it packs, bytes untouched, and a kind is told by content. */
static void test_warts(void **state)
{
    (void)state;
    static const char *const goldens[] = {"420.jpg",    "alpha.png",       "cmyk.jpg", "grey.jpg",
                                          "grey16.png", "progressive.jpg", "rgb.jpg"};
    enum { GOLDENS = sizeof goldens / sizeof *goldens };
    char root[TESTING_PATH_BYTES], folder[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES];
    struct pack_result result;
    struct store *store;
    struct store_record record;
    strcpy(root, testing_directory());
    assert_int_equal(mkdir(testing_path(folder, root, "class"), 0777), 0);
    for (int i = 0; i < GOLDENS; i++) {
        struct bytes file = golden_bytes(goldens[i]);
        char name[64];
        snprintf(name, sizeof name, "%d.JPEG", i);
        write_file(folder, name, file.data, file.count);
        free(file.data);
    }
    struct bytes picture = input_picture(1, 1), longer = {NULL, picture.count + 999};
    longer.data = calloc(1, longer.count);
    memcpy(longer.data, picture.data, picture.count);
    write_file(folder, "7.JPEG", longer.data, longer.count); /* bytes behind the end */
    struct job job = {"folder", {root}, testing_path(out, testing_directory(), "a.lmdb")};
    if (pack_job(&result, &job) != 0)
        fail_msg("%s", err_message());
    assert_int_equal(result.samples, GOLDENS + 1);
    pack_result_release(&result);
    assert_int_equal(store_open(&store, out), 0);
    for (uint32_t id = 0; id <= GOLDENS; id++) {
        struct bytes file = id < GOLDENS ? golden_bytes(goldens[id]) : longer;
        assert_int_equal(store_read(&record, store, id), 0);
        assert_int_equal(record.image_bytes, file.count);
        assert_memory_equal(record.image, file.data, file.count);
        free(file.data);
    }
    store_close(store);
    free(picture.data);
}

/* What no loader decodes, and names that no JSON holds. */
static void test_undecodable_kinds(void **state)
{
    (void)state;
    struct picture_options options = {
        .width = 40, .height = 30, .stored = JCS_YCbCr, .h_factor = 2, .v_factor = 2};
    struct bytes picture = picture_make(options, 1);
    uint8_t *precision = memmem(picture.data, picture.count, "\xff\xc0\x00\x11\x08", 5);
    assert_non_null(precision);
    precision[4] = 12;
    expect_bad(picture.data, picture.count, "");
    free(picture.data);
    options.arithmetic = true;
    picture = picture_make(options, 1);
    expect_bad(picture.data, picture.count, "rithmetic");
    free(picture.data);
    char folders[TESTING_PATH_BYTES], folder[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES];
    struct pack_result result;
    struct job job = {
        "folder", {make_folders(folders)}, testing_path(out, testing_directory(), "a.lmdb")};
    picture = input_picture(0, 0);
    write_file(testing_path(folder, folders, "n100"), "caf\xe9.JPEG", picture.data, picture.count);
    assert_int_equal(pack_job(&result, &job), ERR_DATA);
    assert_int_equal(result.bad_count, 1);
    assert_non_null(strstr(result.bad[0].reason, "UTF-8"));
    pack_result_release(&result);
    free(picture.data);
}

/* Files that are there but cannot be read are no bad files: nobody wants a store without them. */
static void test_unreadable(void **state)
{
    (void)state;
    char folders[TESTING_PATH_BYTES], path[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES];
    const char *directory = testing_directory();
    struct pack_result result;
    struct job job = {"folder",
                      {make_folders(folders)},
                      testing_path(out, directory, "a.lmdb"),
                      .skip_bad = true};
    testing_path(path, folders, "n100/gone.JPEG");
    assert_int_equal(symlink("/no/such/file", path), 0);
    assert_int_equal(pack_job(&result, &job), ERR_IO);
    assert_non_null(strstr(err_message(), "n100/gone.JPEG: No such file"));
    /* The class before, and the four files of its own class before it. */
    if (!strstr(err_message(), "9 images are kept"))
        fail_msg("%s", err_message());
    assert_int_equal(access(out, F_OK), -1);
    pack_result_release(&result);
}

static void test_many_bad_files(void **state)
{
    (void)state;
    char folders[TESTING_PATH_BYTES], folder[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES];
    struct pack_result result;
    struct job job = {
        "folder", {make_folders(folders)}, testing_path(out, testing_directory(), "a.lmdb")};
    testing_path(folder, folders, "N3");
    write_file(folder, "a9.png", "bad", 3);
    write_file(folder, "B.jpg", "bad", 3);
    assert_int_equal(truncate(testing_path(out, folder, "b.JPEG"), (64 << 20) + 1), 0);
    testing_path(out, testing_directory(), "a.lmdb");
    assert_int_equal(pack_job(&result, &job), ERR_DATA);
    assert_int_equal(result.bad_count, 3);
    assert_string_equal(result.bad[0].file, "N3/B.jpg");
    assert_string_equal(result.bad[1].file, "N3/a9.png");
    assert_string_equal(result.bad[2].file, "N3/b.JPEG");
    assert_non_null(strstr(result.bad[2].reason, "64 MiB"));
    assert_non_null(strstr(err_message(), "3 of 15"));
    pack_result_release(&result);
}

static void expect_refused(const struct job *job, int code, const char *word)
{
    struct pack_result result;
    int got = pack_job(&result, job);
    if (got != code || !strstr(err_message(), word))
        fail_msg("code %d: %s", got, err_message());
    assert_int_equal(access(job->out, F_OK), -1);
    pack_result_release(&result);
}

static void test_refuses(void **state)
{
    (void)state;
    char folders[TESTING_PATH_BYTES], path[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES];
    struct job job = {
        "folder", {"/no/such/folder"}, testing_path(out, testing_directory(), "a.lmdb")};
    expect_refused(&job, ERR_IO, "/no/such/folder");
    job.inputs[0] = testing_directory();
    expect_refused(&job, ERR_DATA, "no class folders");
    job.inputs[0] = make_folders(folders);
    mkdir(testing_path(path, folders, "empty"), 0777);
    expect_refused(&job, ERR_DATA, "class empty holds no files");
    rmdir(path);
    mkdir(testing_path(path, folders, "\xff"), 0777);
    expect_refused(&job, ERR_DATA, "not UTF-8");
    job.layout = "imagenet-tar";
    expect_refused(&job, ERR_IO, "not a regular file");
    job.inputs[0] = "/etc/passwd";
    expect_refused(&job, ERR_DATA, "/etc/passwd");
    job.layout = "surprise";
    expect_refused(&job, ERR_ARG, "surprise");
}

static void test_refuses_tars(void **state)
{
    (void)state;
    const char *directory = testing_directory();
    char tar[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES], inner_path[TESTING_PATH_BYTES];
    struct pack_result result;
    struct job job = {
        "imagenet-tar", {make_tar(tar, false, false, 1)}, testing_path(out, directory, "a.lmdb")};
    struct bytes whole = read_whole(tar);
    for (size_t cut = 700; cut + 10240 < whole.count; cut += 3001) {
        write_file(directory, "cut.tar", whole.data, cut);
        char path[TESTING_PATH_BYTES];
        job.inputs[0] = testing_path(path, directory, "cut.tar");
        assert_int_equal(pack_job(&result, &job), ERR_DATA);
        assert_int_equal(access(out, F_OK), -1);
        pack_result_release(&result);
    }
    free(whole.data);
    struct archive *inner = begin_tar(testing_path(inner_path, directory, "inner"), false);
    add_member(inner, "x/same", "a", 1);
    add_member(inner, "y/same", "b", 1);
    end_tar(inner);
    struct bytes bytes = read_whole(inner_path);
    struct archive *outer = begin_tar(tar, false);
    add_member(outer, "n1.tar", bytes.data, bytes.count);
    end_tar(outer);
    free(bytes.data);
    job.inputs[0] = tar;
    expect_refused(&job, ERR_DATA, "class n1 holds two files named same");
    outer = begin_tar(tar, false);
    add_member(outer, "n1/picture.jpg", "a", 1);
    end_tar(outer);
    expect_refused(&job, ERR_DATA, "no inner CLASS.tar");
}

enum { IDX_COUNT = 40, IDX_WIDTH = 5, IDX_HEIGHT = 3, IDX_BYTES = IDX_WIDTH * IDX_HEIGHT };

static void make_idx(const char *directory, bool compressed, uint8_t labels[IDX_COUNT])
{
    char path[TESTING_PATH_BYTES];
    uint8_t pixels[IDX_COUNT * IDX_BYTES];
    uint64_t seed = 5;
    for (int i = 0; i < IDX_COUNT; i++)
        labels[i] = (uint8_t)(testing_random(&seed) % 10);
    labels[8] = 11;
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)(i * 7 % 251);
    const char *end = compressed ? ".gz" : "";
    char name[64];
    snprintf(name, sizeof name, "train-images-idx3-ubyte%s", end);
    write_idx(testing_path(path, directory, name), (uint32_t[]){IDX_COUNT, IDX_HEIGHT, IDX_WIDTH},
              3, pixels, sizeof pixels, compressed);
    snprintf(name, sizeof name, "train-labels-idx1-ubyte%s", end);
    write_idx(testing_path(path, directory, name), (uint32_t[]){IDX_COUNT}, 1, labels, IDX_COUNT,
              compressed);
}

static void check_idx_store(const char *path, const uint8_t labels[IDX_COUNT])
{
    struct store *store;
    uint32_t id = 0;
    assert_int_equal(store_open(&store, path), 0);
    assert_int_equal(store_meta(store)->class_count, 12);
    assert_string_equal(store_meta(store)->class_ids[3], "03");
    assert_int_equal(store_meta(store)->channels, 1);
    for (int label = 0; label < 12; label++) {
        for (int i = 0; i < IDX_COUNT; i++) {
            struct store_record record;
            if (labels[i] != label)
                continue;
            assert_int_equal(store_read(&record, store, id++), 0);
            assert_int_equal(record.label, label);
            assert_int_equal(record.encoding, STORE_RAW);
            assert_int_equal(record.width, IDX_WIDTH);
            assert_int_equal(record.height, IDX_HEIGHT);
            for (int b = 0; b < IDX_BYTES; b++)
                assert_int_equal(record.image[b], (i * IDX_BYTES + b) * 7 % 251);
        }
    }
    assert_int_equal(id, IDX_COUNT);
    store_close(store);
}

static void test_idx(void **state)
{
    (void)state;
    char images[TESTING_PATH_BYTES], second[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES];
    uint8_t labels[IDX_COUNT];
    struct pack_result result;
    for (int variant = 0; variant < 6; variant++) {
        const char *directory = testing_directory();
        make_idx(directory, variant % 2, labels);
        const char *end = variant % 2 ? "ubyte.gz" : "ubyte";
        snprintf(images, sizeof images, "%.400s/train-images-idx3-%s", directory, end);
        snprintf(second, sizeof second, "%.400s/train-labels-idx1-%s", directory, end);
        /* In either order, as a directory, as a prefix. */
        struct job job = {"idx",
                          {images, second},
                          testing_path(out, testing_directory(), "a.lmdb"),
                          .skip_bad = true};
        if (variant == 1)
            job.inputs[0] = second, job.inputs[1] = images;
        if (variant >= 2)
            job.inputs[0] = directory, job.inputs[1] = NULL;
        if (variant >= 4)
            job.inputs[0] = testing_path(images, directory, "train");
        if (pack_job(&result, &job) != 0)
            fail_msg("variant %d: %s", variant, err_message());
        check_idx_store(out, labels);
        pack_result_release(&result);
    }
}

static void test_refuses_idx(void **state)
{
    (void)state;
    const char *directory = testing_directory();
    char images[TESTING_PATH_BYTES], labels[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES];
    uint8_t values[IDX_COUNT];
    make_idx(directory, false, values);
    testing_path(images, directory, "train-images-idx3-ubyte");
    testing_path(labels, directory, "train-labels-idx1-ubyte");
    struct job job = {
        "idx", {images, labels}, testing_path(out, directory, "a.lmdb"), .skip_bad = true};
    assert_int_equal(truncate(images, 16 + IDX_COUNT * IDX_BYTES - 1), 0);
    expect_refused(&job, ERR_DATA, "truncated");
    assert_int_equal(truncate(images, 16 + IDX_COUNT * IDX_BYTES + 1), 0);
    expect_refused(&job, ERR_DATA, "behind the end");
    assert_int_equal(truncate(images, 9), 0);
    expect_refused(&job, ERR_DATA, "truncated");
    assert_int_equal(truncate(images, 0), 0);
    expect_refused(&job, ERR_DATA, "train-images");
    job.inputs[0] = labels;
    expect_refused(&job, ERR_ARG, "one must hold images");
    write_idx(images, (uint32_t[]){IDX_COUNT + 1, 1, 1}, 3, values, IDX_COUNT, false);
    job.inputs[0] = images;
    expect_refused(&job, ERR_DATA, "41 images");
    write_idx(images, (uint32_t[]){IDX_COUNT, 0x10000, 0xffffffff}, 3, values, IDX_COUNT, false);
    expect_refused(&job, ERR_DATA, "px");
    job.inputs[0] = directory;
    job.inputs[1] = NULL;
    make_idx(directory, true, values);
    expect_refused(&job, ERR_ARG, "prefix");
}

static void expect_names(const char *text, const char *first, const char *last)
{
    const char *directory = testing_directory();
    char path[TESTING_PATH_BYTES], folders[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES];
    struct pack_result result;
    struct store *store;
    write_file(directory, "names", text, strlen(text));
    struct job job = {"folder",
                      {make_folders(folders)},
                      testing_path(out, directory, "a.lmdb"),
                      testing_path(path, directory, "names")};
    assert_int_equal(pack_job(&result, &job), 0);
    assert_int_equal(store_open(&store, out), 0);
    assert_string_equal(store_meta(store)->class_names[0], first);
    assert_string_equal(store_meta(store)->class_names[2], last);
    store_close(store);
    pack_result_release(&result);
}

static void test_class_names(void **state)
{
    (void)state;
    expect_names("tench\nheron, blue\n\nowl\r\n", "tench", "owl");
    expect_names("n20 an owl\nn100 heron\nN3\ttench, fish\nn99 unused\n", "tench, fish", "an owl");
    char *ids[] = {"a", "b"}, **names, path[TESTING_PATH_BYTES];
    const char *directory = testing_directory();
    testing_path(path, directory, "names");
    write_file(directory, "names", "x\ny\nz\n", 6);
    assert_int_equal(class_names_read(&names, path, ids, 2), ERR_ARG);
    assert_non_null(strstr(err_message(), "3 lines for 2 classes"));
    write_file(directory, "names", "a x\na y\nb z\n", 12);
    assert_int_equal(class_names_read(&names, path, ids, 2), ERR_DATA);
    write_file(directory, "names", "\xff\nb\n", 4);
    assert_int_equal(class_names_read(&names, path, ids, 2), ERR_DATA);
}

/* Files decoded to planes: a grey PNG-free check of size and of grey's equal planes. */
static void test_raw_from_files(void **state)
{
    (void)state;
    char folders[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES];
    struct pack_result result;
    struct store *store;
    struct job job = {"folder",
                      {make_folders(folders)},
                      testing_path(out, testing_directory(), "a.lmdb"),
                      .raw = true};
    assert_int_equal(pack_job(&result, &job), 0);
    pack_result_release(&result);
    assert_int_equal(store_open(&store, out), 0);
    for (uint32_t id = 0; id < INPUT_CLASSES * INPUT_FILES; id++) {
        int number = class_order[id / INPUT_FILES] * INPUT_FILES + file_order[id % INPUT_FILES];
        struct store_record record;
        assert_int_equal(store_read(&record, store, id), 0);
        size_t plane = (size_t)record.width * record.height;
        assert_int_equal(record.width, 20 + number);
        assert_int_equal(record.image_bytes, 3 * plane);
        /* picture_make's green is red plus 2 without noise: planes differ where there is colour. */
        int same = memcmp(record.image, record.image + plane, plane) == 0;
        assert_int_equal(same, number % 3 == 0);
    }
    store_close(store);
}

/* In a child, because neither the flag nor the limit can be taken back. Returns pack_job's code as
 * a small number. */
static int in_child(const struct job *job, bool stop)
{
    pid_t child = fork();
    if (child == 0) {
        struct pack_result result;
        struct rlimit limit = {12000, 12000};
        signal(SIGXFSZ, SIG_IGN);
        if (stop)
            stop_request();
        else
            setrlimit(RLIMIT_FSIZE, &limit);
        int code = pack_job(&result, job);
        pack_result_release(&result);
        _exit(code == ERR_IO || code == ERR_STOPPED ? 10 : code == 0 ? 0 : 20);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_leaves_nothing_behind(void **state)
{
    (void)state;
    char folders[TESTING_PATH_BYTES], tar[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES];
    const char *directory = testing_directory();
    struct job job = {"folder", {make_folders(folders)}, testing_path(out, directory, "a.lmdb")};
    assert_int_equal(in_child(&job, true), 10);
    assert_int_equal(count_names(directory), 0);
    assert_int_equal(in_child(&job, false), 10);
    assert_int_equal(count_names(directory), 0);
    job = (struct job){"imagenet-tar", {make_tar(tar, true, false, 1)}, out};
    assert_int_equal(in_child(&job, false), 10);
    assert_int_equal(count_names(directory), 0);
}

static void test_check_names_damage(void **state)
{
    (void)state;
    char folders[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES];
    struct pack_result result;
    struct check_result checked;
    struct store *store;
    struct store_record record;
    struct job job = {
        "folder", {make_folders(folders)}, testing_path(out, testing_directory(), "a.lmdb")};
    assert_int_equal(pack_job(&result, &job), 0);
    pack_result_release(&result);
    assert_int_equal(store_open(&store, out), 0);
    assert_int_equal(check_run(&checked, store, &image_decoder, 2), 0);
    assert_int_equal(checked.damaged_count, 0);
    check_result_release(&checked);
    /* One byte inside the images of two records, through the file. */
    struct bytes file = read_whole(out);
    static const uint32_t hurt[] = {3, 11};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(store_read(&record, store, hurt[i]), 0);
        uint8_t *found = memmem(file.data, file.count, record.image, record.image_bytes);
        assert_non_null(found);
        found[record.image_bytes / 2] ^= 1;
    }
    store_close(store);
    unlink(out);
    FILE *rewritten = fopen(out, "wb");
    assert_int_equal(fwrite(file.data, 1, file.count, rewritten), file.count);
    fclose(rewritten);
    free(file.data);
    assert_int_equal(store_open(&store, out), 0);
    assert_int_equal(check_run(&checked, store, &image_decoder, 2), 0);
    assert_int_equal(checked.damaged_count, 2);
    assert_int_equal(checked.damaged[0].id, 3);
    assert_int_equal(checked.damaged[1].id, 11);
    assert_non_null(strstr(checked.damaged[0].reason, "class N3"));
    check_result_release(&checked);
    store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_store_from_any_layout),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_warts),
        cmocka_unit_test(test_undecodable_kinds),
        cmocka_unit_test(test_unreadable),
        cmocka_unit_test(test_many_bad_files),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_refuses_tars),
        cmocka_unit_test(test_idx),
        cmocka_unit_test(test_refuses_idx),
        cmocka_unit_test(test_class_names),
        cmocka_unit_test(test_raw_from_files),
        cmocka_unit_test(test_leaves_nothing_behind),
        cmocka_unit_test(test_check_names_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
