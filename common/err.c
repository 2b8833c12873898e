/* SPDX-License-Identifier: Apache-2.0 */
#include "common/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGE_BYTES = 1024 };

static _Thread_local char message[MESSAGE_BYTES];

int err_set(int code, const char *format, ...)
{
    /* Formatted aside first: the arguments may point into the message that is replaced. */
    char text[MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    memcpy(message, text, sizeof text);
    return code;
}

int err_wrap(int code, const char *format, ...)
{
    char text[MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    size_t used = strlen(text);
    size_t room = sizeof text - 1 - used; /* what does not fit is cut */
    snprintf(text + used, room + 1, "%.*s", (int)room, ": ");
    used = strlen(text);
    room = sizeof text - 1 - used;
    snprintf(text + used, room + 1, "%.*s", (int)room, message);
    memcpy(message, text, sizeof text);
    return code;
}

const char *err_message(void)
{
    return message;
}

int err_exit_status(int code)
{
    switch (code) {
    case ERR_OK:
        return 0;
    case ERR_ARG:
        return 2;
    case ERR_STOPPED:
        return 3;
    default:
        return 1;
    }
}
