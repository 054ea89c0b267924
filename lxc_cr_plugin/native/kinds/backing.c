/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Will a path lead a restart to this file, or must its contents go into the image? */
#include <fcntl.h>
#include <fts.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "../cleanup.h"
#include "../known_paths.h"
#include "contents.h"
#include "shared_memory.h"
#include "volatile_file.h"

#ifndef MQUEUE_MAGIC
#define MQUEUE_MAGIC 0x19800202
#endif

#define DELETED " (deleted)"

/* ---- file systems that end with the container ---- */

struct known_filesystem {
	dev_t device;
	bool ends;
};

/* One that the host has mounted somewhere outlives the container. */
static struct cr_error *is_mounted_on_host(struct dump *dump, dev_t device, bool *ret)
{
	_cleanup_close_ int self = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
	char *text, *save, wanted[32];

	TRY(proc_read(self, "mountinfo", dump->image.pool, &text, NULL));
	snprintf(wanted, sizeof(wanted), "%u:%u", major(device), minor(device));
	*ret = false;
	for (char *line = strtok_r(text, "\n", &save); line && !*ret;
	     line = strtok_r(NULL, "\n", &save)) {
		char number[32];

		*ret = sscanf(line, "%*d %*d %31s", number) == 1 && !strcmp(number, wanted);
	}
	return NULL;
}

static struct cr_error *look_at_filesystem(struct dump *dump, const struct sight *sight, bool *ends)
{
	char path[64];
	struct statfs fs;
	struct stat root;
	bool mounted;

	snprintf(path, sizeof(path), "/proc/%d/%s", sight->process->host_pid, sight->link);
	if (statfs(path, &fs) < 0 || fstat(dump->root, &root) < 0)
		return error_sys("Failed to look at the file system of '%s'", sight->path.data);
	*ends = fs.f_type == TMPFS_MAGIC && root.st_dev != sight->stat.st_dev;
	if (!*ends)
		return NULL;
	TRY(is_mounted_on_host(dump, sight->stat.st_dev, &mounted));
	*ends = !mounted;
	return NULL;
}

/* Containers have a handful of file systems: each is looked at once. */
static struct cr_error *filesystem_ends(struct dump *dump, const struct sight *sight, bool *ret)
{
	struct known_filesystem *known = dump->filesystems.items;

	for (size_t i = 0; i < dump->filesystems.count; i++) {
		*ret = known[i].ends;
		if (known[i].device == sight->stat.st_dev)
			return NULL;
	}
	TRY(look_at_filesystem(dump, sight, ret));
	known = list_append(dump->image.pool, &dump->filesystems, sizeof(*known));
	if (!known)
		return error_nomem();
	*known = (struct known_filesystem){sight->stat.st_dev, *ret};
	return NULL;
}

/* ---- other names of a deleted file ---- */

struct other_name {
	dev_t device;
	ino_t inode;
	struct bytes path;
};

static const struct bytes *known_name(const struct dump *dump, const struct stat *stat)
{
	const struct other_name *name = dump->other_names.items;

	for (size_t i = 0; i < dump->other_names.count; i++) {
		if (name[i].device == stat->st_dev && name[i].inode == stat->st_ino)
			return &name[i].path;
	}
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
static int open_top(const struct dump *dump, char *path, dev_t device, size_t *len)
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
	}
	return top;
}

/* Where @stat lies below @top, from there; NULL: nowhere, or among too many. */
static char *walk(int top, const struct stat *stat)
{
	enum { MOST_FILES = 4 << 20 };
	char start[32], *starts[] = {start, NULL}, *found = NULL;
	long left = MOST_FILES;
	FTS *fts;

	snprintf(start, sizeof(start), "/proc/self/fd/%d/.", top);
	fts = fts_open(starts, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, NULL);
	if (!fts)
		return NULL;
	for (FTSENT *entry; !found && left-- && (entry = fts_read(fts));) {
		if (entry->fts_info == FTS_F && entry->fts_statp->st_ino == stat->st_ino &&
		    entry->fts_statp->st_dev == stat->st_dev)
			found = strdup(entry->fts_path + strlen(start));
	}
	fts_close(fts);
	return found;
}

/* Only while everything runs: a walk takes its time. */
static struct cr_error *search_name(struct dump *dump, const struct bytes *old,
				    const struct stat *stat)
{
	_cleanup_free_ char *top_path = strndup((char *)old->data, old->len);
	_cleanup_free_ char *below = NULL;
	_cleanup_close_ int top = -1;
	struct other_name *name;
	const char *path;
	size_t len = 0;

	if (!top_path)
		return error_nomem();
	top = open_top(dump, top_path, stat->st_dev, &len);
	below = top < 0 ? NULL : walk(top, stat);
	if (!below)
		return NULL;
	path = image_text(&dump->image, "%.*s%s", (int)len, (char *)old->data, below);
	name = list_append(dump->image.pool, &dump->other_names, sizeof(*name));
	if (!path || !name)
		return error_nomem();
	*name = (struct other_name){stat->st_dev, stat->st_ino, {(uint8_t *)path, strlen(path)}};
	return NULL;
}

static struct cr_error *find_other_name(struct dump *dump, const struct sight *sight,
					const struct bytes *old, struct backing *ret)
{
	const struct bytes *name = known_name(dump, &sight->stat);
	struct cr_error *error;
	bool leads = false;

	if (!name && dump->running)
		TRY(search_name(dump, old, &sight->stat));
	name = known_name(dump, &sight->stat);
	if (name)
		TRY(path_leads_to(dump, name, &sight->stat, &leads));
	if (leads) {
		ret->path = *name;
		return NULL;
	}
	error = error_new(CR_UNSUPPORTED, "its name was deleted, and its other names (hard links) "
					  "were not found in the container");
	return error_remedy(error_object(error, "replaced_file"),
			    "Try again, or let the process close it");
}

/* ---- all together ---- */

/* Names of things that are not files, though they look so. */
static struct cr_error *refuse_others(const struct sight *sight)
{
	static const struct {
		const char *prefix, *object, *why, *remedy;
	} others[] = {
		{"/secretmem", "secretmem",
		 "it is secret memory, which nobody but its process can read",
		 "End the process before the checkpoint"},
		{"/[aio]", "aio", "it is the ring of asynchronous input and output (io_setup)",
		 "Not supported yet: end the process"},
		{"/anon_hugepage", "hugetlb", "it shows hugetlb pages",
		 "Not supported: map them with MAP_ANONYMOUS"},
	};
	size_t tail = strlen(DELETED);

	if (sight->path.len < tail ||
	    memcmp(sight->path.data + sight->path.len - tail, DELETED, tail))
		return NULL;
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		if (!strncmp((char *)sight->path.data, others[i].prefix, strlen(others[i].prefix)))
			return error_remedy(
				error_object(error_new(CR_UNSUPPORTED, "%s", others[i].why),
					     others[i].object),
				"%s", others[i].remedy);
	}
	return NULL;
}

/* A file system whose files are made by the kernel, or hold more than what read(2) gives. */
static bool is_made_by_kernel(const struct sight *sight)
{
	static const long types[] = {
		PROC_SUPER_MAGIC, SYSFS_MAGIC,	 CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC,
		DEBUGFS_MAGIC,	  TRACEFS_MAGIC, SECURITYFS_MAGIC,   BPF_FS_MAGIC,
		NSFS_MAGIC,	  MQUEUE_MAGIC,
	};
	char path[64];
	struct statfs fs;

	snprintf(path, sizeof(path), "/proc/%d/%s", sight->process->host_pid, sight->link);
	if (statfs(path, &fs) < 0)
		return false; /* it goes wrong again where it is looked at closely */
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		if (fs.f_type == types[i])
			return true;
	}
	return false;
}

static struct cr_error *refuse_made_by_kernel(void)
{
	struct cr_error *error = error_new(
		CR_UNSUPPORTED, "it was deleted, and is no file with contents of its own");

	return error_remedy(error_object(error, "kernel_file"),
			    "Not supported yet: let the process close it (a POSIX message queue is "
			    "closed by mq_close)");
}

static struct cr_error *refuse_unreachable(void)
{
	struct cr_error *error =
		error_new(CR_UNSUPPORTED, "its path does not lead to it (any more), as seen from "
					  "the container");

	return error_remedy(error_object(error, "replaced_file"),
			    "Not supported yet; restart the process, so that it opens the file "
			    "that is there now");
}

/* @sight is a deleted file; its old path without the kernel's remark. */
static struct cr_error *old_path(struct dump *dump, const struct sight *sight, struct bytes *ret)
{
	ret->len = sight->path.len - strlen(DELETED);
	ret->data = (uint8_t *)pool_strndup(dump->image.pool, (char *)sight->path.data, ret->len);
	return ret->data ? NULL : error_nomem();
}

static struct cr_error *find_deleted(struct dump *dump, const struct sight *sight,
				     struct backing *ret)
{
	size_t tail = strlen(DELETED);
	struct bytes old;

	if (memfd_claims(&sight->path) && !sight->stat.st_nlink)
		return memfd_object(dump, sight, &ret->object);
	TRY(refuse_others(sight));
	if (!S_ISREG(sight->stat.st_mode) || sight->path.len <= tail ||
	    memcmp(sight->path.data + sight->path.len - tail, DELETED, tail))
		return refuse_unreachable();
	if (is_made_by_kernel(sight))
		return refuse_made_by_kernel();
	TRY(old_path(dump, sight, &old));
	if (sight->stat.st_nlink)
		return find_other_name(dump, sight, &old, ret);
	ret->path = old;
	return volatile_file_object(dump, sight, &old, true, &ret->object);
}

struct cr_error *backing_find(struct dump *dump, const struct sight *sight, struct backing *ret)
{
	bool leads = false, ends;

	*ret = (struct backing){.path = sight->path};
	if (sight->stat.st_nlink)
		TRY(path_leads_to(dump, &sight->path, &sight->stat, &leads));
	/* device nodes come back with the container's /dev */
	if (leads && !S_ISREG(sight->stat.st_mode))
		return NULL;
	if (!leads)
		return find_deleted(dump, sight, ret);
	/* whoever saves the container's files saves those in a tmpfs too */
	if (dump->options->files)
		return NULL;
	TRY(filesystem_ends(dump, sight, &ends));
	return ends ? volatile_file_object(dump, sight, &sight->path, false, &ret->object) : NULL;
}
