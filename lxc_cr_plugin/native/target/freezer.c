/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "freezer.h"

#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../cleanup.h"
#include "../proc.h"

enum { FREEZE_MILLISECONDS = 5000 };

struct cr_error *freezer_write(const char *freezer, bool is_v2, bool freeze)
{
	_cleanup_close_ int dir = open(freezer, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const char *name = is_v2 ? "cgroup.freeze" : "freezer.state";
	const char *text = is_v2 ? (freeze ? "1" : "0") : (freeze ? "FROZEN" : "THAWED");
	_cleanup_close_ int fd = dir < 0 ? -1 : openat(dir, name, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		return error_sys("Failed to %s cgroup '%s'", freeze ? "freeze" : "thaw", freezer);
	return NULL;
}

struct cr_error *freezer_wait(const char *freezer, bool is_v2, struct pool *pool)
{
	const char *name = is_v2 ? "cgroup.events" : "freezer.state";
	const char *word = is_v2 ? "frozen 1" : "FROZEN";
	_cleanup_close_ int dir = open(freezer, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct timespec pause = {.tv_nsec = 1000000};

	for (int i = 0; i < FREEZE_MILLISECONDS; i++) {
		char *text;

		TRY(proc_read(dir, name, pool, &text, NULL));
		if (strstr(text, word))
			return NULL;
		nanosleep(&pause, NULL);
	}
	return error_new(CR_HOST, "Cgroup '%s' did not freeze in time", freezer);
}
