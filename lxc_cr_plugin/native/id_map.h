/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The user namespace of a container (lxc.idmap). What the engine reads from outside, and so all of
 * the image, has the host's ids; a task of the container calls the same ids by other numbers.
 */
#ifndef CR_ID_MAP_H
#define CR_ID_MAP_H

#include <sys/types.h>

#include "error.h"
#include "pool.h"

struct id_range {
	uint32_t inside, outside, count;
};

/* Lists of struct id_range; empty: the ids of the host. */
struct id_map {
	struct list users, groups;
};

struct cr_error *id_map_read(pid_t pid, struct pool *pool, struct id_map *ret);
bool id_map_equals(const struct id_map *a, const struct id_map *b);

/* The user of the host that is root in the container. */
uid_t id_map_root(const struct id_map *map);

/* What the container calls this user or group of the host; an error when it knows none. */
struct cr_error *id_map_user(const struct id_map *map, uint32_t id, uint32_t *ret);
struct cr_error *id_map_group(const struct id_map *map, uint32_t id, uint32_t *ret);

#endif
