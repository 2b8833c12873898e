/* SPDX-License-Identifier: Apache-2.0 */
/* Error codes and the calling thread's last error message.
 *
 * Every function that can fail returns an int: 0 for success, one of the codes below for failure.
 * Whoever finds the failure calls err_set() once, with the thing, the reason and the way out;
 * callers pass the code on, adding context with err_wrap() only where it tells the user more. Only
 * main() turns a code into an exit status. */
#ifndef COMMON_ERR_H
#define COMMON_ERR_H

enum err {
    ERR_OK = 0,
    ERR_ARG = -1000,     /* the user asked for something that cannot be: exit status 2 */
    ERR_STOPPED = -1001, /* stopped on request, can be resumed: exit status 3 */
    ERR_IO = -1002,      /* the operating system refused: file, directory, socket */
    ERR_NOMEM = -1003,
    ERR_DATA = -1004,        /* a file or record is damaged, incomplete or of another kind */
    ERR_PEER = -1005,        /* the other side of a connection sent something wrong or refused */
    ERR_UNSUPPORTED = -1006, /* this build or machine cannot do it */
    ERR_INTERNAL = -1007,    /* a broken promise inside the program */
};

/* Records a formatted message for this thread and returns code (so: return err_set(...)).
 * Messages are one line without a final newline or full stop; longer than 1,023 bytes is cut. */
int err_set(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts "<context>: " in front of this thread's message and returns code. */
int err_wrap(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* This thread's last message, never NULL; valid until the thread's next err_set or err_wrap. */
const char *err_message(void);

/* 0 -> 0, ERR_ARG -> 2, ERR_STOPPED -> 3, everything else -> 1. */
int err_exit_status(int code);

#endif
