/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "id_map.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "proc.h"

static struct cr_error *read_ranges(int proc, const char *name, struct pool *pool, struct list *ret)
{
	struct id_range range;
	int used = 0;
	char *text;

	TRY(proc_read(proc, name, pool, &text, NULL));
	while (sscanf(text, "%u %u %u%n", &range.inside, &range.outside, &range.count, &used) ==
	       3) {
		struct id_range *slot = list_append(pool, ret, sizeof(*slot));

		if (!slot)
			return error_nomem();
		*slot = range;
		text += used;
	}
	return NULL;
}

struct cr_error *id_map_read(pid_t pid, struct pool *pool, struct id_map *ret)
{
	struct stat ours, theirs;
	_cleanup_close_ int proc = -1;

	*ret = (struct id_map){0};
	TRY(proc_open(pid, pid, &proc));
	if (stat("/proc/self/ns/user", &ours) < 0 || fstatat(proc, "ns/user", &theirs, 0) < 0)
		return error_sys("Failed to look at the user namespace of process %d", pid);
	/* of our own namespace the files would show how it maps to the one above */
	if (ours.st_ino == theirs.st_ino && ours.st_dev == theirs.st_dev)
		return NULL;
	TRY(read_ranges(proc, "uid_map", pool, &ret->users));
	return read_ranges(proc, "gid_map", pool, &ret->groups);
}

static bool same_ranges(const struct list *a, const struct list *b)
{
	return a->count == b->count &&
	       (!a->count || !memcmp(a->items, b->items, a->count * sizeof(struct id_range)));
}

bool id_map_equals(const struct id_map *a, const struct id_map *b)
{
	return same_ranges(&a->users, &b->users) && same_ranges(&a->groups, &b->groups);
}

static struct cr_error *find(const struct list *ranges, const char *what, uint32_t id,
			     uint32_t *ret)
{
	const struct id_range *range = ranges->items;

	*ret = id;
	for (size_t i = 0; i < ranges->count; i++) {
		if (id < range[i].outside || id - range[i].outside >= range[i].count)
			continue;
		*ret = range[i].inside + (id - range[i].outside);
		return NULL;
	}
	if (!ranges->count)
		return NULL;
	return error_remedy(
		error_new(CR_HOST, "%s %u of the host has no number in the container", what, id),
		"Let the container's lxc.idmap cover it");
}

uid_t id_map_root(const struct id_map *map)
{
	const struct id_range *range = map->users.items;

	for (size_t i = 0; i < map->users.count; i++) {
		if (!range[i].inside)
			return range[i].outside;
	}
	return 0;
}

struct cr_error *id_map_user(const struct id_map *map, uint32_t id, uint32_t *ret)
{
	return find(&map->users, "User", id, ret);
}

struct cr_error *id_map_group(const struct id_map *map, uint32_t id, uint32_t *ret)
{
	return find(&map->groups, "Group", id, ret);
}
