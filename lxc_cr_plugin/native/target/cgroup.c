/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cgroup.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../cleanup.h"
#include "../proc.h"

static struct cr_error *list_directory(int dir, struct pool *pool, struct list *ret, int depth);

static struct cr_error *list_threads(int dir, struct pool *pool, struct list *ret)
{
	/* v1 calls it tasks, v2 cgroup.threads */
	const char *name = faccessat(dir, "tasks", R_OK, 0) == 0 ? "tasks" : "cgroup.threads";
	char *text, *end;

	TRY(proc_read(dir, name, pool, &text, NULL));
	for (char *p = text; *p; p = end + (*end == '\n')) {
		pid_t tid = (pid_t)strtol(p, &end, 10);
		pid_t *slot;

		if (end == p)
			break;
		slot = list_append(pool, ret, sizeof(*slot));
		if (!slot)
			return error_nomem();
		*slot = tid;
	}
	return NULL;
}

static struct cr_error *list_children(int dir, struct pool *pool, struct list *ret, int depth)
{
	_cleanup_closedir_ DIR *listing = NULL;
	struct dirent *entry;
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return error_sys("Failed to open a cgroup directory");
	listing = fdopendir(fd);
	if (!listing) {
		close(fd);
		return error_sys("Failed to list a cgroup directory");
	}
	while ((entry = readdir(listing))) {
		_cleanup_close_ int child = -1;

		if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
			continue;
		child = openat(dir, entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (child < 0)
			continue; /* a cgroup may go at any moment */
		TRY(list_directory(child, pool, ret, depth + 1));
	}
	return NULL;
}

static struct cr_error *list_directory(int dir, struct pool *pool, struct list *ret, int depth)
{
	enum { DEEPEST = 64 };

	if (depth > DEEPEST)
		return error_new(CR_UNSUPPORTED, "Cgroups are nested more than %d deep", DEEPEST);
	TRY(list_threads(dir, pool, ret));
	return list_children(dir, pool, ret, depth);
}

struct cr_error *cgroup_tasks(const char *cgroup, struct pool *pool, struct list *ret)
{
	_cleanup_close_ int dir = open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dir < 0)
		return error_sys("Failed to open cgroup '%s'", cgroup);
	TRY(list_directory(dir, pool, ret, 0));
	if (ret->count)
		qsort(ret->items, ret->count, sizeof(pid_t), compare_pids);
	return NULL;
}
