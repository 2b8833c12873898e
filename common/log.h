/* SPDX-License-Identifier: Apache-2.0 */
/* The log: lines for people, on stderr. Results go to stdout and never through here.
 *
 * Safe from any thread; a line is written with one write(2). Control characters in the formatted
 * text are escaped as \xNN, so names from disk or network cannot forge lines. When a progress line
 * stands on the terminal (common/progress.h) it is erased first and redrawn by its owner. */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Every program's first call. The name in front of every line; a string literal or one that
 * outlives the program. Standard descriptors that are closed are filled, so that no file becomes
 * one. */
void log_open(const char *program);

/* log_verbose lines appear only when this is on (default off). */
void log_set_verbose(bool verbose);

/* log_info and log_verbose lines and progress lines do not appear when this is on: for all ranks of
 * a job but the first. */
void log_set_quiet(bool quiet);

void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_verbose(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* "" for one and "s" for any other number: "%d image%s". */
const char *log_plural(uint64_t count);

/* Copies text with every control character as \xNN into dst of at least 5 bytes; what does not fit
 * is cut. Returns the length. For names from outside that are printed on stdout. */
size_t log_escape(char *dst, size_t bytes, const char *text);

/* For common/progress.c: draws its line over the one that stands; finished ends it. */
void log_draw(const char *line, bool finished);

#endif
