/* SPDX-License-Identifier: Apache-2.0 */
/* Stopping cleanly: SIGINT and SIGTERM (and SIGUSR1 where asked for) set a flag that loops look at.
 * A second SIGINT ends the process at once with status 130. */
#ifndef COMMON_STOP_H
#define COMMON_STOP_H

#include <stdbool.h>

/* Installs the handlers, ignores SIGPIPE. with_usr1: SIGUSR1 asks to stop as well. */
void stop_install(bool with_usr1);

/* True once a signal came. Any thread. */
bool stop_requested(void);

/* Sets the flag from inside the program. */
void stop_request(void);

/* A descriptor that becomes readable when the flag is set, for poll(); never read from it. */
int stop_fd(void);

/* The signal that asked, 0 when none. */
int stop_signal(void);

#endif
