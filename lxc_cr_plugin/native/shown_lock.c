/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "shown_lock.h"

#include <stdio.h>
#include <string.h>

/* "1: POSIX  ADVISORY  WRITE 12 fe:00:34 0 EOF"; an arrow before the first word: it waits. */
bool shown_lock_parse(const char *line, struct shown_lock *ret)
{
	char mode[12], end[24];
	const char *text = strchr(line, ':');

	if (!text)
		return false;
	text += 1 + strspn(text + 1, " ");
	*ret = (struct shown_lock){.waits = !strncmp(text, "->", 2)};
	text += ret->waits ? 2 + strspn(text + 2, " ") : 0;
	ret->text = text;
	if (sscanf(text, "%11s %11s %11s %d %x:%x:%lu %lu %23s", ret->sort, mode, ret->type,
		   &ret->pid, &ret->major, &ret->minor, &ret->inode, &ret->start, end) != 9)
		return false;
	ret->breaking = !strcmp(mode, "BREAKING");
	if (strcmp(end, "EOF"))
		return sscanf(end, "%lu", &ret->end) == 1;
	ret->end = INT64_MAX;
	return true;
}
