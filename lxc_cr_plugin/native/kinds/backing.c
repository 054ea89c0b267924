/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Will a path lead a restart to this file, or must its contents go into the image? */
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "../cleanup.h"
#include "../known_paths.h"
#include "contents.h"
#include "other_names.h"
#include "shared_memory.h"
#include "volatile_file.h"

#ifndef MQUEUE_MAGIC
#define MQUEUE_MAGIC 0x19800202
#endif

#define DELETED " (deleted)"

/* ---- file systems that end with the container ---- */

struct known_filesystem {
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

/* Each is looked at once. */
static struct cr_error *filesystem_ends(struct dump *dump, const struct sight *sight, bool *ret)
{
	struct known_filesystem *known = hash_find(&dump->filesystems, sight->stat.st_dev, 0);

	if (!known) {
		known = pool_alloc(dump->image.pool, sizeof(*known));
		if (!known)
			return error_nomem();
		TRY(look_at_filesystem(dump, sight, &known->ends));
		TRY(hash_add(dump->image.pool, &dump->filesystems, sight->stat.st_dev, 0, known));
	}
	*ret = known->ends;
	return NULL;
}

static struct cr_error *find_other_name(struct dump *dump, const struct sight *sight,
					const struct bytes *old, struct backing *ret)
{
	const struct bytes *name;
	struct cr_error *error;
	bool leads = false;

	TRY(other_name_find(dump, old, &sight->stat, &name));
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

/* Whose contents are saved is looked at closely: kernel_file.stat has not all. */
static struct cr_error *save_contents(struct dump *dump, const struct sight *sight,
				      const struct bytes *path, bool deleted, uint32_t *ret)
{
	struct sight close = *sight;

	if (fstatat(sight->process->proc, sight->link, &close.stat, 0) < 0)
		return error_sys("Failed to look at '%s'", sight->path.data);
	return volatile_file_object(dump, &close, path, deleted, ret);
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
	return save_contents(dump, sight, &old, true, &ret->object);
}

struct cr_error *backing_find(struct dump *dump, const struct sight *sight, struct backing *ret)
{
	bool leads = false, ends = false;

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
	return ends ? save_contents(dump, sight, &sight->path, false, &ret->object) : NULL;
}
