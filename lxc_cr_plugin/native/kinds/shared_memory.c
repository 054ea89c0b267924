/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memory shared between processes that has no name: mmap(MAP_SHARED | MAP_ANONYMOUS), or of
 * /dev/zero. */
#include "shared_memory.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "../cleanup.h"
#include "memory.h"

struct shared_memory {
	struct contents contents;
};

static const struct field shared_memory_fields[] = {
	FIELD_CONTENTS(struct shared_memory),
	FIELD_END,
};

struct cr_error *shared_memory_object(struct dump *dump, const struct sight *sight,
				      uint64_t huge_page, uint32_t *id)
{
	_cleanup_close_ int fd = -1;
	struct contents *contents;
	struct object *object;
	bool fresh;

	TRY(contents_object(dump, &shared_memory_kind, &sight->stat, &object, &fresh));
	*id = object->id;
	if (!fresh)
		return NULL;
	contents = contents_of(object);
	contents->huge_page = huge_page;
	TRY(sight_open(dump, sight, contents, &fd));
	return contents_copy(dump, contents, fd, &sight->stat);
}

static struct cr_error *open_mapping(pid_t tid, uint64_t start, uint64_t end, int *ret)
{
	_cleanup_close_ int proc = -1;
	char link[64];

	TRY(proc_open(tid, tid, &proc));
	snprintf(link, sizeof(link), "map_files/%lx-%lx", (unsigned long)start, (unsigned long)end);
	*ret = openat(proc, link, O_RDWR | O_CLOEXEC);
	return *ret < 0 ? error_sys("Failed to open shared memory at 0x%lx", (unsigned long)start)
			: NULL;
}

/* Only mmap(2) in the container makes one that is charged to the container and named as the old one
 * was. */
static struct cr_error *shared_memory_restore(struct restore *restore, struct process *process,
					      struct object *object)
{
	const struct contents *contents = contents_of(object);
	uint64_t unit = contents->huge_page ? contents->huge_page : PAGE;
	uint64_t size = (contents->size + unit - 1) & ~(unit - 1);
	struct program *p = restore->program;
	uint64_t address;
	int call;

	call = program_call(
		p, "make shared memory", SYS_mmap, 0, size, PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE |
			(contents->huge_page ? MAP_HUGETLB | memory_huge_size(unit) : 0),
		(uint64_t)-1, 0);
	TRY(program_run(p));
	address = (uint64_t)program_result(p, call);
	TRY(open_mapping(process_leader(process)->host_tid, address, address + size, &object->fd));
	TRY(contents_fill_mapped(restore, process, contents, address));
	program_call(p, "unmap shared memory", SYS_munmap, address, size);
	return program_run(p);
}

const struct kind shared_memory_kind = {
	.name = "shared_memory",
	.doc = "Shared anonymous memory, saved once however many processes map it",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct shared_memory),
	.fields = shared_memory_fields,
	.restore_contents = shared_memory_restore,
};
