/* SPDX-License-Identifier: Apache-2.0 */
/* satchel-keygen: makes the key pair of a loader or a trainer. */
#include <stdio.h>

#include "common/err.h"
#include "common/log.h"
#include "common/opt.h"
#include "proto/keys.h"

static int run(const char *directory, const char *name)
{
    struct key_pair pair;
    char text[KEY_TEXT_BYTES];
    int code = key_pair_make(&pair);
    if (!code)
        code = key_pair_write(&pair, directory, name);
    if (!code) {
        key_to_text(text, &pair.public_key);
        printf("%s/%s.key  secret: stays with the program that is %s (--secret-key)\n"
               "%s/%s.pub  public: goes to the hosts that %s talks to (--allow, --server-keys)\n"
               "public key %s\n",
               directory, name, name, directory, name, name, text);
    }
    key_pair_wipe(&pair);
    return code;
}

int main(int argc, char **argv)
{
    struct opt_program program = {
        .name = "satchel-keygen",
        .usage = "DIR NAME",
        .summary = "Makes a key pair: DIR/NAME.key (secret, mode 0600) and DIR/NAME.pub. Every "
                   "loader and every trainer has its own. Nothing is overwritten.",
        .min_positional = 2,
        .max_positional = 2,
    };
    log_open(program.name);
    int code = opt_parse(&program, argc, argv);
    if (!code && !program.finished)
        code = run(program.positional[0], program.positional[1]);
    return opt_end(&program, code);
}
