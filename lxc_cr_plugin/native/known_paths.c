/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "known_paths.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <search.h>
#include <string.h>
#include <sys/syscall.h>

#include "cleanup.h"

struct known_path {
	dev_t device;
	ino_t inode;
	struct bytes path;
};

static int compare(const void *a, const void *b)
{
	const struct known_path *x = a, *y = b;

	if (x->inode != y->inode)
		return x->inode < y->inode ? -1 : 1;
	if (x->device != y->device)
		return x->device < y->device ? -1 : 1;
	return strcmp((const char *)x->path.data, (const char *)y->path.data);
}

static bool resolves(int root, const char *path, const struct stat *file)
{
	struct open_how how = {
		.flags = O_PATH | O_CLOEXEC,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};
	_cleanup_close_ int fd = (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
	struct stat stat;

	return fd >= 0 && fstat(fd, &stat) == 0 && stat.st_dev == file->st_dev &&
	       stat.st_ino == file->st_ino;
}

static struct cr_error *remember(struct dump *dump, const struct known_path *key)
{
	struct known_path *known = pool_memdup(dump->image.pool, key, sizeof(*known));

	if (!known)
		return error_nomem();
	known->path.data =
		(uint8_t *)pool_strndup(dump->image.pool, (char *)key->path.data, key->path.len);
	if (!known->path.data || !tsearch(known, &dump->known_paths, compare))
		return error_nomem();
	return NULL;
}

struct cr_error *path_leads_to(struct dump *dump, const struct bytes *path, const struct stat *file,
			       bool *leads)
{
	struct known_path key = {.device = file->st_dev, .inode = file->st_ino, .path = *path};

	*leads = tfind(&key, &dump->known_paths, compare) ||
		 resolves(dump->root, (const char *)path->data, file);
	return *leads && dump->running ? remember(dump, &key) : NULL;
}
