/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines on stderr, and the place where the progress line shares the terminal with them. */
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    TEXT_BYTES = 2048,
    LINE_BYTES = 4 * TEXT_BYTES + 256, /* every byte of the text escaped, and what stands before */
};

static const char erase_line[] = "\r\033[K";
static const char *program_name = "satchel";
static atomic_bool verbose, quiet;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool line_stands; /* lock: an unfinished line is on the terminal */

/* A standard descriptor that the caller closed would go to the next file that is opened, and lines
 * of the log would end up in a store. Opened the wrong way round, so that using it is an error. */
static void fill_standard_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        /* open() takes the lowest that is free: this one. */
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd ? O_RDONLY : O_WRONLY) < 0)
            return;
    }
}

void log_open(const char *program)
{
    fill_standard_descriptors();
    program_name = program;
}

void log_set_verbose(bool on)
{
    atomic_store(&verbose, on);
}

void log_set_quiet(bool on)
{
    atomic_store(&quiet, on);
}

/* The reader of the log is gone or full when this fails: there is nobody to tell. */
static void write_all(const char *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t written = write(STDERR_FILENO, data, bytes);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return;
        data += written;
        bytes -= (size_t)written;
    }
}

static bool is_c1(unsigned char byte)
{
    return byte >= 0x80 && byte < 0xa0;
}

/* A byte that a terminal may act on: C0 controls and DEL, and in UTF-8 both bytes of the C1
 * controls U+0080 to U+009F, whose lead byte is 0xc2. */
static bool is_control(unsigned char before, unsigned char byte, unsigned char next)
{
    return byte < 0x20 || byte == 0x7f || (byte == 0xc2 && is_c1(next)) ||
           (before == 0xc2 && is_c1(byte));
}

const char *log_plural(uint64_t count)
{
    return count == 1 ? "" : "s";
}

size_t log_escape(char *dst, size_t bytes, const char *text)
{
    static const char digits[] = "0123456789abcdef";
    size_t used = 0;
    unsigned char before = 0, byte;
    for (; *text && used + 5 <= bytes; text++, before = byte) {
        byte = (unsigned char)*text;
        if (is_control(before, byte, (unsigned char)text[1])) {
            memcpy(dst + used, (char[]){'\\', 'x', digits[byte >> 4], digits[byte & 15]}, 4);
            used += 4;
        } else {
            dst[used++] = *text;
        }
    }
    dst[used] = '\0';
    return used;
}

static void write_line(const char *kind, const char *format, va_list args)
{
    char text[TEXT_BYTES], line[LINE_BYTES];
    int wanted = vsnprintf(text, sizeof text, format, args);
    if (wanted >= (int)sizeof text)
        memcpy(text + sizeof text - 4, "...", 4);
    int saved = errno;
    pthread_mutex_lock(&lock);
    int head = snprintf(line, 200, "%s%s: %s", line_stands ? erase_line : "", program_name, kind);
    size_t used = (size_t)(head < 200 ? head : 199);
    used += log_escape(line + used, sizeof line - used - 1, text);
    line[used++] = '\n';
    write_all(line, used);
    line_stands = false;
    pthread_mutex_unlock(&lock);
    errno = saved;
}

void log_draw(const char *line, bool finished)
{
    char text[LINE_BYTES];
    if (atomic_load(&quiet))
        return;
    pthread_mutex_lock(&lock);
    size_t used = sizeof erase_line - 1;
    memcpy(text, erase_line, used);
    used += log_escape(text + used, sizeof text - used - 1, line);
    if (finished)
        text[used++] = '\n';
    write_all(text, used);
    line_stands = !finished;
    pthread_mutex_unlock(&lock);
}

void log_info(const char *format, ...)
{
    if (atomic_load(&quiet))
        return;
    va_list args;
    va_start(args, format);
    write_line("", format, args);
    va_end(args);
}

void log_verbose(const char *format, ...)
{
    if (!atomic_load(&verbose) || atomic_load(&quiet))
        return;
    va_list args;
    va_start(args, format);
    write_line("", format, args);
    va_end(args);
}

void log_warn(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    write_line("warning: ", format, args);
    va_end(args);
}

void log_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    write_line("error: ", format, args);
    va_end(args);
}
