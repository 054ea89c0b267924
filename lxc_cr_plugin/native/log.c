/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "cleanup.h"
#include "log.h"

struct log_line {
	struct log_line *next;
	int level;
	char *text;
};

void log_init(struct log *log, const struct cr_listener *listener)
{
	*log = (struct log){.listener = listener};
}

/* The oldest line, out of the queue. */
static struct log_line *log_pop(struct log *log)
{
	struct log_line *line = log->first;

	if (line)
		log->first = line->next;
	if (!log->first)
		log->last = NULL;
	return line;
}

static void log_line_free(struct log_line *line)
{
	free(line->text);
	free(line);
}

void log_deinit(struct log *log)
{
	struct log_line *line;

	while ((line = log_pop(log)))
		log_line_free(line);
}

/* Takes @text; a line for which there is no memory is lost. */
static void log_push(struct log *log, enum cr_level level, char *text)
{
	struct log_line *line = malloc(sizeof(*line));

	if (!line) {
		free(text);
		return;
	}
	*line = (struct log_line){.level = (int)level, .text = text};
	if (log->last)
		log->last->next = line;
	else
		log->first = line;
	log->last = line;
}

void log_say(struct log *log, enum cr_level level, const char *fmt, ...)
{
	_cleanup_free_ char *text = NULL;
	va_list args;
	int length;

	if (!log->listener || !log->listener->log || (int)level < log->listener->lowest_level)
		return;

	va_start(args, fmt);
	length = vasprintf(&text, fmt, args);
	va_end(args);
	if (length < 0) {
		text = NULL; /* undefined after a failure */
		return;
	}
	if (log->held)
		log_push(log, level, steal_pointer(&text));
	else
		log->listener->log(log->listener->context, (int)level, text);
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
	struct log_line *line;

	/* Still held: a line that the listener itself provokes queues up behind the others */
	while ((line = log_pop(log))) {
		log->listener->log(log->listener->context, line->level, line->text);
		log_line_free(line);
	}
	log->held = false;
}
