/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "other_names.h"

#include <fcntl.h>
#include <fts.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "../cleanup.h"

struct other_name {
	dev_t device;
	struct bytes old, name; /* name is empty until it is found */
};

static struct cr_error *note(struct dump *dump, const struct bytes *old, const struct stat *stat,
			     struct other_name **ret)
{
	struct pool *pool = dump->image.pool;

	*ret = pool_alloc(pool, sizeof(**ret));
	if (!*ret)
		return error_nomem();
	**ret = (struct other_name){
		.device = stat->st_dev,
		.old = {(uint8_t *)pool_strndup(pool, (char *)old->data, old->len), old->len},
	};
	if (!(*ret)->old.data)
		return error_nomem();
	return hash_add(pool, &dump->other_names, stat->st_dev, stat->st_ino, *ret);
}

struct cr_error *other_name_find(struct dump *dump, const struct bytes *old,
				 const struct stat *stat, const struct bytes **ret)
{
	struct other_name *known = hash_find(&dump->other_names, stat->st_dev, stat->st_ino);
	struct other_name **slot;

	*ret = known && known->name.len ? &known->name : NULL;
	if (*ret || !dump->running)
		return NULL;
	if (!known)
		TRY(note(dump, old, stat, &known));
	slot = list_append(dump->image.pool, &dump->wanted_names, sizeof(*slot));
	if (!slot)
		return error_nomem();
	*slot = known;
	return NULL;
}

static int open_in_root(const struct dump *dump, const char *path)
{
	struct open_how how = {
		.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};

	return (int)syscall(SYS_openat2, dump->root, path, &how, sizeof(how));
}

/* The highest directory above @path that is of the same file system; *len: of its path. */
static int open_top(const struct dump *dump, char *path, dev_t device, size_t *len,
		    struct stat *top_stat)
{
	int top = -1;

	for (char *slash; (slash = strrchr(path, '/'));) {
		_cleanup_close_ int at = -1;
		struct stat stat;

		*slash = '\0';
		at = open_in_root(dump, *path ? path : "/");
		if (at < 0)
			continue; /* gone too */
		if (fstat(at, &stat) < 0 || stat.st_dev != device)
			break;
		if (top >= 0)
			close(top);
		top = steal_fd(&at);
		*len = strlen(path);
		*top_stat = stat;
	}
	return top;
}

/* @below: the way to it from the directory of @len bytes of @path. */
static void take(struct dump *dump, const struct stat *stat, const char *path, size_t len,
		 const char *below)
{
	struct other_name *wanted = hash_find(&dump->other_names, stat->st_dev, stat->st_ino);
	const char *name;

	if (!wanted || wanted->name.len)
		return;
	name = image_text(&dump->image, "%.*s%s", (int)len, path, below);
	wanted->name = (struct bytes){(uint8_t *)name, strlen(name)};
}

static void walk(struct dump *dump, int top, const char *path, size_t len)
{
	enum { MOST_FILES = 4 << 20 };
	char start[32], *starts[] = {start, NULL};
	long left = MOST_FILES;
	FTS *fts;

	snprintf(start, sizeof(start), "/proc/self/fd/%d/.", top);
	fts = fts_open(starts, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, NULL);
	if (!fts)
		return;
	for (FTSENT *entry; left-- && (entry = fts_read(fts));) {
		if (entry->fts_info == FTS_F)
			take(dump, entry->fts_statp, path, len, entry->fts_path + strlen(start));
	}
	fts_close(fts);
}

/* @walked: directories of this search. */
static struct cr_error *search(struct dump *dump, const struct other_name *wanted,
			       struct hash *walked)
{
	_cleanup_free_ char *path = strndup((char *)wanted->old.data, wanted->old.len);
	_cleanup_close_ int top = -1;
	struct stat stat = {0};
	size_t len = 0;

	if (!path)
		return error_nomem();
	top = open_top(dump, path, wanted->device, &len, &stat);
	if (top < 0 || hash_find(walked, stat.st_dev, stat.st_ino))
		return NULL;
	walk(dump, top, (char *)wanted->old.data, len);
	return hash_add(dump->image.pool, walked, stat.st_dev, stat.st_ino, dump);
}

struct cr_error *other_names_search(struct dump *dump)
{
	struct hash walked = {0};

	for_each (struct other_name *, wanted, &dump->wanted_names) {
		if (!wanted->name.len)
			TRY(search(dump, wanted, &walked));
	}
	dump->wanted_names.count = 0;
	return NULL;
}
