/* SPDX-License-Identifier: Apache-2.0 */
/* Small inputs in every layout, made on the spot: class folders, tars of tars, IDX files. */
#ifndef TESTS_UNIT_DATASETS_INPUTS_H
#define TESTS_UNIT_DATASETS_INPUTS_H

#include "tests/unit/loader/pictures.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

enum { INPUT_CLASSES = 3, INPUT_FILES = 5 };

/* The classes in no order, and names whose order by bytes differs from other orders. */
static const char *const input_classes[INPUT_CLASSES] = {"n20", "n100", "N3"};
static const char *const input_files[INPUT_FILES] = {"b.JPEG", "B.jpg", "a10", "a9.png",
                                                     "\xc3\xa9"};

static inline void write_file(const char *directory, const char *name, const void *data,
                              size_t bytes)
{
    char path[TESTING_PATH_BYTES];
    FILE *file = fopen(testing_path(path, directory, name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

static inline struct bytes read_whole(const char *path)
{
    struct bytes bytes;
    assert_int_equal(file_read(&bytes.data, &bytes.count, path, 64 << 20), 0);
    return bytes;
}

/* The JPEG of class c, file f: one in three is grey, one in four progressive. */
static inline struct bytes input_picture(int c, int f)
{
    int number = c * INPUT_FILES + f;
    struct picture_options options = {.width = 20 + number,
                                      .height = 30 - number,
                                      .stored = number % 3 ? JCS_YCbCr : JCS_GRAYSCALE,
                                      .h_factor = number % 3 ? 2 : 1,
                                      .v_factor = number % 3 ? 2 : 1,
                                      .progressive = number % 4 == 0};
    return picture_make(options, (uint64_t)number);
}

static inline char *make_folders(char path[TESTING_PATH_BYTES])
{
    strcpy(path, testing_directory());
    for (int c = 0; c < INPUT_CLASSES; c++) {
        char folder[TESTING_PATH_BYTES];
        assert_int_equal(mkdir(testing_path(folder, path, input_classes[c]), 0777), 0);
        for (int f = 0; f < INPUT_FILES; f++) {
            struct bytes picture = input_picture(c, f);
            write_file(folder, input_files[f], picture.data, picture.count);
            free(picture.data);
        }
    }
    return path;
}

static inline void shuffle(int *order, int count, uint64_t *seed)
{
    for (int i = 0; i < count; i++)
        order[i] = i;
    for (int i = count - 1; i > 0; i--) {
        int other = (int)(testing_random(seed) % (uint64_t)(i + 1)), kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
}

static inline void add_member(struct archive *tar, const char *name, const void *data, size_t bytes)
{
    struct archive_entry *entry = archive_entry_new();
    archive_entry_set_pathname(entry, name);
    archive_entry_set_size(entry, (la_int64_t)bytes);
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, 0644);
    assert_int_equal(archive_write_header(tar, entry), ARCHIVE_OK);
    assert_int_equal(archive_write_data(tar, data, bytes), bytes);
    archive_entry_free(entry);
}

static inline struct archive *begin_tar(const char *path, bool compressed)
{
    struct archive *tar = archive_write_new();
    archive_write_set_format_pax_restricted(tar);
    archive_write_set_options(tar, "hdrcharset=BINARY");
    if (compressed)
        archive_write_add_filter_gzip(tar);
    assert_int_equal(archive_write_open_filename(tar, path), ARCHIVE_OK);
    return tar;
}

static inline void end_tar(struct archive *tar)
{
    assert_int_equal(archive_write_close(tar), ARCHIVE_OK);
    archive_write_free(tar);
}

/* The content of make_folders() as a tar of tars, its members in an order that follows from the
 * seed. The name that is not ASCII takes a pax header, which moves the data. */
static inline char *make_tar(char path[TESTING_PATH_BYTES], bool compressed, bool inner_compressed,
                             uint64_t seed)
{
    const char *directory = testing_directory();
    char inner_path[TESTING_PATH_BYTES], name[TESTING_PATH_BYTES];
    int classes[INPUT_CLASSES], files[INPUT_FILES];
    struct archive *outer = begin_tar(testing_path(path, directory, "o.tar"), compressed);
    testing_path(inner_path, directory, "inner");
    shuffle(classes, INPUT_CLASSES, &seed);
    for (int c = 0; c < INPUT_CLASSES; c++) {
        struct archive *inner = begin_tar(inner_path, inner_compressed);
        shuffle(files, INPUT_FILES, &seed);
        for (int f = 0; f < INPUT_FILES; f++) {
            struct bytes picture = input_picture(classes[c], files[f]);
            snprintf(name, sizeof name, "%s%s", f == 2 ? "./a-folder/" : "", input_files[files[f]]);
            add_member(inner, name, picture.data, picture.count);
            free(picture.data);
        }
        add_member(inner, ".hidden", "x", 1);
        end_tar(inner);
        struct bytes bytes = read_whole(inner_path);
        snprintf(name, sizeof name, "train/%s.tar", input_classes[classes[c]]);
        add_member(outer, name, bytes.data, bytes.count);
        free(bytes.data);
    }
    end_tar(outer);
    return path;
}

/* An IDX file of bytes. */
static inline void write_idx(const char *path, const uint32_t *sizes, int dimensions,
                             const uint8_t *data, size_t bytes, bool compressed)
{
    uint8_t head[16] = {0, 0, 8, (uint8_t)dimensions};
    size_t head_bytes = 4 + 4 * (size_t)dimensions;
    for (int i = 0; i < dimensions; i++)
        for (int b = 0; b < 4; b++)
            head[4 + 4 * i + b] = (uint8_t)(sizes[i] >> (24 - 8 * b));
    struct archive *file = archive_write_new();
    struct archive_entry *entry = archive_entry_new();
    archive_write_set_format_raw(file);
    if (compressed)
        archive_write_add_filter_gzip(file);
    assert_int_equal(archive_write_open_filename(file, path), ARCHIVE_OK);
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_pathname(entry, "data");
    assert_int_equal(archive_write_header(file, entry), ARCHIVE_OK);
    assert_int_equal(archive_write_data(file, head, head_bytes), head_bytes);
    assert_int_equal(archive_write_data(file, data, bytes), bytes);
    archive_entry_free(entry);
    end_tar(file);
}

/* How many names a directory holds that are not hidden. */
static inline int count_names(const char *directory)
{
    DIR *listing = opendir(directory);
    assert_non_null(listing);
    int count = 0;
    for (struct dirent *item; (item = readdir(listing));)
        count += item->d_name[0] != '.';
    closedir(listing);
    return count;
}

#endif
