/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "log.h"

void log_init(struct log *log, const struct cr_listener *listener)
{
	*log = (struct log){.listener = listener};
}

/* A line that does not fit is lost, like all that come after it but for shorter ones. */
static void keep(struct cr_held_lines *lines, enum cr_level level, const char *fmt, va_list args)
{
	size_t room = CR_HELD_ROOM - lines->used;
	char *line = lines->text + lines->used;
	int length = room > 1 ? vsnprintf(line + 1, room - 1, fmt, args) : -1;

	if (length < 0 || (size_t)length >= room - 1) {
		lines->lost++;
		return;
	}
	*line = (char)level;
	/* whoever reads it after our death must not find half a line */
	__atomic_store_n(&lines->used, lines->used + 1 + (size_t)length + 1, __ATOMIC_RELEASE);
}

void log_say(struct log *log, enum cr_level level, const char *fmt, ...)
{
	const struct cr_listener *listener = log->listener;
	_cleanup_free_ char *text = NULL;
	va_list args;

	if (!listener || !listener->log || (int)level < listener->lowest_level)
		return;
	va_start(args, fmt);
	if (log->held && listener->held)
		keep(listener->held, level, fmt, args);
	else if (!log->held && vasprintf(&text, fmt, args) < 0)
		text = NULL; /* undefined after a failure */
	va_end(args);
	if (text)
		listener->log(listener->context, (int)level, text);
}

void log_progress(struct log *log, const char *stage, uint64_t done, uint64_t total)
{
	/* Nobody wants old progress: what happens inside the stop is not told later */
	if (log->held || !log->listener || !log->listener->progress)
		return;
	log->listener->progress(log->listener->context, stage, done, total);
}

void log_hold(struct log *log)
{
	log->held = true;
}

void log_release(struct log *log)
{
	struct cr_held_lines *lines = log->listener ? log->listener->held : NULL;

	/* Still held: a line that the listener itself provokes queues up behind the others */
	while (log->held && lines && lines->told < lines->used) {
		const char *line = lines->text + lines->told;

		log->listener->log(log->listener->context, *line, line + 1);
		lines->told += 1 + strlen(line + 1) + 1;
	}
	log->held = false;
}
