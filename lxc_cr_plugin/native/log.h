/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The engine never prints: it tells the listener; what it says inside the stop waits in cr_held_lines. */
#ifndef CR_LOG_H
#define CR_LOG_H

#include "error.h"

struct log {
	const struct cr_listener *listener; /* may be NULL */
	bool held;			    /* inside the stop: keep lines until log_release() */
};

void log_init(struct log *log, const struct cr_listener *listener);

void log_say(struct log *log, enum cr_level level, const char *fmt, ...) _printf_(3, 4);
void log_progress(struct log *log, const char *stage, uint64_t done, uint64_t total);

void log_hold(struct log *log);
void log_release(struct log *log);

#endif
