/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fdinfo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cr_error *fdinfo_read(struct dump *dump, const struct descriptor *descriptor, char **ret)
{
	char name[32];

	snprintf(name, sizeof(name), "fdinfo/%d", descriptor->fd);
	return proc_read(descriptor->process->proc, name, dump->image.pool, ret, NULL);
}

const char *fdinfo_value(const char *text, const char *key)
{
	size_t len = strlen(key);

	while (text && (strncmp(text, key, len) || text[len] != ':')) {
		text = strchr(text, '\n');
		text = text ? text + 1 : NULL;
	}
	return text ? text + len + 1 : NULL;
}

bool fdinfo_find(const char *text, const char *key, int base, uint64_t *ret)
{
	const char *value = fdinfo_value(text, key);

	if (value)
		*ret = strtoull(value, NULL, base);
	return value != NULL;
}

struct cr_error *fdinfo_number(const char *text, const char *key, int base, uint64_t *ret)
{
	if (fdinfo_find(text, key, base, ret))
		return NULL;
	return error_remedy(
		error_new(CR_HOST, "This kernel shows no '%s' in /proc/PID/fdinfo", key),
		"Boot a newer kernel, or let the process close the descriptor");
}
