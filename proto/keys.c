/* SPDX-License-Identifier: Apache-2.0 */
/* Key files: written once, read strictly. */
#include "proto/keys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "common/err.h"
#include "common/log.h"

enum {
    Z85_BYTES = 41,       /* 32 bytes in ZeroMQ's base 85, with the final NUL */
    FILE_BYTES_MAX = 256, /* a key file is one short line */
    NAME_MAX_LETTERS = 100,
};

#define PUBLIC_WORD "satchel-public-key"
#define SECRET_WORD "satchel-secret-key"

/* ---- keys ---- */

static int no_curve(void)
{
    return err_set(ERR_UNSUPPORTED, "this libzmq was built without CURVE: install one with "
                                    "libsodium (Debian's libzmq5 has it)");
}

int key_pair_make(struct key_pair *pair)
{
    char public_text[Z85_BYTES], secret_text[Z85_BYTES];
    if (zmq_curve_keypair(public_text, secret_text) != 0)
        return no_curve();
    bool good = zmq_z85_decode(pair->public_key.bytes, public_text) &&
                zmq_z85_decode(pair->secret_key.bytes, secret_text);
    explicit_bzero(secret_text, sizeof(secret_text));
    return good ? ERR_OK : err_set(ERR_INTERNAL, "libzmq made a key that it cannot read");
}

/* The public half of a secret key. */
static int derive_public(struct key_pair *pair)
{
    char public_text[Z85_BYTES], secret_text[Z85_BYTES];
    zmq_z85_encode(secret_text, pair->secret_key.bytes, KEY_BYTES);
    int failed = zmq_curve_public(public_text, secret_text);
    explicit_bzero(secret_text, sizeof(secret_text));
    if (failed || !zmq_z85_decode(pair->public_key.bytes, public_text))
        return no_curve();
    return ERR_OK;
}

void key_pair_wipe(struct key_pair *pair)
{
    explicit_bzero(pair, sizeof(*pair));
}

bool key_equal(const struct key *a, const struct key *b)
{
    return memcmp(a->bytes, b->bytes, KEY_BYTES) == 0;
}

void key_to_text(char dst[KEY_TEXT_BYTES], const struct key *key)
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < KEY_BYTES; i++) {
        dst[2 * i] = digits[key->bytes[i] >> 4];
        dst[2 * i + 1] = digits[key->bytes[i] & 15];
    }
    dst[2 * KEY_BYTES] = 0;
}

static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "WORD HEX", with or without a final newline. */
static bool parse_line(struct key *key, const char *text, size_t bytes, const char *word)
{
    size_t length = strlen(word);
    if (bytes > 0 && text[bytes - 1] == '\n')
        bytes--;
    if (bytes != length + 1 + 2 * KEY_BYTES || memcmp(text, word, length) != 0 ||
        text[length] != ' ')
        return false;
    uint8_t any = 0;
    for (int i = 0; i < KEY_BYTES; i++) {
        int high = digit_of(text[length + 1 + 2 * i]), low = digit_of(text[length + 2 + 2 * i]);
        if (high < 0 || low < 0)
            return false;
        key->bytes[i] = (uint8_t)(high << 4 | low);
        any |= key->bytes[i];
    }
    return any != 0; /* nobody's key, and one that libsodium cannot work with */
}

/* ---- reading ---- */

static int check_private(const struct stat *facts, const char *path)
{
    if (facts->st_mode & 077)
        return err_set(ERR_DATA,
                       "'%s' has mode %04o: others may read or change this secret key; chmod 600 "
                       "it, and make a new one if others may have seen it",
                       path, (unsigned)facts->st_mode & 07777);
    if (facts->st_uid != geteuid() && facts->st_uid != 0)
        return err_set(ERR_DATA, "'%s' belongs to another user (%u): chown it", path,
                       (unsigned)facts->st_uid);
    return ERR_OK;
}

/* Opens without waiting for a pipe's writer, and only what is a plain file. */
static int open_key(int *fd, struct stat *facts, const char *path)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (*fd < 0)
        return err_set(ERR_IO, "cannot open the key '%s': %s", path, strerror(errno));
    int code = ERR_OK;
    if (fstat(*fd, facts) != 0)
        code = err_set(ERR_IO, "cannot read the key '%s': %s", path, strerror(errno));
    else if (!S_ISREG(facts->st_mode))
        code = err_set(ERR_DATA, "'%s' is no plain file, a key file is expected", path);
    if (code)
        close(*fd);
    return code;
}

static int read_key(struct key *key, const char *path, bool secret)
{
    const char *word = secret ? SECRET_WORD : PUBLIC_WORD;
    const char *other = secret ? PUBLIC_WORD : SECRET_WORD;
    char text[FILE_BYTES_MAX];
    struct key unused;
    struct stat facts;
    int fd;
    int code = open_key(&fd, &facts, path);
    if (code)
        return code;
    ssize_t bytes = read(fd, text, sizeof(text));
    int failure = errno;
    close(fd);
    if (bytes < 0)
        code = err_set(ERR_IO, "cannot read the key '%s': %s", path, strerror(failure));
    else if (parse_line(key, text, (size_t)bytes, word))
        code = secret ? check_private(&facts, path) : ERR_OK;
    else if (parse_line(&unused, text, (size_t)bytes, other))
        code = err_set(ERR_DATA, "'%s' holds a %s key, the %s one is expected", path,
                       secret ? "public" : "secret", secret ? "secret" : "public");
    else
        code = err_set(ERR_DATA, "'%s' is no key file of satchel-keygen (one line: %s HEX)", path,
                       word);
    explicit_bzero(text, sizeof(text));
    explicit_bzero(&unused, sizeof(unused));
    return code;
}

int key_pair_read(struct key_pair *pair, const char *path)
{
    int code = read_key(&pair->secret_key, path, true);
    if (!code)
        code = derive_public(pair);
    if (code)
        key_pair_wipe(pair);
    return code;
}

int key_read_public(struct key *key, const char *path)
{
    return read_key(key, path, false);
}

/* ---- directories ---- */

/* The length of NAME in NAME.pub; 0 for every other file. */
static size_t name_length(const char *file)
{
    size_t length = strlen(file);
    if (file[0] == '.' || length <= 4 || strcmp(file + length - 4, ".pub") != 0)
        return 0;
    return length - 4;
}

static int list_add(struct key_list *list, const char *directory, const char *file)
{
    struct named_key entry = {0};
    char path[4096];
    size_t length = name_length(file);
    if (length >= sizeof(entry.name))
        return err_set(ERR_DATA, "%s/%s: a name of %zu letters, %zu at most", directory, file,
                       length, sizeof(entry.name) - 1);
    if (snprintf(path, sizeof(path), "%s/%s", directory, file) >= (int)sizeof(path))
        return err_set(ERR_DATA, "%s: the path is too long", directory);
    memcpy(entry.name, file, length);
    int code = key_read_public(&entry.key, path);
    if (code)
        return code;
    if (list->count == KEY_LIST_MAX)
        return err_set(ERR_DATA, "%s: more than %d keys", directory, KEY_LIST_MAX);
    if ((list->count & (list->count - 1)) == 0) { /* full at each power of two */
        size_t room = list->count ? 2 * list->count : 1;
        struct named_key *keys = realloc(list->keys, room * sizeof(*keys));
        if (!keys)
            return err_set(ERR_NOMEM, "%s: out of memory", directory);
        list->keys = keys;
    }
    list->keys[list->count++] = entry;
    return ERR_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct named_key *)a)->name, ((const struct named_key *)b)->name);
}

int key_list_read(struct key_list *list, const char *directory, size_t *bad)
{
    *list = (struct key_list){0};
    if (bad)
        *bad = 0;
    DIR *stream = opendir(directory);
    if (!stream)
        return err_set(ERR_IO, "cannot read the keys in '%s': %s", directory, strerror(errno));
    int code = ERR_OK;
    const struct dirent *entry;
    while (!code && (errno = 0, entry = readdir(stream))) {
        if (name_length(entry->d_name) == 0)
            continue;
        code = list_add(list, directory, entry->d_name);
        if (code && code != ERR_NOMEM && bad) {
            log_error("%s (left out)", err_message());
            *bad += 1;
            code = ERR_OK;
        }
    }
    if (!code && errno)
        code = err_set(ERR_IO, "cannot read the keys in '%s': %s", directory, strerror(errno));
    closedir(stream);
    if (code)
        key_list_free(list);
    else if (list->count > 0)
        qsort(list->keys, list->count, sizeof(*list->keys), by_name);
    return code;
}

void key_list_free(struct key_list *list)
{
    free(list->keys);
    *list = (struct key_list){0};
}

const struct named_key *key_list_find(const struct key_list *list, const struct key *key)
{
    for (size_t i = 0; i < list->count; i++)
        if (key_equal(&list->keys[i].key, key))
            return &list->keys[i];
    return NULL;
}

const struct named_key *key_list_named(const struct key_list *list, const char *name)
{
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->keys[i].name, name) == 0)
            return &list->keys[i];
    return NULL;
}

/* ---- writing ---- */

static int check_name(const char *name)
{
    size_t length = strlen(name);
    if (length < 1 || length > NAME_MAX_LETTERS ||
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:") !=
            length ||
        strchr("_-.:", name[0]))
        return err_set(ERR_ARG,
                       "a key's name has 1 to %d letters, digits, '_', '-', '.' or ':', and begins "
                       "with a letter or digit",
                       NAME_MAX_LETTERS);
    return ERR_OK;
}

/* A new file with these permissions from its first moment on. */
static int write_key(const char *path, mode_t mode, const char *word, const struct key *key)
{
    char digits[KEY_TEXT_BYTES];
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0)
        return err_set(errno == EEXIST ? ERR_ARG : ERR_IO, "cannot write '%s': %s%s", path,
                       strerror(errno),
                       errno == EEXIST ? "; choose another name, or remove it" : "");
    key_to_text(digits, key);
    bool good = fchmod(fd, mode) == 0 && dprintf(fd, "%s %s\n", word, digits) > 0 && fsync(fd) == 0;
    int failure = errno;
    explicit_bzero(digits, sizeof(digits));
    bool closed = close(fd) == 0;
    if (good && closed)
        return ERR_OK;
    if (good)
        failure = errno;
    unlink(path);
    return err_set(ERR_IO, "cannot write '%s': %s", path, strerror(failure));
}

int key_pair_write(const struct key_pair *pair, const char *directory, const char *name)
{
    char secret_path[4096], public_path[4096];
    int code = check_name(name);
    if (code)
        return code;
    int length = snprintf(secret_path, sizeof(secret_path), "%s/%s.key", directory, name);
    if (length >= (int)sizeof(secret_path))
        return err_set(ERR_ARG, "%s: the path is too long", directory);
    snprintf(public_path, sizeof(public_path), "%s/%s.pub", directory, name);
    if (mkdir(directory, 0700) != 0 && errno != EEXIST)
        return err_set(ERR_IO, "cannot make the directory '%s': %s", directory, strerror(errno));
    if (access(public_path, F_OK) == 0)
        return err_set(ERR_ARG, "'%s' exists; choose another name, or remove it", public_path);
    code = write_key(secret_path, 0600, SECRET_WORD, &pair->secret_key);
    if (code)
        return code;
    code = write_key(public_path, 0644, PUBLIC_WORD, &pair->public_key);
    if (code)
        unlink(secret_path);
    return code;
}
