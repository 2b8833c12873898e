/* SPDX-License-Identifier: Apache-2.0 */
/* Stands in for libFuzzer where the tests are built without it: runs a target once on each input
 * that fuzzing kept.
 *
 *   replay CORPUS.tar.gz FOLDER */
#include <archive.h>
#include <archive_entry.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INPUT_BYTES_MOST = 1 << 16 };

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* On a copy of its very size, so that the address sanitizer sees reads behind it. */
static int run_entry(struct archive *archive, struct archive_entry *entry)
{
    int64_t bytes = archive_entry_size(entry);
    if (bytes < 0 || bytes > INPUT_BYTES_MOST)
        return 1;
    uint8_t *data = malloc(bytes ? (size_t)bytes : 1);
    int failed = !data || archive_read_data(archive, data, (size_t)bytes) != bytes;
    if (!failed)
        LLVMFuzzerTestOneInput(data, (size_t)bytes);
    free(data);
    return failed;
}

static int run_all(struct archive *archive, const char *folder)
{
    struct archive_entry *entry;
    int runs = 0, failed = 0;
    size_t prefix = strlen(folder);
    while (!failed && archive_read_next_header(archive, &entry) == ARCHIVE_OK) {
        const char *path = archive_entry_pathname(entry);
        if (archive_entry_filetype(entry) != AE_IFREG || strncmp(path, folder, prefix) != 0 ||
            path[prefix] != '/')
            continue;
        failed = run_entry(archive, entry);
        if (failed)
            fprintf(stderr, "%s: cannot be read\n", path);
        runs++;
    }
    printf("%s: %d inputs\n", folder, runs);
    return failed || runs == 0;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s CORPUS.tar.gz FOLDER\n", argv[0]);
        return 2;
    }
    LLVMFuzzerInitialize(&argc, &argv);
    struct archive *archive = archive_read_new();
    archive_read_support_format_tar(archive);
    archive_read_support_filter_gzip(archive);
    int failed = archive_read_open_filename(archive, argv[1], 1 << 16) != ARCHIVE_OK;
    if (failed)
        fprintf(stderr, "%s: %s\n", argv[1], archive_error_string(archive));
    else
        failed = run_all(archive, argv[2]);
    archive_read_free(archive);
    return failed;
}
