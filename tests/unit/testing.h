/* SPDX-License-Identifier: Apache-2.0 */
/* Small helpers for unit tests: a printed seed, a temporary directory that goes away, endpoints. */
#ifndef TESTS_UNIT_TESTING_H
#define TESTS_UNIT_TESTING_H

#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { TESTING_PATH_BYTES = 512, TESTING_DIRECTORIES = 64 };

/* $SATCHEL_TEST_SEED, else a fresh one; printed at the first call so that a failure can be run
 * again. */
static inline uint64_t testing_seed(void)
{
    static uint64_t seed;
    static int known;
    if (known)
        return seed;
    const char *text = getenv("SATCHEL_TEST_SEED");
    if (text)
        seed = strtoull(text, NULL, 0);
    else if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        abort();
    fprintf(stderr, "SATCHEL_TEST_SEED=%llu\n", (unsigned long long)seed);
    known = 1;
    return seed;
}

/* splitmix64 (Vigna): the next number of a sequence that *state begins. */
static inline uint64_t testing_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* In [0, 1). */
static inline double testing_unit(uint64_t *state)
{
    return (double)(testing_random(state) >> 11) * 0x1p-53;
}

/* Flips, overwrites, cuts off and doubles bytes, one to four times; the new count, at most room. */
static inline size_t testing_mutate(uint8_t *bytes, size_t count, size_t room, uint64_t *seed)
{
    for (uint64_t left = 1 + testing_random(seed) % 4; left > 0 && count > 0; left--) {
        size_t at = testing_random(seed) % count;
        size_t behind = count - at;
        switch (testing_random(seed) % 5) {
        case 0:
            bytes[at] ^= (uint8_t)(1u << testing_random(seed) % 8);
            break;
        case 1:
            bytes[at] = (uint8_t)testing_random(seed);
            break;
        case 2:
            bytes[at] = testing_random(seed) % 2 ? 0xff : 0x7f;
            break;
        case 3:
            count = at;
            break;
        default:
            if (count + behind <= room) {
                memmove(bytes + count, bytes + at, behind);
                count += behind;
            }
        }
    }
    return count;
}

static char testing_directories[TESTING_DIRECTORIES][TESTING_PATH_BYTES];
static int testing_directory_count;
static pid_t testing_owner;

static inline int testing_remove_one(const char *path, const struct stat *status, int type,
                                     struct FTW *walk)
{
    (void)status;
    (void)type;
    (void)walk;
    return remove(path);
}

/* Only the process that made them: a forked child that calls exit() must not. */
static inline void testing_remove_directories(void)
{
    if (getpid() != testing_owner)
        return;
    for (int i = 0; i < testing_directory_count; i++)
        nftw(testing_directories[i], testing_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* A new empty directory under $TMPDIR or /tmp, removed with its content when the test exits. */
static inline const char *testing_directory(void)
{
    if (testing_directory_count == TESTING_DIRECTORIES)
        abort();
    char *path = testing_directories[testing_directory_count];
    const char *root = getenv("TMPDIR");
    /* Short, because an ipc endpoint's path must stay under 108 bytes. */
    snprintf(path, TESTING_PATH_BYTES, "%s/satchel-XXXXXX", root && *root ? root : "/tmp");
    if (!mkdtemp(path)) {
        perror("mkdtemp");
        abort();
    }
    if (testing_directory_count++ == 0) {
        testing_owner = getpid();
        atexit(testing_remove_directories);
    }
    return path;
}

/* dst = directory/name */
static inline char *testing_path(char dst[TESTING_PATH_BYTES], const char *directory,
                                 const char *name)
{
    if (snprintf(dst, TESTING_PATH_BYTES, "%s/%s", directory, name) >= TESTING_PATH_BYTES)
        abort();
    return dst;
}

/* A ZeroMQ endpoint that nobody else uses: a socket file in the directory. */
static inline char *testing_endpoint(char dst[TESTING_PATH_BYTES], const char *directory)
{
    static int number;
    snprintf(dst, TESTING_PATH_BYTES, "ipc://%s/%d", directory, number++);
    return dst;
}

#endif
