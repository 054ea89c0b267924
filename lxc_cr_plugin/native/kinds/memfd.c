/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files that live in memory only: memfd_create(2), with name, seals and hugetlb pages. */
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include "../cleanup.h"
#include "memory.h"
#include "shared_memory.h"

#ifndef MFD_NOEXEC_SEAL /* Linux 6.3 */
#define MFD_NOEXEC_SEAL 8u
#define MFD_EXEC	16u
#endif

#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x20
#endif

#define PREFIX	"/memfd:"
#define DELETED " (deleted)"

enum {
	ALL_SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE |
		    F_SEAL_EXEC
};

struct memfd {
	struct contents contents;
	struct bytes name;
	uint32_t seals;
	uint32_t mode, uid, gid;
};

static const struct field memfd_fields[] = {
	FIELD_CONTENTS(struct memfd),
	FIELD_PATH(struct memfd, name, "as given to memfd_create(2)"),
	FIELD_UINT(struct memfd, seals, 0, ALL_SEALS, "F_SEAL_ flags, fcntl(2) F_GET_SEALS"),
	FIELD_UINT(struct memfd, mode, 0, 07777, "permissions"),
	FIELD_UINT(struct memfd, uid, 0, UINT32_MAX, "owner"),
	FIELD_UINT(struct memfd, gid, 0, UINT32_MAX, "group"),
	FIELD_END,
};

bool memfd_claims(const struct bytes *path)
{
	size_t tail = strlen(DELETED);

	return path->len >= strlen(PREFIX) + tail && !memcmp(path->data, PREFIX, strlen(PREFIX)) &&
	       !memcmp(path->data + path->len - tail, DELETED, tail);
}

static struct cr_error *read_seals(const struct sight *sight, int fd, uint32_t *ret)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct cr_error *error;

	if (seals < 0)
		return error_sys("Failed to read the seals of /proc/PID/%s", sight->link);
	*ret = (uint32_t)seals;
	if (!(*ret & ~(uint32_t)ALL_SEALS))
		return NULL;
	error = error_new(CR_UNSUPPORTED, "It has seals that are not known here (0x%x)", *ret);
	return error_remedy(error_object(error, "memfd"), "Not supported yet: update lxc-cr");
}

struct cr_error *memfd_object(struct dump *dump, const struct sight *sight, uint32_t *id)
{
	_cleanup_close_ int fd = -1;
	struct memfd *memfd;
	struct object *object;
	struct statfs fs;
	bool fresh;

	TRY(contents_object(dump, &memfd_kind, &sight->stat, &object, &fresh));
	*id = object->id;
	if (!fresh)
		return NULL;
	memfd = object->state;
	TRY(sight_open(dump, sight, &memfd->contents, &fd));
	if (fstatfs(fd, &fs) < 0)
		return error_sys("Failed to look at /proc/PID/%s", sight->link);
	if (fs.f_type == HUGETLBFS_MAGIC)
		memfd->contents.huge_page = (uint64_t)fs.f_bsize;
	memfd->name.data = sight->path.data + strlen(PREFIX);
	memfd->name.len = sight->path.len - strlen(PREFIX) - strlen(DELETED);
	memfd->name.data = (uint8_t *)pool_strndup(dump->image.pool, (char *)memfd->name.data,
						   memfd->name.len);
	if (!memfd->name.data)
		return error_nomem();
	memfd->mode = sight->stat.st_mode & 07777;
	memfd->uid = sight->stat.st_uid;
	memfd->gid = sight->stat.st_gid;
	TRY(read_seals(sight, fd, &memfd->seals));
	return contents_copy(dump, &memfd->contents, fd, &sight->stat);
}

/* Before 6.3 nobody asked whether it will be executed, and the flags that tell are refused. */
static struct cr_error *create(struct restore *restore, const struct memfd *memfd, int *ret)
{
	struct program *p = restore->program;
	uint64_t huge_page = memfd->contents.huge_page;
	uint64_t flags = MFD_CLOEXEC | MFD_ALLOW_SEALING |
			 (huge_page ? MFD_HUGETLB | memory_huge_size(huge_page) : 0);
	uint64_t executes = memfd->seals & F_SEAL_EXEC ? MFD_NOEXEC_SEAL : MFD_EXEC;
	struct cr_error *error;

	*ret = program_call(p, "make a memfd", SYS_memfd_create, program_bytes(p, &memfd->name),
			    flags | executes);
	error = program_run(p);
	if (error && error->errnum == EINVAL && executes == MFD_EXEC) {
		cr_error_free(error);
		*ret = program_call(p, "make a memfd", SYS_memfd_create,
				    program_bytes(p, &memfd->name), flags);
		error = program_run(p);
	}
	if (!error)
		*ret = (int)program_result(p, *ret);
	return error;
}

/* Mapped once by @process to be filled; @remote is its descriptor. */
static struct cr_error *fill(struct restore *restore, struct process *process,
			     const struct contents *contents, int remote)
{
	uint64_t unit = contents->huge_page ? contents->huge_page : PAGE;
	uint64_t size = (contents->size + unit - 1) & ~(unit - 1);
	struct program *p = restore->program;
	uint64_t address;
	int call;

	if (!contents->extents.count)
		return NULL;
	call = program_call(p, "map a memfd", SYS_mmap, 0, size, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_NORESERVE, (uint64_t)remote, 0);
	TRY(program_run(p));
	address = (uint64_t)program_result(p, call);
	TRY(contents_fill_mapped(restore, process, contents, address));
	program_call(p, "unmap a memfd", SYS_munmap, address, size);
	return program_run(p);
}

static struct cr_error *seal(int fd, const struct memfd *memfd)
{
	if (memfd->seals && fcntl(fd, F_ADD_SEALS, memfd->seals) < 0)
		return error_sys("Failed to seal memfd '%s'", memfd->name.data);
	return NULL;
}

/* What is mapped for writing now stays so, and must be before the seal. */
static bool is_sealed_late(const struct memfd *memfd)
{
	return memfd->seals & F_SEAL_FUTURE_WRITE;
}

static struct cr_error *memfd_restore(struct restore *restore, struct process *process,
				      struct object *object)
{
	const struct memfd *memfd = object->state;
	struct program *p = restore->program;
	_cleanup_close_ int fd = -1;
	int remote;

	TRY(create(restore, memfd, &remote));
	TRY(task_get_fd(p->tid, remote, &fd));
	if (ftruncate(fd, (off_t)memfd->contents.size) < 0)
		return error_sys("Failed to set its size");
	TRY(fill(restore, process, &memfd->contents, remote));
	program_call(p, "close a memfd", SYS_close, (uint64_t)remote);
	TRY(program_run(p));
	if (fchown(fd, memfd->uid, memfd->gid) < 0 || fchmod(fd, memfd->mode) < 0)
		return error_sys("Failed to set its owner and mode");
	if (!is_sealed_late(memfd))
		TRY(seal(fd, memfd));
	return contents_keep(object, fd);
}

struct cr_error *memfd_seal(struct restore *restore)
{
	for_each (struct object *, object, &restore->image.objects) {
		const struct memfd *memfd = object->state;
		_cleanup_close_ int fd = -1;

		if (object->kind != &memfd_kind || object->fd < 0 || !is_sealed_late(memfd))
			continue;
		TRY(contents_open(restore, NULL, object->id, O_RDWR, &fd));
		TRY(seal(fd, memfd));
	}
	return NULL;
}

const struct kind memfd_kind = {
	.name = "memfd",
	.doc = "Memfd: name, seals, contents, hugetlb pages; open or only mapped",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct memfd),
	.fields = memfd_fields,
	.restore_contents = memfd_restore,
};
