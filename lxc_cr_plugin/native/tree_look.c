/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A look at every path of a file tree, and what has changed since an earlier one: inside the stop,
 * where a hundred thousand paths may not take Python's time.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "api.h"
#include "cleanup.h"

/* What a path may turn into between two looks at a running container. */
static bool has_vanished(int error)
{
	return error == ENOENT || error == ENOTDIR || error == ELOOP || error == EXDEV ||
	       error == ESTALE;
}

/* Room for @more bytes behind @used in a buffer that grows; NULL: no memory. */
static void *grow(void *data, size_t *room, size_t used, size_t more)
{
	size_t wanted = *room ? *room : 1 << 16;

	if (used + more <= *room)
		return data;
	while (wanted < used + more)
		wanted *= 2;
	data = realloc(data, wanted);
	if (data)
		*room = wanted;
	return data;
}

static int64_t ns(const struct timespec *time)
{
	return (int64_t)((uint64_t)time->tv_sec * 1000000000u + (uint64_t)time->tv_nsec);
}

/* The path of @name in the directory at @prefix goes behind the others, and gets an entry. */
static int append(struct cr_tree_look *look, const char *prefix, const char *name,
		  const struct stat *stat)
{
	size_t before = strlen(prefix), len = strlen(name), slash = before ? 1 : 0;
	struct cr_tree_entry *entries;
	char *paths;

	if (before + slash + len >= CR_LONGEST_PATH)
		return -ENAMETOOLONG;
	entries = grow(look->entries, &look->entries_room, look->count * sizeof(*entries),
		       sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	look->entries = entries;
	paths = grow(look->paths, &look->paths_room, look->paths_size, before + slash + len + 1);
	if (!paths)
		return -ENOMEM;
	look->paths = paths;
	entries[look->count++] = (struct cr_tree_entry){
		.path = look->paths_size,
		.inode = stat->st_ino,
		.device = stat->st_dev,
		.rdev = stat->st_rdev,
		.size = (uint64_t)stat->st_size,
		.blocks = (uint64_t)stat->st_blocks,
		.mtime = stat->st_mtim.tv_sec,
		.mtime_ns = (uint32_t)stat->st_mtim.tv_nsec,
		.ctime = ns(&stat->st_ctim),
		.mode = stat->st_mode,
		.uid = stat->st_uid,
		.gid = stat->st_gid,
		.nlink = (uint32_t)stat->st_nlink,
	};
	/* @prefix may lie in the buffer that has just moved: the caller keeps a copy */
	memcpy(paths + look->paths_size, prefix, before);
	if (slash)
		paths[look->paths_size + before] = '/';
	memcpy(paths + look->paths_size + before + slash, name, len + 1);
	look->paths_size += before + slash + len + 1;
	return 0;
}

/*
 * In a snapshot an empty directory stands for each subvolume inside. It has no times, nothing can be
 * set of it, and nothing can be in it: it is no file of anybody's. (BTRFS_EMPTY_SUBVOL_DIR_OBJECTID)
 */
static bool stands_for_subvolume(const struct stat *stat, dev_t device, bool btrfs)
{
	return btrfs && stat->st_ino == 2 && stat->st_dev == device;
}

static bool is_btrfs(int fd)
{
	struct statfs found;

	return !fstatfs(fd, &found) && found.f_type == BTRFS_SUPER_MAGIC;
}

static int look_into(struct cr_tree_look *look, DIR *directory, const char *prefix, dev_t device)
{
	bool btrfs = is_btrfs(dirfd(directory));
	int error = 0;

	for (struct dirent *item; !error && (errno = 0, item = readdir(directory));) {
		struct stat stat;

		if (!strcmp(item->d_name, ".") || !strcmp(item->d_name, ".."))
			continue;
		if (!fstatat(dirfd(directory), item->d_name, &stat, AT_SYMLINK_NOFOLLOW))
			error = stands_for_subvolume(&stat, device, btrfs)
					? 0
					: append(look, prefix, item->d_name, &stat);
		else if (!has_vanished(errno))
			error = -errno;
	}
	return error ? error : -errno;
}

static int look_at_directory(struct cr_tree_look *look, int root_fd, size_t index)
{
	_cleanup_free_ char *prefix = strdup(look->paths + look->entries[index].path);
	DIR *directory;
	int fd, error;

	if (!prefix)
		return -ENOMEM;
	fd = cr_open_beneath(root_fd, *prefix ? prefix : ".",
			     O_RDONLY | O_DIRECTORY | O_NOATIME | O_NONBLOCK, 0);
	if (fd < 0)
		return has_vanished(-fd) ? 0 : fd;
	directory = fdopendir(fd);
	if (!directory) {
		close(fd);
		return -ENOMEM;
	}
	error = look_into(look, directory, prefix, (dev_t)look->entries[index].device);
	closedir(directory);
	return has_vanished(-error) ? 0 : error;
}

int cr_tree_look(int root_fd, struct cr_tree_look *ret)
{
	struct stat root;
	int error;

	*ret = (struct cr_tree_look){0};
	if (fstat(root_fd, &root) < 0)
		return -errno;
	error = append(ret, "", "", &root);
	/* entries are appended while we go through them: breadth first */
	for (size_t i = 0; !error && i < ret->count; i++) {
		/*
		 * A mount of the host's is recorded as an empty directory: it cannot be opened. A
		 * subvolume of btrfs, which has a device of its own too, is a directory as any.
		 */
		ret->last = i;
		if (S_ISDIR(ret->entries[i].mode))
			error = look_at_directory(ret, root_fd, i);
	}
	return error;
}

void cr_tree_forget(struct cr_tree_look *look)
{
	free(look->entries);
	free(look->paths);
	*look = (struct cr_tree_look){0};
}

/* ---- what has changed ---- */

static bool is_same(const struct cr_tree_entry *a, const struct cr_tree_entry *b)
{
	return a->inode == b->inode && a->device == b->device && a->ctime == b->ctime &&
	       a->mtime == b->mtime && a->mtime_ns == b->mtime_ns && a->mode == b->mode &&
	       (!S_ISREG(a->mode) || a->size == b->size);
}

static size_t place_of(const struct cr_tree_entry *entry, size_t mask)
{
	uint64_t hash = entry->inode * 0x9e3779b97f4a7c15u ^ (uint64_t)entry->ctime;

	return (hash * 0x9e3779b97f4a7c15u >> 20) & mask;
}

/* A table of all entries by what they look like, twice as large as it has to be. */
static const struct cr_tree_entry **table_of(const struct cr_tree_look *look, size_t *mask)
{
	const struct cr_tree_entry **table;
	size_t size = 16;

	while (size < 2 * look->count)
		size *= 2;
	table = calloc(size, sizeof(struct cr_tree_entry *));
	*mask = size - 1;
	for (size_t i = 0; table && i < look->count; i++) {
		size_t at = place_of(&look->entries[i], *mask);

		while (table[at])
			at = (at + 1) & *mask;
		table[at] = &look->entries[i];
	}
	return table;
}

int cr_tree_changed(const struct cr_tree_look *now, const struct cr_tree_look *before,
		    int64_t since, uint32_t *ret)
{
	size_t mask;
	const struct cr_tree_entry **table = table_of(before, &mask);
	int count = 0;

	if (!table)
		return -ENOMEM;
	for (size_t i = 0; i < now->count; i++) {
		const struct cr_tree_entry *entry = &now->entries[i];
		size_t at = place_of(entry, mask);

		while (table[at] && !is_same(table[at], entry))
			at = (at + 1) & mask;
		if (!table[at] || entry->ctime >= since)
			ret[count++] = (uint32_t)i;
	}
	free(table);
	return count;
}
