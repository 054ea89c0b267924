/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Regular files that a restart would not find: deleted ones, and those in a tmpfs that ends with
 * the container. */
#include "volatile_file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "../cleanup.h"

struct directory_row {
	uint32_t len; /* of the path that ends with it */
	uint32_t mode, uid, gid;
};

struct volatile_file {
	struct contents contents;
	struct bytes path;
	bool deleted;
	bool unnamed; /* made by O_TMPFILE: linkat(2) can still give it a name */
	uint32_t mode, uid, gid;
	uint64_t atime, mtime;
	struct list directories; /* struct directory_row */
};

static const struct field directory_fields[] = {
	FIELD_UINT(struct directory_row, len, 1, 4096, "bytes of the path that ends with it"),
	FIELD_UINT(struct directory_row, mode, 0, 07777, "permissions"),
	FIELD_UINT(struct directory_row, uid, 0, UINT32_MAX, "owner"),
	FIELD_UINT(struct directory_row, gid, 0, UINT32_MAX, "group"),
	FIELD_END,
};

static const struct field volatile_file_fields[] = {
	FIELD_CONTENTS(struct volatile_file),
	FIELD_PATH(struct volatile_file, path, "where it lies or lay, from the container's root"),
	FIELD_BOOL(struct volatile_file, deleted, "no name leads to it"),
	FIELD_BOOL(struct volatile_file, unnamed, "it never had one (O_TMPFILE)"),
	FIELD_UINT(struct volatile_file, mode, 0, 07777, "permissions"),
	FIELD_UINT(struct volatile_file, uid, 0, UINT32_MAX, "owner"),
	FIELD_UINT(struct volatile_file, gid, 0, UINT32_MAX, "group"),
	FIELD_UINT(struct volatile_file, atime, 0, UINT64_MAX, "access time, ns since 1970"),
	FIELD_UINT(struct volatile_file, mtime, 0, UINT64_MAX, "modification time, ns since 1970"),
	FIELD_ROWS(struct volatile_file, directories, struct directory_row, directory_fields, 2048,
		   "directories on the way that a restart makes, outermost first"),
	FIELD_END,
};

/* A program may set any time: none before 1970 or after 2554 comes back. */
static uint64_t ns(const struct timespec *time)
{
	uint64_t ns;

	if (time->tv_sec < 0)
		return 0;
	if (__builtin_mul_overflow((uint64_t)time->tv_sec, 1000000000u, &ns) ||
	    __builtin_add_overflow(ns, (uint64_t)time->tv_nsec, &ns))
		return UINT64_MAX;
	return ns;
}

static struct cr_error *check_size(const struct dump *dump, const struct sight *sight)
{
	uint64_t bytes = (uint64_t)sight->stat.st_blocks * 512;
	uint64_t most = dump->options->deleted_file_limit;
	struct cr_error *error;

	if (!most || bytes <= most)
		return NULL;
	error = error_new(CR_UNSUPPORTED,
			  "it is deleted and holds %lu MiB, more than the %lu MiB that may go into "
			  "the image",
			  (unsigned long)(bytes >> 20), (unsigned long)(most >> 20));
	return error_remedy(error_object(error, "deleted_file"),
			    "Let the process close it, or raise deleted_file_limit in "
			    "/etc/lxc-cr.toml");
}

/* Directories of the same tmpfs on the way to the file: they will be gone too. */
static struct cr_error *dump_directories(struct dump *dump, const struct sight *sight,
					 struct volatile_file *file)
{
	for (size_t len = 1; len < file->path.len; len++) {
		_cleanup_free_ char *part = NULL;
		struct directory_row *row;
		struct stat stat;

		if (file->path.data[len] != '/')
			continue;
		part = strndup((char *)file->path.data + 1, len - 1);
		if (!part)
			return error_nomem();
		/* the path was resolved a moment ago, and nobody runs; what a link makes of it in a
		 * survey does not matter */
		if (fstatat(dump->root, part, &stat, AT_SYMLINK_NOFOLLOW) < 0)
			return error_sys("Failed to look at directory '/%s'", part);
		if (stat.st_dev != sight->stat.st_dev)
			continue;
		row = list_append(dump->image.pool, &file->directories, sizeof(*row));
		if (!row)
			return error_nomem();
		*row = (struct directory_row){(uint32_t)len, stat.st_mode & 07777, stat.st_uid,
					      stat.st_gid};
	}
	return NULL;
}

/* The kernel names a file of O_TMPFILE by its inode. */
static bool has_no_name(const struct bytes *path, ino_t inode)
{
	char name[32];
	size_t len = (size_t)snprintf(name, sizeof(name), "/#%lu", (unsigned long)inode);

	return path->len >= len && !memcmp(path->data + path->len - len, name, len);
}

struct cr_error *volatile_file_object(struct dump *dump, const struct sight *sight,
				      const struct bytes *path, bool deleted, uint32_t *id)
{
	const struct stat *stat = &sight->stat;
	_cleanup_close_ int fd = -1;
	struct volatile_file *file;
	struct object *object;
	bool fresh;

	TRY(contents_object(dump, &volatile_file_kind, stat, &object, &fresh));
	*id = object->id;
	if (!fresh)
		return NULL;
	file = object->state;
	file->path = *path;
	file->deleted = deleted;
	file->unnamed = deleted && has_no_name(path, stat->st_ino);
	file->mode = stat->st_mode & 07777;
	file->uid = stat->st_uid;
	file->gid = stat->st_gid;
	file->atime = ns(&stat->st_atim);
	file->mtime = ns(&stat->st_mtim);
	if (deleted)
		TRY(check_size(dump, sight));
	else
		TRY(dump_directories(dump, sight, file));
	TRY(sight_open(dump, sight, &file->contents, &fd));
	return contents_copy(dump, &file->contents, fd, stat);
}

/* ---- restart ---- */

enum { READ_WRITE = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY };

/* Create it where it lay; with @unlink it is gone again before anybody sees it. */
static struct cr_error *create_at(struct restore *restore, const struct bytes *path, bool unlink,
				  int *ret)
{
	struct program *p = restore->program;
	uint64_t name;
	int call;

	TRY(program_reserve(p, 3, path->len + 64));
	name = program_bytes(p, path);
	call = program_call(p, image_text(&restore->image, "create '%s'", path->data), SYS_openat,
			    (uint64_t)AT_FDCWD, name, READ_WRITE | O_CREAT | O_EXCL, 0600);
	if (unlink)
		program_call(p, "unlink it", SYS_unlinkat, (uint64_t)AT_FDCWD, name, 0);
	TRY(program_run(p));
	return restore_fetch(restore, p->tid, (int)program_result(p, call), ret);
}

static struct cr_error *create_unnamed(struct restore *restore, struct bytes directory, int *ret)
{
	struct program *p = restore->program;
	int call;

	TRY(program_reserve(p, 2, directory.len + 64));
	call = program_call(p, image_text(&restore->image, "make a file in '%s'", directory.data),
			    SYS_openat, (uint64_t)AT_FDCWD, program_bytes(p, &directory),
			    O_RDWR | O_CLOEXEC | O_TMPFILE, 0600);
	TRY(program_run(p));
	return restore_fetch(restore, p->tid, (int)program_result(p, call), ret);
}

/* The directory part of @path, in memory of the pool. */
static struct cr_error *parent_of(struct restore *restore, const struct bytes *path,
				  struct bytes *ret)
{
	size_t len = path->len;

	while (len > 1 && path->data[len - 1] != '/')
		len--;
	while (len > 1 && path->data[len - 1] == '/')
		len--;
	ret->len = len;
	ret->data = (uint8_t *)pool_strndup(restore->image.pool, (char *)path->data, len);
	return ret->data ? NULL : error_nomem();
}

/* Under its old name; if that is taken or its directory is gone, without a name as near as can be. */
static struct cr_error *make_deleted(struct restore *restore, const struct volatile_file *file,
				     int *ret)
{
	struct cr_error *error = NULL;
	struct bytes at = file->path;

	if (!file->unnamed) {
		error = create_at(restore, &file->path, true, ret);
		if (!error)
			return NULL;
	}
	while (at.len > 1) {
		cr_error_free(error);
		TRY(parent_of(restore, &at, &at));
		error = create_unnamed(restore, at, ret);
		if (!error || error->code == CR_GONE)
			return error;
	}
	return error_remedy(error, "A file that was deleted has to be made anew: the file system "
				   "must be writable");
}

static struct cr_error *make_directories(struct restore *restore, const struct volatile_file *file)
{
	const struct directory_row *row = file->directories.items;
	struct program *p = restore->program;

	for (size_t i = 0; i < file->directories.count; i++, row++) {
		struct bytes part = {.len = row->len};
		uint32_t uid, gid;
		uint64_t name;
		int call;

		if (row->len >= file->path.len)
			return error_new(CR_IMAGE, "Directory %zu of '%s' is longer than the path",
					 i, file->path.data);
		part.data = (uint8_t *)pool_strndup(restore->image.pool, (char *)file->path.data,
						    row->len);
		if (!part.data)
			return error_nomem();
		TRY(program_reserve(p, 3, row->len + 64));
		name = program_bytes(p, &part);
		call = program_call(p, image_text(&restore->image, "make '%s'", part.data),
				    SYS_mkdirat, (uint64_t)AT_FDCWD, name, 0700);
		program_may_fail(p);
		TRY(program_run(p));
		if (program_result(p, call) < 0)
			continue; /* it is there already, and not ours to change */
		TRY(id_map_user(&restore->image.ids, row->uid, &uid));
		TRY(id_map_group(&restore->image.ids, row->gid, &gid));
		name = program_bytes(p, &part);
		program_call(p, "give it its owner", SYS_fchownat, (uint64_t)AT_FDCWD, name, uid,
			     gid, AT_SYMLINK_NOFOLLOW);
		program_call(p, "give it its mode", SYS_fchmodat, (uint64_t)AT_FDCWD, name,
			     row->mode);
		TRY(program_run(p));
	}
	return NULL;
}

/* A file that is there has survived, and is as valid as any other file of the container. */
static struct cr_error *find_named(struct restore *restore, struct object *object,
				   const struct volatile_file *file, bool *found)
{
	struct cr_error *error =
		restore_open(restore, &file->path, O_PATH | O_NOFOLLOW, &object->fd);
	struct stat stat;

	*found = !error;
	if (error && error->errnum == ENOENT) {
		cr_error_free(error);
		return NULL;
	}
	TRY(error);
	if (fstat(object->fd, &stat) < 0)
		return error_sys("Failed to look at '%s'", file->path.data);
	return S_ISREG(stat.st_mode)
		       ? NULL
		       : error_new(CR_HOST, "'%s' is not a regular file any more", file->path.data);
}

static struct cr_error *finish(struct restore *restore, struct object *object,
			       const struct volatile_file *file, int fd)
{
	const struct timespec times[2] = {
		{(time_t)(file->atime / 1000000000u), (long)(file->atime % 1000000000u)},
		{(time_t)(file->mtime / 1000000000u), (long)(file->mtime % 1000000000u)},
	};

	if (ftruncate(fd, (off_t)file->contents.size) < 0)
		return error_sys("Failed to set the size of '%s'", file->path.data);
	TRY(contents_fill_file(restore, &file->contents, fd));
	if (fchown(fd, file->uid, file->gid) < 0 || fchmod(fd, file->mode) < 0 ||
	    futimens(fd, times) < 0)
		return error_sys("Failed to set the owner, mode and times of '%s'",
				 file->path.data);
	return contents_keep(object, fd);
}

static struct cr_error *volatile_file_restore(struct restore *restore, struct process *process,
					      struct object *object)
{
	const struct volatile_file *file = object->state;
	_cleanup_close_ int fd = -1;
	bool found = false;

	(void)process; /* nobody has left the container's root yet */
	if (file->path.len < 2 || file->path.data[0] != '/')
		return error_new(CR_IMAGE, "File %u has no path", object->id);
	if (file->deleted) {
		TRY(make_deleted(restore, file, &fd));
		return finish(restore, object, file, fd);
	}
	TRY(find_named(restore, object, file, &found));
	if (found)
		return NULL;
	TRY(make_directories(restore, file));
	TRY(create_at(restore, &file->path, false, &fd));
	return finish(restore, object, file, fd);
}

const struct kind volatile_file_kind = {
	.name = "volatile_file",
	.doc = "File that is deleted but open or mapped, or in a tmpfs of the container: contents, "
	       "owner, mode, times",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct volatile_file),
	.fields = volatile_file_fields,
	.restore_contents = volatile_file_restore,
};
