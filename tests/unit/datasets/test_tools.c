/* SPDX-License-Identifier: Apache-2.0 */
/* satchel-pack and satchel-inspect as a user runs them: exit status, one line on stderr for each
 * refusal, and the JSON line. Usage: test_tools PACK INSPECT */
#include "tests/unit/datasets/programs.h"

static const char *pack_program, *inspect_program;

static void test_pack_and_inspect(void **state)
{
    (void)state;
    char folders[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES], image[TESTING_PATH_BYTES];
    char fingerprint[33];
    testing_path(out, testing_directory(), "a.lmdb");
    struct run *got = run(pack_program, "--source", "folder", make_folders(folders), "--out", out,
                          "--json", "--verify", "--jobs", "2", NULL);
    assert_int_equal(got->status, 0);
    cJSON *json = json_of(got);
    assert_true(number_of(json, "samples") == 15);
    assert_true(number_of(json, "classes") == 3);
    assert_true(number_of(json, "indexed") == 11); /* every fourth is progressive */
    assert_true(number_of(json, "bytes") > 0);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "bad")), 0);
    strcpy(fingerprint, cJSON_GetObjectItem(json, "fingerprint")->valuestring);
    cJSON_Delete(json);
    got = run(inspect_program, out, "--check", "--json", NULL);
    assert_int_equal(got->status, 0);
    json = json_of(got);
    assert_true(number_of(json, "samples") == 15);
    assert_string_equal(cJSON_GetObjectItem(json, "fingerprint")->valuestring, fingerprint);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "damaged")), 0);
    cJSON_Delete(json);
    got = run(inspect_program, out, "--extract", "14", "--out",
              testing_path(image, testing_directory(), "14.jpg"), NULL);
    assert_int_equal(got->status, 0);
    struct bytes bytes = read_whole(image), picture = input_picture(0, 4);
    assert_int_equal(bytes.count, picture.count);
    assert_memory_equal(bytes.data, picture.data, picture.count);
    free(bytes.data);
    free(picture.data);
    expect(run(inspect_program, out, "--extract", "15", NULL), 2, "no record 15");
    /* The index is beside the data, not part of it. */
    char plain[TESTING_PATH_BYTES];
    got = run(pack_program, "--source", "folder", folders, "--out",
              testing_path(plain, testing_directory(), "plain.lmdb"), "--index", "-1", "--json",
              NULL);
    assert_int_equal(got->status, 0);
    json = json_of(got);
    assert_true(number_of(json, "indexed") == 0);
    assert_string_equal(cJSON_GetObjectItem(json, "fingerprint")->valuestring, fingerprint);
    cJSON_Delete(json);
    expect(run(pack_program, "--source", "folder", folders, "--out", out, NULL), 2, "exists");
}

static void test_resize(void **state)
{
    (void)state;
    const char *directory = testing_directory();
    char folders[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES], same[TESTING_PATH_BYTES];
    char fingerprint[33];
    make_folders(folders);
    struct run *got = run(pack_program, "--source", "folder", folders, "--out",
                          testing_path(out, directory, "a.lmdb"), "--resize-short", "12",
                          "--quality", "80", "--json", "--jobs", "3", NULL);
    assert_int_equal(got->status, 0);
    cJSON *json = json_of(got);
    assert_true(number_of(json, "indexed") == 15); /* progressive ones became baseline */
    strcpy(fingerprint, cJSON_GetObjectItem(json, "fingerprint")->valuestring);
    cJSON_Delete(json);
    got = run(inspect_program, out, "--check", "--json", NULL);
    assert_int_equal(got->status, 0);
    json = json_of(got);
    assert_true(number_of(cJSON_GetObjectItem(json, "height_px"), "min") == 12);
    assert_true(number_of(cJSON_GetObjectItem(json, "width_px"), "min") == 12);
    cJSON_Delete(json);
    got = run(pack_program, "--source", "folder", folders, "--out",
              testing_path(same, directory, "b.lmdb"), "--resize-short", "12", "--quality", "80",
              "--json", "--jobs", "1", "--index", "-1", NULL);
    json = json_of(got);
    assert_string_equal(cJSON_GetObjectItem(json, "fingerprint")->valuestring, fingerprint);
    cJSON_Delete(json);
    testing_path(out, directory, "c.lmdb");
    expect(run(pack_program, "--source", "folder", folders, "--out", out, "--resize-short", "9",
               "--resize-long", "9", NULL),
           2, "exclude");
    expect(run(pack_program, "--source", "folder", folders, "--out", out, "--resize-short", "9",
               "--encoding", "raw", NULL),
           2, "raw");
    assert_int_equal(count_names(directory), 2);
}

static void test_bad_file_line(void **state)
{
    (void)state;
    char folders[TESTING_PATH_BYTES], folder[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES];
    const char *directory = testing_directory();
    testing_path(folder, make_folders(folders), "N3");
    write_file(folder, "broken.JPEG", "no image", 8);
    testing_path(out, directory, "a.lmdb");
    expect(run(pack_program, "--source", "folder", folders, "--out", out, NULL), 1,
           "N3/broken.JPEG: ");
    assert_int_equal(count_names(directory), 0);
    struct run *got =
        run(pack_program, "--source", "folder", folders, "--out", out, "--json", NULL);
    assert_int_equal(got->status, 1);
    cJSON *json = json_of(got), *bad = cJSON_GetObjectItem(json, "bad");
    assert_int_equal(cJSON_GetArraySize(bad), 1);
    assert_string_equal(cJSON_GetObjectItem(cJSON_GetArrayItem(bad, 0), "file")->valuestring,
                        "N3/broken.JPEG");
    assert_true(cJSON_IsString(cJSON_GetObjectItem(cJSON_GetArrayItem(bad, 0), "reason")));
    cJSON_Delete(json);
}

/* What a store says is shown, not obeyed: U+009B begins what terminals act on. */
static void test_names_are_shown(void **state)
{
    (void)state;
    const char *directory = testing_directory();
    static const char names[] = "one\xc2\x9b"
                                "2J\ntwo\nthree\n";
    char folders[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES], list[TESTING_PATH_BYTES];
    write_file(directory, "names", names, sizeof names - 1);
    struct run *got = run(pack_program, "--source", "folder", make_folders(folders), "--out",
                          testing_path(out, directory, "a.lmdb"), "--class-names",
                          testing_path(list, directory, "names"), NULL);
    assert_int_equal(got->status, 0);
    got = run(inspect_program, out, NULL);
    assert_int_equal(got->status, 0);
    assert_non_null(strstr(got->out, "one\\xc2\\x9b2J"));
    assert_null(strstr(got->out, "\xc2\x9b"));
}

static void test_refusals(void **state)
{
    (void)state;
    const char *directory = testing_directory();
    char folders[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES], bad[TESTING_PATH_BYTES];
    make_folders(folders);
    testing_path(out, directory, "a.lmdb");
    testing_path(bad, directory, "no/such/a.lmdb");
    expect(run(pack_program, "--source", "folder", "/no/such", "--out", out, NULL), 1, "/no/such");
    expect(run(pack_program, "--source", "folder", folders, "--out", bad, NULL), 1, "no/such");
    expect(run(pack_program, "--source", "folder", folders, NULL), 2, "--out");
    expect(run(pack_program, "--source", "folder", folders, "--out", "a.partial", NULL), 2,
           "unfinished");
    expect(run(pack_program, folders, "--out", out, NULL), 2, "--source");
    expect(run(pack_program, "--source", "folder", "--out", out, NULL), 2, "satchel-pack");
    expect(run(pack_program, "--source", "fodler", folders, "--out", out, NULL), 2, "fodler");
    expect(run(pack_program, "--source", "rec", folders, "--out", out, NULL), 1, "regular file");
    expect(run(pack_program, "--source", "rec", folders, "--out", out, "--labels", "x", NULL), 2,
           "--labels");
    expect(run(pack_program, "--source", "folder", folders, "--out", out, "--index", "x", NULL), 2,
           "--index");
    assert_int_equal(count_names(directory), 0);
    write_file(directory, "text.lmdb", "hello\n", 6);
    expect(run(inspect_program, testing_path(bad, directory, "text.lmdb"), NULL), 1,
           "not a Satchel store");
    expect(run(inspect_program, "/no/such", NULL), 1, "/no/such");
    expect(run(inspect_program, NULL), 2, "satchel-inspect");
    expect(run(inspect_program, out, "--out", "x", NULL), 2, "--extract");
}

static void test_damage(void **state)
{
    (void)state;
    const char *directory = testing_directory();
    char folders[TESTING_PATH_BYTES], out[TESTING_PATH_BYTES], bad[TESTING_PATH_BYTES];
    testing_path(out, directory, "a.lmdb");
    testing_path(bad, directory, "bad.lmdb");
    assert_int_equal(
        run(pack_program, "--source", "folder", make_folders(folders), "--out", out, NULL)->status,
        0);
    struct bytes file = read_whole(out), picture = input_picture(2, 1); /* id 0 */
    uint8_t *found = memmem(file.data, file.count, picture.data, picture.count);
    assert_non_null(found);
    found[picture.count - 1] ^= 64;
    write_file(directory, "bad.lmdb", file.data, file.count);
    struct run *got = run(inspect_program, bad, "--check", "--json", NULL);
    assert_int_equal(got->status, 1);
    assert_int_equal(count_lines(got->err), 1);
    cJSON *json = json_of(got), *damaged = cJSON_GetObjectItem(json, "damaged");
    assert_int_equal(cJSON_GetArraySize(damaged), 1);
    assert_int_equal(cJSON_GetArrayItem(damaged, 0)->valueint, 0);
    cJSON_Delete(json);
    write_file(directory, "bad.lmdb", file.data, file.count / 2);
    expect(run(inspect_program, bad, NULL), 1, "truncated");
    free(file.data);
    free(picture.data);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pack_and_inspect), cmocka_unit_test(test_resize),
        cmocka_unit_test(test_bad_file_line),    cmocka_unit_test(test_names_are_shown),
        cmocka_unit_test(test_refusals),         cmocka_unit_test(test_damage),
    };
    if (argc != 3)
        return 2;
    pack_program = argv[1];
    inspect_program = argv[2];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
