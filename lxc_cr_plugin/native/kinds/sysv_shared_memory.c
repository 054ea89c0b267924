/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* System V shared memory segments (shmget(2)): of the ipc namespace, attached or not. */
#include "sysv_shared_memory.h"

#include <fcntl.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#include "../cleanup.h"
#include "memory_flags.h"
#include "memory_keys.h"
#include "sysv.h"

#ifndef SHM_DEST
#define SHM_DEST 01000 /* will be destroyed at the last detach */
#endif

struct segment {
	struct contents contents;
	struct sysv_ipc ipc;
};

static const struct field segment_fields[] = {
	FIELD_CONTENTS(struct segment),
	FIELDS_SYSV(struct segment),
	FIELD_END,
};

bool sysv_claims(const struct bytes *name)
{
	const char *text = (const char *)name->data;

	return !strncmp(text, "/SYSV", strlen("/SYSV")) && strstr(text, " (deleted)");
}

/* ---- what there is ---- */

/* One line of /proc/sysvipc/shm, which shows the namespace of this process. */
static bool parse_line(const char *line, struct segment *ret, uint64_t *attached)
{
	struct sysv_ipc *ipc = &ret->ipc;

	return sscanf(line, "%d %d %o %lu %*d %*d %lu %u %u %u %u", &ipc->key, &ipc->id, &ipc->mode,
		      &ret->contents.size, attached, &ipc->uid, &ipc->gid, &ipc->cuid,
		      &ipc->cgid) == 9;
}

struct known_segment {
	struct segment segment;
	uint64_t attached;
};

/* Once in a look. *ret: list of struct known_segment, also by id. */
static struct cr_error *read_segments(struct dump *dump, const struct list **ret)
{
	struct sysv_segments *known = &dump->sysv_segments;
	struct known_segment *segment;
	const char *line;

	*ret = &known->list;
	if (known->read)
		return NULL;
	TRY(sysv_table(dump, "shm", &line));
	for (; line; line = sysv_next_line(line)) {
		struct known_segment **slot =
			list_append(dump->image.pool, &known->list, sizeof(*slot));

		segment = pool_alloc(dump->image.pool, sizeof(*segment));
		if (!slot || !segment)
			return error_nomem();
		*slot = segment;
		if (!parse_line(line, &segment->segment, &segment->attached))
			return error_new(CR_INTERNAL, "Failed to read /proc/sysvipc/shm");
		TRY(hash_add(dump->image.pool, &known->by_id, (uint64_t)segment->segment.ipc.id, 0,
			     segment));
	}
	known->read = true;
	return NULL;
}

static struct cr_error *find_segment(struct dump *dump, ino_t id, const struct segment **ret)
{
	const struct list *all;
	const struct known_segment *known;
	struct cr_error *error;

	TRY(read_segments(dump, &all));
	known = hash_find(&dump->sysv_segments.by_id, id, 0);
	*ret = known ? &known->segment : NULL;
	if (known)
		return NULL;
	error = error_new(CR_UNSUPPORTED,
			  "System V shared memory segment %lu is not one of the "
			  "container's",
			  (unsigned long)id);
	return error_remedy(error_object(error, "sysv_shared_memory"),
			    "End the process that has attached it");
}

static struct cr_error *add(struct dump *dump, const struct sight *sight,
			    const struct segment *found, uint32_t *id)
{
	_cleanup_close_ int fd = -1;
	struct segment *segment;
	struct contents kept;
	struct object *object;
	bool fresh;

	TRY(contents_object(dump, &sysv_shared_memory_kind, &sight->stat, &object, &fresh));
	*id = object->id;
	if (!fresh)
		return NULL;
	segment = object->state;
	kept = segment->contents;
	*segment = *found;
	segment->contents = kept;
	segment->contents.size = found->contents.size;
	/* hugetlb pages show in the file system's block size */
	if (sight->stat.st_blksize > PAGE &&
	    !(sight->stat.st_blksize & (sight->stat.st_blksize - 1)))
		segment->contents.huge_page = (uint64_t)sight->stat.st_blksize;
	TRY(sight_open(dump, sight, &segment->contents, &fd));
	return contents_copy(dump, &segment->contents, fd, &sight->stat);
}

struct cr_error *sysv_object(struct dump *dump, const struct sight *sight, uint32_t *id)
{
	const struct segment *found;

	TRY(find_segment(dump, sight->stat.st_ino, &found));
	return add(dump, sight, found, id);
}

/* To see the contents somebody must attach it: we do, which leaves its mark in the times of the
 * segment. */
static struct cr_error *dump_one_detached(struct dump *dump, const struct segment *segment)
{
	_cleanup_close_ int proc = -1;
	char link[64];
	void *at = shmat(segment->ipc.id, NULL, SHM_RDONLY);
	uint64_t size = (segment->contents.size + PAGE - 1) & ~(uint64_t)(PAGE - 1);
	struct process self = {.host_pid = getpid()};
	struct sight sight = {.process = &self, .link = link};
	struct cr_error *error;
	uint32_t id;

	if (at == (void *)-1)
		return error_sys("Failed to attach System V shared memory segment %d",
				 segment->ipc.id);
	snprintf(link, sizeof(link), "map_files/%lx-%lx", (unsigned long)at,
		 (unsigned long)at + size);
	error = proc_open(self.host_pid, self.host_pid, &proc);
	self.proc = proc;
	if (!error && fstatat(proc, link, &sight.stat, 0) < 0)
		error = error_sys("Failed to look at System V shared memory segment %d",
				  segment->ipc.id);
	if (!error)
		error = add(dump, &sight, segment, &id);
	shmdt(at);
	return error;
}

struct cr_error *sysv_dump_detached(struct dump *dump)
{
	const struct list *all;

	TRY(read_segments(dump, &all));
	for_each (struct known_segment *, known, all) {
		if (!known->attached)
			TRY(dump_one_detached(dump, &known->segment));
	}
	return NULL;
}

/* ---- restart ---- */

static int create(struct program *p, const struct segment *segment)
{
	uint64_t huge_page = segment->contents.huge_page;

	return program_call(p, "make a System V shared memory segment", SYS_shmget,
			    (uint64_t)segment->ipc.key, segment->contents.size,
			    IPC_CREAT | IPC_EXCL | 0600 |
				    (huge_page ? SHM_HUGETLB | memory_huge_size(huge_page) : 0));
}

static struct cr_error *segment_restore(struct restore *restore, struct process *process,
					struct object *object)
{
	const struct segment *segment = object->state;
	struct program *p = restore->program;
	uint64_t address;
	int call;

	TRY(sysv_choose_id("shm_next_id", segment->ipc.id));
	TRY(sysv_become_creator(restore, &segment->ipc));
	call = create(p, segment);
	sysv_become_root(p, &segment->ipc);
	TRY(program_run(p));
	TRY(sysv_check_id(p, call, &segment->ipc));
	call = program_call(p, "attach it", SYS_shmat, (uint64_t)segment->ipc.id, 0, 0);
	TRY(program_run(p));
	address = (uint64_t)program_result(p, call);
	TRY(contents_fill_mapped(restore, process, &segment->contents, address));
	program_call(p, "detach it", SYS_shmdt, address);
	TRY(program_run(p));
	/* it has no file that could be opened; the descriptor only says that it stands */
	object->fd = open("/dev/null", O_PATH | O_CLOEXEC);
	return object->fd < 0 ? error_sys("Failed to open /dev/null") : NULL;
}

/* Attached as a whole where there is room, cut, moved: what lies beside its place is not touched. */
struct cr_error *sysv_map(struct restore *restore, struct process *process, const struct vma *vma,
			  uint64_t start, uint64_t end)
{
	const struct object *object = image_object(&restore->image, vma->object);
	const struct segment *segment = object->state;
	uint64_t unit = segment->contents.huge_page ? segment->contents.huge_page : PAGE;
	uint64_t size = (segment->contents.size + unit - 1) & ~(unit - 1);
	uint64_t offset = vma->offset + (start - vma->start), len = end - start, at;
	struct program *p = restore->program;
	int call, fd;

	if (offset > size || len > size - offset)
		return error_new(CR_IMAGE, "Mapping 0x%lx shows more than its segment has",
				 (unsigned long)start);
	TRY(contents_fd(restore, process, vma->object, &fd));
	call = program_call(p, "attach a segment", SYS_shmat, (uint64_t)segment->ipc.id, 0,
			    (vma->flags & VM_MAYWRITE ? 0 : SHM_RDONLY) |
				    (vma->protection & PROT_EXEC ? SHM_EXEC : 0));
	TRY(program_run(p));
	at = (uint64_t)program_result(p, call);
	if (offset)
		program_call(p, "cut off its head", SYS_munmap, at, offset);
	if (offset + len < size)
		program_call(p, "cut off its tail", SYS_munmap, at + offset + len,
			     size - offset - len);
	program_call(p, "move it into place", SYS_mremap, at + offset, len, len,
		     MREMAP_MAYMOVE | MREMAP_FIXED, start);
	program_call(p, "protect it", SYS_mprotect, start, len,
		     memory_protection_without_keys(vma));
	return program_run(p);
}

static struct cr_error *finish(const struct segment *segment)
{
	struct shmid_ds data = {
		.shm_perm = {.uid = segment->ipc.uid, .gid = segment->ipc.gid},
	};

	data.shm_perm.mode = segment->ipc.mode & 0777;
	if (shmctl(segment->ipc.id, IPC_SET, &data) < 0 ||
	    (segment->ipc.mode & SHM_DEST && shmctl(segment->ipc.id, IPC_RMID, NULL) < 0))
		return error_sys("Failed to set up System V shared memory segment %d",
				 segment->ipc.id);
	return NULL;
}

struct cr_error *sysv_finish(struct restore *restore)
{
	struct process *init = *(struct process **)restore->image.processes.items;
	int fd;

	for_each (struct object *, object, &restore->image.objects) {
		if (object->kind != &sysv_shared_memory_kind)
			continue;
		TRY(contents_fd(restore, init, object->id, &fd));
		TRY(finish(object->state));
	}
	return NULL;
}

const struct kind sysv_shared_memory_kind = {
	.name = "sysv_shared_memory",
	.doc = "System V shared memory segment: id, key, owner, permissions, contents, mark of "
	       "removal",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct segment),
	.fields = segment_fields,
	.restore_contents = segment_restore,
};
