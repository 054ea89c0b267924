/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memory shared between processes that has no name: mmap(MAP_SHARED | MAP_ANONYMOUS). */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "../cleanup.h"
#include "memory.h"

struct shared_memory {
	uint64_t size; /* bytes */
	struct list extents;
	/* dump only */
	dev_t device;
	ino_t inode;
	int fd;
};

static const struct field shared_memory_fields[] = {
	FIELD_UINT(struct shared_memory, size, PAGE, INT64_MAX, "length in bytes"),
	FIELD_ROWS(struct shared_memory, extents, struct extent, extent_fields, 1 << 28,
		   "contents: first page number, count, index in the pages file"),
	FIELD_END,
};

static struct cr_error *open_mapping(int proc, uint64_t start, uint64_t end, int flags, int *ret)
{
	char link[64];

	snprintf(link, sizeof(link), "map_files/%lx-%lx", (unsigned long)start, (unsigned long)end);
	*ret = openat(proc, link, flags | O_CLOEXEC);
	return *ret < 0 ? error_sys("Failed to open shared memory at 0x%lx", (unsigned long)start)
			: NULL;
}

struct cr_error *shared_memory_object(struct dump *dump, struct process *process,
				      const struct proc_map *map, uint32_t *id)
{
	_cleanup_close_ int fd = -1;
	struct shared_memory *memory;
	struct object *object;
	struct stat stat;

	TRY(open_mapping(process->proc, map->start, map->end, O_RDONLY, &fd));
	if (fstat(fd, &stat) < 0)
		return error_sys("Failed to look at shared memory");
	for_each (struct object *, known, &dump->shared_maps) {
		memory = known->state;
		if (memory->device == stat.st_dev && memory->inode == stat.st_ino) {
			*id = known->id;
			return NULL;
		}
	}
	object = image_add_object(&dump->image, &shared_memory_kind);
	if (!object)
		return error_nomem();
	memory = object->state;
	memory->size = (uint64_t)stat.st_size;
	memory->device = stat.st_dev;
	memory->inode = stat.st_ino;
	*id = object->id;
	if (dump->running)
		return NULL;
	memory->fd = steal_fd(&fd);
	struct object **slot = list_append(dump->image.pool, &dump->shared_maps, sizeof(*slot));
	if (!slot)
		return error_nomem();
	*slot = object;
	return shared_memory_copy(dump, object);
}

/* Straight from the page cache: pages that nobody maps at the moment belong to it too. */
static struct cr_error *copy_range(struct dump *dump, struct shared_memory *memory, off_t from,
				   off_t to)
{
	uint64_t first = (uint64_t)from / PAGE, count = ((uint64_t)to + PAGE - 1) / PAGE - first;
	uint64_t index;

	TRY(page_store_take(&dump->image.pages, count, &index));
	for (uint64_t done = 0; done < count * PAGE;) {
		ssize_t got = pread(memory->fd, page_store_page(&dump->image.pages, index) + done,
				    count * PAGE - done, (off_t)(first * PAGE + done));

		if (got < 0)
			return error_sys("Failed to read shared memory");
		if (!got)
			break;
		done += (uint64_t)got;
	}
	return extent_append(dump->image.pool, &memory->extents, first, count, index);
}

struct cr_error *shared_memory_copy(struct dump *dump, struct object *object)
{
	struct shared_memory *memory = object->state;
	_cleanup_close_ int fd = memory->fd;
	off_t end = 0;

	for (;;) {
		off_t start = lseek(fd, end, SEEK_DATA);

		if (start < 0 && errno == ENXIO)
			return NULL;
		if (start < 0)
			return error_sys("Failed to find the contents of shared memory");
		end = lseek(fd, start, SEEK_HOLE);
		if (end < 0)
			return error_sys("Failed to find the contents of shared memory");
		TRY(copy_range(dump, memory, start, end));
	}
}

struct list *shared_memory_extents(const struct object *object)
{
	return &((struct shared_memory *)object->state)->extents;
}

static struct cr_error *fill(struct restore *restore, struct object *object,
			     const struct shared_memory *memory)
{
	const struct extent *extents = memory->extents.items;

	for (size_t i = 0; i < memory->extents.count; i++) {
		uint64_t len = extents[i].count * PAGE;

		if (extents[i].index == EXTENT_ZERO)
			continue;
		if (extents[i].page * PAGE > memory->size ||
		    len > memory->size - extents[i].page * PAGE)
			return error_new(CR_IMAGE, "Shared memory %u has contents behind its end",
					 object->id);
		if (pwrite(object->fd, page_store_page(&restore->image.pages, extents[i].index),
			   len, (off_t)(extents[i].page * PAGE)) != (ssize_t)len)
			return error_sys("Failed to fill shared memory %u", object->id);
	}
	return NULL;
}

/* Only mmap(2) in the container makes one that is charged to the container and named as the old one
 * was. */
static struct cr_error *make(struct restore *restore, struct process *process,
			     struct object *object)
{
	const struct shared_memory *memory = object->state;
	struct program *p = restore->program;
	_cleanup_close_ int proc = -1;
	uint64_t address;
	int call;

	TRY(program_run(p));
	call = program_call(p, "make shared memory", SYS_mmap, 0, memory->size,
			    PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE,
			    (uint64_t)-1, 0);
	TRY(program_run(p));
	address = (uint64_t)program_result(p, call);
	TRY(proc_open(process_leader(process)->host_tid, process_leader(process)->host_tid, &proc));
	TRY(open_mapping(proc, address,
			 address + ((memory->size + PAGE - 1) & ~(uint64_t)(PAGE - 1)), O_RDWR,
			 &object->fd));
	TRY(fill(restore, object, memory));
	program_call(p, "unmap shared memory", SYS_munmap, address, memory->size);
	return program_run(p);
}

struct cr_error *shared_memory_fd(struct restore *restore, struct process *process, uint32_t id,
				  int *ret)
{
	struct object *object = image_object(&restore->image, id);

	if (!object || object->kind != &shared_memory_kind)
		return error_new(CR_IMAGE, "Object %u is not shared memory", id);
	if (object->fd < 0)
		TRY(make(restore, process, object));
	*ret = object->fd;
	return NULL;
}

const struct kind shared_memory_kind = {
	.name = "shared_memory",
	.doc = "Shared anonymous memory, saved once however many processes map it",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct shared_memory),
	.fields = shared_memory_fields,
};
