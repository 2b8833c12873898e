/* SPDX-License-Identifier: Apache-2.0 */
/* Sources that are not what packing hopes for: what may not be read, what goes away in the middle,
 * names that are no text or are there twice, classes without files. One clear line each, and
 * nothing is published. Usage: test_odd PACK INSPECT LOADER */
#include "tests/unit/datasets/packing.h"
#include "tests/unit/datasets/programs.h"

#include <stdatomic.h>

static const char *pack_program, *inspect_program, *loader_program;

static void expect_nothing(const char *out)
{
    expect_no_store(inspect_program, loader_program, out);
}

/* satchel-pack --source LAYOUT INPUT --out OUT, as a user whom permissions bind: root is bound by
 * them once these capabilities are out of reach. */
static struct run *pack_bound(const char *layout, const char *input, const char *out)
{
    if (geteuid() != 0)
        return run(pack_program, "--source", layout, input, "--out", out, NULL);
    return run("/usr/bin/setpriv", "--bounding-set", "-dac_override,-dac_read_search", pack_program,
               "--source", layout, input, "--out", out, NULL);
}

static void test_permission_denied(void **state)
{
    (void)state;
    char folders[TESTING_PATH_BYTES], path[TESTING_PATH_BYTES], tar[TESTING_PATH_BYTES];
    char out[TESTING_PATH_BYTES];
    const char *directory = testing_directory();
    if (geteuid() == 0 && access("/usr/bin/setpriv", X_OK) != 0)
        skip();
    make_folders(folders);
    testing_path(out, directory, "a.lmdb");
    assert_int_equal(chmod(testing_path(path, folders, "n20/a10"), 0), 0);
    expect(pack_bound("folder", folders, out), 1, "n20/a10: Permission denied");
    expect_nothing(out);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(chmod(testing_path(path, folders, "n100"), 0), 0);
    expect(pack_bound("folder", folders, testing_path(out, directory, "b.lmdb")), 1,
           "n100: Permission denied");
    expect_nothing(out);
    assert_int_equal(chmod(path, 0700), 0);
    assert_int_equal(chmod(make_tar(tar, false, false, 1), 0), 0);
    expect(pack_bound("imagenet-tar", tar, out), 1, "o.tar: Permission denied");
    expect_nothing(out);
    const char *locked = testing_directory();
    assert_int_equal(chmod(locked, 0500), 0);
    expect(pack_bound("folder", folders, testing_path(out, locked, "a.lmdb")), 1,
           "Permission denied");
    expect_nothing(out);
}

/* ---- a source that goes away ---- */

static struct image_decoder vanishing;
static char vanishing_folder[TESTING_PATH_BYTES], vanishing_tar[TESTING_PATH_BYTES];
static atomic_int vanishing_left;

/* Before it looks at the fourth image, the rest of the source goes away. */
static int index_and_vanish(void *state, const uint8_t **index, size_t *index_bytes,
                            uint32_t *width, uint32_t *height, const uint8_t *file, size_t bytes,
                            uint32_t mcus)
{
    if (atomic_fetch_sub(&vanishing_left, 1) == 1) {
        char moved[TESTING_PATH_BYTES + 8];
        snprintf(moved, sizeof moved, "%s.gone", vanishing_folder);
        assert_int_equal(
            *vanishing_folder ? rename(vanishing_folder, moved) : truncate(vanishing_tar, 4096), 0);
    }
    return image_decoder.index(state, index, index_bytes, width, height, file, bytes, mcus);
}

static void expect_vanished(struct job *job, const char *says)
{
    struct pack_result result;
    vanishing = image_decoder;
    vanishing.index = index_and_vanish;
    atomic_store(&vanishing_left, 4);
    job->decoder = &vanishing;
    job->skip_bad = true; /* which is not about files that went away */
    job->jobs = 1;
    int code = pack_job(&result, job);
    if (code != ERR_IO || !strstr(err_message(), says) || !strstr(err_message(), "--resume"))
        fail_msg("code %d: %s", code, err_message());
    pack_result_release(&result);
    expect_nothing(job->out);
}

static void test_source_goes_away(void **state)
{
    (void)state;
    char folders[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES];
    const char *directory = testing_directory();
    make_folders(folders);
    testing_path(vanishing_folder, folders, "n20");
    struct job job = {"folder", {folders}, testing_path(out, directory, "a.lmdb")};
    expect_vanished(&job, "n20/B.jpg: No such file or directory");
    vanishing_folder[0] = '\0';
    job = (struct job){"imagenet-tar",
                       {make_tar(vanishing_tar, false, false, 1)},
                       testing_path(out, directory, "b.lmdb")};
    expect_vanished(&job, "the input ends inside of it");
}

/* ---- names and classes ---- */

static void test_names_that_are_no_text(void **state)
{
    (void)state;
    char folders[TESTING_PATH_BYTES], folder[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES];
    struct bytes picture = input_picture(0, 0);
    testing_path(out, testing_directory(), "a.lmdb");
    testing_path(folder, make_folders(folders), "n20");
    write_file(folder, "caf\xe9.JPEG", picture.data, picture.count);
    expect(run(pack_program, "--source", "folder", folders, "--out", out, NULL), 1,
           "its name is not UTF-8");
    struct run *got =
        run(pack_program, "--source", "folder", folders, "--out", out, "--json", NULL);
    assert_int_equal(got->status, 1);
    cJSON *json = json_of(got); /* which is text all the same */
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "bad")), 1);
    cJSON_Delete(json);
    expect_nothing(out);
    assert_int_equal(mkdir(testing_path(folder, folders, "n\xff"), 0700), 0);
    write_file(folder, "a.JPEG", picture.data, picture.count);
    expect(run(pack_program, "--source", "folder", folders, "--out", out, NULL), 1, "not UTF-8");
    expect_nothing(out);
    free(picture.data);
}

static void test_twice_and_empty(void **state)
{
    (void)state;
    char folders[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES], path[TESTING_PATH_BYTES];
    const char *directory = testing_directory();
    struct bytes picture = input_picture(0, 0);
    testing_path(out, directory, "a.lmdb");
    struct archive *tar = begin_tar(testing_path(path, directory, "twice.tar"), false);
    for (int i = 0; i < 2; i++)
        add_member(tar, "n1/same.JPEG", picture.data, picture.count);
    end_tar(tar);
    expect(run(pack_program, "--source", "tar", path, "--out", out, NULL), 1,
           "class n1 holds two files named same.JPEG");
    expect_nothing(out);
    const char *lines = "n20/a10 x\nn20/a10 y\n";
    write_file(directory, "labels.txt", lines, strlen(lines));
    expect(run(pack_program, "--source", "list", testing_path(path, directory, "labels.txt"),
               make_folders(folders), "--out", out, NULL),
           1, "n20/a10 is there twice");
    expect_nothing(out);
    assert_int_equal(mkdir(testing_path(path, folders, "empty"), 0700), 0);
    expect(run(pack_program, "--source", "folder", folders, "--out", out, NULL), 1,
           "class empty holds no files");
    expect_nothing(out);
    free(picture.data);
}

/* ---- what is no class index ---- */

/* The devkit's ground truth, as it is, and with what a user may try next. */
static void test_the_devkits_numbers(void **state)
{
    (void)state;
    char folders[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES], path[TESTING_PATH_BYTES];
    const char *directory = testing_directory(), *numbers = "490\n361\n171\n822\n";
    testing_path(out, directory, "a.lmdb");
    write_file(directory, "ILSVRC2012_validation_ground_truth.txt", numbers, strlen(numbers));
    testing_path(path, directory, "ILSVRC2012_validation_ground_truth.txt");
    struct run *got = run(pack_program, "--source", "folder", make_folders(folders), "--labels",
                          path, "--out", out, NULL);
    expect(got, 1, "ILSVRC2012_IDs of meta.mat, not places in the sorted WNIDs");
    assert_non_null(strstr(got->err, "LOC_val_solution.csv")); /* the way out */
    assert_non_null(strstr(got->err, path));
    expect_nothing(out);
    write_file(directory, "meta.mat", "MATLAB 5.0 MAT-file\0\0\1IM", 24);
    expect(run(pack_program, "--source", "folder", folders, "--labels",
               testing_path(path, directory, "meta.mat"), "--out", out, NULL),
           1, "meta.mat");
    expect_nothing(out);
}

/* ---- orientation ---- */

/* The picture with an EXIF segment that says "turn me by 90 degrees" (orientation 6). */
static struct bytes turned(const struct bytes *picture)
{
    static const uint8_t exif[] = {0xff, 0xe1, 0, 34, 'E', 'x', 'i', 'f', 0, 0,  'M', 'M',
                                   0,    42,   0, 0,  0,   8,   0,   1,   1, 18, 0,   3,
                                   0,    0,    0, 1,  0,   6,   0,   0,   0, 0,  0,   0};
    struct bytes result = {malloc(picture->count + sizeof exif), picture->count + sizeof exif};
    memcpy(result.data, picture->data, 2); /* behind the start of image */
    memcpy(result.data + 2, exif, sizeof exif);
    memcpy(result.data + 2 + sizeof exif, picture->data + 2, picture->count - 2);
    return result;
}

static void test_orientation_is_ignored(void **state)
{
    (void)state;
    char root[TESTING_PATH_BYTES], folder[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES];
    struct pack_result result;
    struct store *store;
    struct store_record plain, other;
    strcpy(root, testing_directory());
    assert_int_equal(mkdir(testing_path(folder, root, "class"), 0700), 0);
    struct bytes picture = input_picture(2, 1), exif = turned(&picture);
    write_file(folder, "a.JPEG", picture.data, picture.count);
    write_file(folder, "b.JPEG", exif.data, exif.count);
    for (int raw = 0; raw < 2; raw++) {
        struct job job = {
            "folder", {root}, testing_path(out, testing_directory(), "a.lmdb"), .raw = raw};
        assert_int_equal(pack_job(&result, &job), 0);
        pack_result_release(&result);
        assert_int_equal(store_open(&store, out), 0);
        assert_int_equal(store_read(&plain, store, 0), 0);
        assert_int_equal(store_read(&other, store, 1), 0);
        assert_true(plain.width != plain.height);
        assert_int_equal(other.width, plain.width);
        assert_int_equal(other.height, plain.height);
        if (raw) {
            assert_int_equal(other.image_bytes, plain.image_bytes);
            assert_memory_equal(other.image, plain.image, plain.image_bytes);
        }
        store_close(store);
    }
    free(picture.data);
    free(exif.data);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_permission_denied),
        cmocka_unit_test(test_source_goes_away),
        cmocka_unit_test(test_names_that_are_no_text),
        cmocka_unit_test(test_twice_and_empty),
        cmocka_unit_test(test_the_devkits_numbers),
        cmocka_unit_test(test_orientation_is_ignored),
    };
    if (argc != 4)
        return 2;
    pack_program = argv[1];
    inspect_program = argv[2];
    loader_program = argv[3];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
