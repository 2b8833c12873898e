/* SPDX-License-Identifier: Apache-2.0 */
/* Who may connect: the ZeroMQ Authentication Protocol (rfc.zeromq.org/spec/27) answered by a thread
 * of this process, from an allow-list of trainers' public keys. ZeroMQ asks at every handshake with
 * CURVE, and lets everybody in when nobody answers: sock_bind refuses to use keys without it. */
#ifndef PROTO_ZAP_H
#define PROTO_ZAP_H

#include <stdbool.h>

#include "proto/keys.h"
#include "proto/sock.h"

struct zap;

/* Starts to answer for all sockets of this context. Takes the list over (it is emptied). */
int zap_open(struct zap **out, struct sock_context *context, struct key_list *allowed);
void zap_close(struct zap *zap); /* after the sockets that need it; accepts NULL */

/* Replaces the list, which is taken over. Connections that stand are the caller's business. */
void zap_allow(struct zap *zap, struct key_list *allowed);

/* Keeps this key out for some seconds, whatever the list says. Any thread. */
void zap_ban(struct zap *zap, const char *key_text, int seconds);

/* True when the list has the key (as text, see sock_message_key); name is what it is called there.
 * Any thread. */
bool zap_allows(struct zap *zap, const char *key_text, char name[KEY_NAME_BYTES]);

#endif
