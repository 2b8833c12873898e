/* SPDX-License-Identifier: Apache-2.0 */
/* Key files for CURVE (Curve25519, as ZeroMQ uses it), made by satchel-keygen.
 *
 * NAME.pub holds the line "satchel-public-key HEX", NAME.key the line "satchel-secret-key HEX", HEX
 * being the 64 lower-case digits of 32 bytes. Nothing else is accepted: a half-copied or mixed-up
 * key must not turn into a connection that is less safe than its owner thinks. A secret key that
 * anybody but its owner may read or write is refused. Errors: ERR_IO, ERR_DATA, each naming the
 * file and the way out. */
#ifndef PROTO_KEYS_H
#define PROTO_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    KEY_BYTES = 32,
    KEY_TEXT_BYTES = 2 * KEY_BYTES + 1,
    KEY_NAME_BYTES = 128,  /* of a key in a directory: its file's name without ".pub" */
    KEY_LIST_MAX = 1 << 16 /* keys in a directory */
};

struct key {
    uint8_t bytes[KEY_BYTES];
};

struct key_pair {
    struct key public_key, secret_key;
};

/* A fresh pair from the kernel's random numbers. ERR_UNSUPPORTED when libzmq lacks CURVE. */
int key_pair_make(struct key_pair *pair);

/* Writes directory/name.key (mode 0600) and directory/name.pub, making the directory (mode 0700)
 * when it is missing. Never overwrites: ERR_ARG when one of them exists, or for a name of other
 * than 1 to 100 of A-Z a-z 0-9 _ - . : (the first of them a letter or digit). */
int key_pair_write(const struct key_pair *pair, const char *directory, const char *name);

/* Reads a secret key and works out its public half. */
int key_pair_read(struct key_pair *pair, const char *path);

/* Forgets the secret. */
void key_pair_wipe(struct key_pair *pair);

int key_read_public(struct key *key, const char *path);

bool key_equal(const struct key *a, const struct key *b);
void key_to_text(char dst[KEY_TEXT_BYTES], const struct key *key);

struct named_key {
    char name[KEY_NAME_BYTES];
    struct key key;
};

struct key_list {
    struct named_key *keys; /* by name, in byte order */
    size_t count;
};

/* Reads every *.pub in a directory (other files and hidden ones are not looked at); it may hold
 * none. bad NULL: a file that is no public key is an error. Otherwise such files are left out,
 * counted in *bad and logged: for a list that is read again, where one bad file must neither keep a
 * key that was taken away nor lock everybody out. On errors the list is empty. */
int key_list_read(struct key_list *list, const char *directory, size_t *bad);
void key_list_free(struct key_list *list); /* accepts an empty one */

/* NULL when it is not among them. */
const struct named_key *key_list_find(const struct key_list *list, const struct key *key);
const struct named_key *key_list_named(const struct key_list *list, const char *name);

#endif
