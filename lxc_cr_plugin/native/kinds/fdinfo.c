/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fdinfo.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../cleanup.h"

struct cr_error *fdinfo_read(const struct descriptor *descriptor, struct fdinfo *ret)
{
	_cleanup_close_ int fd = -1;
	char name[32];
	ssize_t got;

	snprintf(name, sizeof(name), "fdinfo/%d", descriptor->fd);
	fd = openat(descriptor->process->proc, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return error_new(CR_GONE, "Descriptor %d is gone", descriptor->fd);
	got = fd < 0 ? -1 : read(fd, ret->text, sizeof(ret->text) - 1);
	if (got < 0)
		return error_sys("Failed to read /proc/PID/%s", name);
	ret->text[got] = '\0';
	return NULL;
}

const char *fdinfo_value(const struct fdinfo *info, const char *key)
{
	const char *text = info->text;
	size_t len = strlen(key);

	while (text && (strncmp(text, key, len) || text[len] != ':')) {
		text = strchr(text, '\n');
		text = text ? text + 1 : NULL;
	}
	return text ? text + len + 1 : NULL;
}

bool fdinfo_find(const struct fdinfo *info, const char *key, int base, uint64_t *ret)
{
	const char *value = fdinfo_value(info, key);

	if (value)
		*ret = strtoull(value, NULL, base);
	return value != NULL;
}

struct cr_error *fdinfo_number(const struct fdinfo *info, const char *key, int base, uint64_t *ret)
{
	if (fdinfo_find(info, key, base, ret))
		return NULL;
	return error_remedy(
		error_new(CR_HOST, "This kernel shows no '%s' in /proc/PID/fdinfo", key),
		"Boot a newer kernel, or let the process close the descriptor");
}
