/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory.h"

#include <fcntl.h>
#include <linux/prctl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "../cleanup.h"
#include "../kernel/vmas.h"
#include "../locks.h"
#include "../sharing.h"
#include "contents.h"
#include "file.h"
#include "memory_flags.h"
#include "memory_keys.h"
#include "memory_special.h"
#include "shared_memory.h"
#include "sysv_shared_memory.h"

static const struct field vma_fields[] = {
	FIELD_UINT(struct vma, start, 0, ARCH_TASK_SIZE, "first address"),
	FIELD_UINT(struct vma, end, PAGE, ARCH_TASK_SIZE, "address behind the last"),
	FIELD_UINT(struct vma, protection, 0, 7, "PROT_READ 1, PROT_WRITE 2, PROT_EXEC 4"),
	FIELD_UINT(struct vma, type, 0, VMA_TYPES - 1,
		   "0 anonymous, 1 private file, 2 shared file, 3 shared anonymous, 4 made by the "
		   "kernel"),
	FIELD_UINT(struct vma, flags, 0, UINT64_MAX, "VM_ flags that a restart gives back"),
	FIELD_UINT(struct vma, offset, 0, INT64_MAX, "in the file or object, bytes"),
	FIELD_UINT(struct vma, huge_page, 0, 1ull << 40, "bytes of a hugetlb page",
		   .optional = true),
	FIELD_UINT(struct vma, object, 0, UINT32_MAX,
		   "object with the contents of the memory or file, 0: the path leads there"),
	FIELD_PATH(struct vma, name, "path in the container, or [vdso] and the like"),
	FIELD_UINT(struct vma, file_size, 0, INT64_MAX, "size of the file at checkpoint"),
	FIELD_UINT(struct vma, file_mtime, 0, UINT64_MAX, "its modification time, ns since 1970"),
	FIELD_STRUCT(struct vma, policy, numa_policy_fields, "mbind(2)", .optional = true),
	FIELD_UINT(struct vma, description, 0, UINT32_MAX,
		   "open file description that is mapped, 0: one of its own", .optional = true),
	FIELD_UINT(struct vma, key, 0, MEMORY_KEYS - 1, "memory protection key", .optional = true),
	FIELD_BYTES(struct vma, given_name, KERNEL_VMA_NAME_MAX,
		    "PR_SET_VMA_ANON_NAME, with the NUL that ends it", .optional = true),
	FIELD_END,
};

static const struct field memory_fields[] = {
	FIELD_UINT(struct memory_map, start_code, 0, ARCH_TASK_SIZE, "PR_SET_MM_START_CODE"),
	FIELD_UINT(struct memory_map, end_code, 0, ARCH_TASK_SIZE, "PR_SET_MM_END_CODE"),
	FIELD_UINT(struct memory_map, start_data, 0, ARCH_TASK_SIZE, "PR_SET_MM_START_DATA"),
	FIELD_UINT(struct memory_map, end_data, 0, ARCH_TASK_SIZE, "PR_SET_MM_END_DATA"),
	FIELD_UINT(struct memory_map, start_brk, 0, ARCH_TASK_SIZE, "PR_SET_MM_START_BRK"),
	FIELD_UINT(struct memory_map, brk, 0, ARCH_TASK_SIZE, "brk(2)"),
	FIELD_UINT(struct memory_map, start_stack, 0, ARCH_TASK_SIZE, "PR_SET_MM_START_STACK"),
	FIELD_UINT(struct memory_map, arg_start, 0, ARCH_TASK_SIZE, "where /proc/PID/cmdline lies"),
	FIELD_UINT(struct memory_map, arg_end, 0, ARCH_TASK_SIZE, "where it ends"),
	FIELD_UINT(struct memory_map, env_start, 0, ARCH_TASK_SIZE, "where /proc/PID/environ lies"),
	FIELD_UINT(struct memory_map, env_end, 0, ARCH_TASK_SIZE, "where it ends"),
	FIELD_BYTES(struct memory_map, auxv, 1024, "auxiliary vector"),
	FIELD_PATH(struct memory_map, exe, "program, path in the container"),
	FIELD_UINT(struct memory_map, exe_size, 0, INT64_MAX, "its size at checkpoint"),
	FIELD_UINT(struct memory_map, exe_mtime, 0, UINT64_MAX,
		   "its modification time, ns since 1970"),
	FIELD_UINT(struct memory_map, exe_object, 0, UINT32_MAX,
		   "object that is the program instead of the path, 0: none", .optional = true),
	FIELD_LIST(struct memory_map, vmas, struct vma, vma_fields, 1 << 20, "mappings, ascending"),
	FIELD_ROWS(
		struct memory_map, extents, struct extent, extent_fields, 1 << 28,
		"private pages: first page number, count, index in the pages file (2^64-1: zeros)"),
	FIELD_ROWS(struct memory_map, guards, struct guard, guard_fields, 1 << 28,
		   "guard pages: first page number, count", .optional = true),
	FIELD_UINT(struct memory_map, lock_future, 0, MCL_FUTURE | MCL_ONFAULT,
		   "mlockall(2): MCL_FUTURE 2, MCL_ONFAULT 4", .optional = true),
	FIELD_UINT(struct memory_map, keys, 0, (1 << MEMORY_KEYS) - 1,
		   "memory protection keys that it has allocated, a bit each", .optional = true),
	FIELD_UINT(struct memory_map, execute_only_key, 0, MEMORY_KEYS - 1,
		   "the key that the kernel has taken for memory that can only be executed",
		   .optional = true),
	FIELD_UINT(struct memory_map, merge_any, 0, 1, "PR_SET_MEMORY_MERGE", .optional = true),
	FIELD_END,
};

static uint64_t mtime_ns(const struct stat *stat)
{
	return (uint64_t)stat->st_mtim.tv_sec * 1000000000u + (uint64_t)stat->st_mtim.tv_nsec;
}

static bool has_name(const struct bytes *name, const char *text)
{
	return name->len == strlen(text) && !memcmp(name->data, text, name->len);
}

static bool same_bytes(const struct bytes *a, const struct bytes *b)
{
	return a->len == b->len && !memcmp(a->data, b->data, a->len);
}

static struct cr_error *refuse_map(const struct proc_map *map, const char *object, const char *why,
				   const char *remedy)
{
	struct cr_error *error =
		error_new(CR_UNSUPPORTED, "Mapping 0x%lx-0x%lx (%s) %s", (unsigned long)map->start,
			  (unsigned long)map->end,
			  map->name.len ? (const char *)map->name.data : "anonymous", why);

	return error_remedy(error_object(error, object), "%s", remedy);
}

static struct cr_error *check_flags(const struct proc_map *map, uint64_t flags)
{
	if (flags & (VM_UFFD_MISSING | VM_UFFD_WP))
		return refuse_map(map, "userfaultfd", "is watched by userfaultfd",
				  "Unregister it before the checkpoint");
	if (flags & (VM_PFNMAP | VM_IO | VM_MIXEDMAP))
		return refuse_map(map, "device_mapping", "shows device memory",
				  "Close the device before the checkpoint");
	if (flags & ~(VM_RESTORED | VM_IMPLIED | VM_PKEY))
		return refuse_map(map, "memory", "has a property that is not known here",
				  "Not supported yet: update lxc-cr");
	return NULL;
}

/* Mappings of things that are no files. */
static struct cr_error *check_name(const struct proc_map *map)
{
	static const struct {
		const char *prefix, *object;
	} others[] = {
		{"anon_inode:", "anon_inode"},
		{"socket:", "packet_socket"},
		{"[uprobes]", "uprobes"},
		{"[aio]", "aio"},
	};

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		if (!strncmp((char *)map->name.data, others[i].prefix, strlen(others[i].prefix)))
			return refuse_map(
				map, others[i].object, "cannot be saved yet",
				"Not supported yet: end the process, or close the object");
	}
	return NULL;
}

static bool is_special(const struct bytes *name)
{
	return has_name(name, "[vvar]") || has_name(name, "[vdso]") ||
	       has_name(name, "[vvar_vclock]") || has_name(name, "[vsyscall]");
}

static bool is_anonymous_hugetlb(const struct proc_map *map)
{
	return has_name(&map->name, "/anon_hugepage (deleted)");
}

static bool is_shared_memory(const struct proc_map *map)
{
	return map->shared &&
	       (has_name(&map->name, "/dev/zero (deleted)") || is_anonymous_hugetlb(map));
}

/* Whether it shows a file is not told by an inode: the first System V segment has number 0. */
static enum vma_type type_of(const struct proc_map *map, const struct kernel_vma *known)
{
	if (is_special(&map->name))
		return VMA_SPECIAL;
	if (is_shared_memory(map))
		return VMA_SHARED;
	if (!known->file || is_anonymous_hugetlb(map))
		return VMA_ANONYMOUS;
	return map->shared ? VMA_FILE_SHARED : VMA_FILE_PRIVATE;
}

/* What a restart will map instead of what is mapped here. */
static struct cr_error *find_backing(struct dump *dump, struct process *process,
				     const struct proc_map *map, const struct kernel_vma *known,
				     struct vma *vma)
{
	char link[64];
	struct sight sight = {
		.process = process, .link = link, .path = map->name, .locks = known->locks};
	struct backing backing;
	struct cr_error *error;

	snprintf(link, sizeof(link), "map_files/%lx-%lx", (unsigned long)map->start,
		 (unsigned long)map->end);
	if (fstatat(process->proc, link, &sight.stat, 0) < 0)
		return error_sys("Failed to look at mapping %s", link);
	if (vma->flags & VM_HUGETLB && vma->type <= VMA_SHARED)
		vma->huge_page = (uint64_t)sight.stat.st_blksize;
	if (vma->type == VMA_ANONYMOUS)
		return NULL;
	if (vma->type == VMA_SHARED)
		return shared_memory_object(dump, &sight, vma->huge_page, &vma->object);
	if (sysv_claims(&map->name) && !sight.stat.st_nlink && vma->type == VMA_FILE_SHARED)
		return sysv_object(dump, &sight, &vma->object);
	error = backing_find(dump, &sight, &backing);
	if (error)
		return error_wrap(error, "Cannot save mapping 0x%lx-0x%lx (%s)",
				  (unsigned long)map->start, (unsigned long)map->end,
				  (const char *)map->name.data);
	vma->name = backing.path;
	vma->object = backing.object;
	vma->file_size = (uint64_t)sight.stat.st_size;
	vma->file_mtime = mtime_ns(&sight.stat);
	return NULL;
}

static bool is_same_file(const struct proc_map *a, const struct proc_map *b)
{
	return a->inode == b->inode && a->major == b->major && a->minor == b->minor &&
	       a->shared == b->shared && same_bytes(&a->name, &b->name);
}

/* Shared memory has one for all who map it, and none of them shows it. */
static struct cr_error *check_policy(struct dump *dump, const struct proc_map *map,
				     const struct kernel_vma *known, const struct vma *vma)
{
	if (!vma->object)
		return NULL;
	return error_wrap(numa_policy_check_shared(dump, known->file),
			  "Cannot save mapping 0x%lx-0x%lx (%s)", (unsigned long)map->start,
			  (unsigned long)map->end, (const char *)map->name.data);
}

/* @previous: the mapping before it, NULL for the first; neighbours often show the same file. */
static struct cr_error *dump_vma(struct dump *dump, struct process *process,
				 const struct proc_map *previous, const struct proc_map *map,
				 const struct kernel_vma *known, struct memory_map *memory)
{
	uint64_t flags = known->flags;
	struct vma *vma, *last;

	TRY(check_name(map));
	if (!is_special(&map->name)) {
		TRY(memory_translate_flags(dump, &flags));
		TRY(check_flags(map, flags));
	}
	vma = list_append(dump->image.pool, &memory->vmas, sizeof(*vma));
	if (!vma)
		return error_nomem();
	vma->start = map->start;
	vma->end = map->end;
	vma->protection = (map->read ? PROT_READ : 0) | (map->write ? PROT_WRITE : 0) |
			  (map->execute ? PROT_EXEC : 0);
	vma->type = type_of(map, known);
	vma->flags = flags & (VM_RESTORED | VM_MAYWRITE);
	vma->key = vma->type == VMA_SPECIAL ? 0 : (flags & VM_PKEY) >> VM_PKEY_SHIFT;
	vma->offset = known->file && vma->type != VMA_ANONYMOUS ? map->offset : 0;
	vma->name = map->name;
	vma->kernel_file = known->file;
	TRY(numa_policy_dump(dump, known->policy, &vma->policy));
	TRY(memory_name_dump(dump, known->name, &vma->given_name));
	if (known->locks)
		TRY(locks_note_mapping(dump, process, map, known));
	if (!known->file || vma->type == VMA_SPECIAL)
		return NULL;
	if (!previous || !is_same_file(previous, map)) {
		TRY(find_backing(dump, process, map, known, vma));
		return check_policy(dump, map, known, vma);
	}
	last = vma - 1;
	vma->name = last->name;
	vma->object = last->object;
	vma->huge_page = last->huge_page;
	vma->file_size = last->file_size;
	vma->file_mtime = last->file_mtime;
	return NULL;
}

static struct cr_error *dump_vmas(struct dump *dump, struct process *process,
				  struct memory_map *memory)
{
	struct kernel_vma_reader *reader = NULL;
	struct list maps = {0}, vmas = {0};
	const struct kernel_vma *known;
	struct cr_error *error;
	size_t k = 0;

	TRY(proc_maps(process->proc, dump->image.pool, &maps));
	TRY(kernel_vma_reader_open(dump->vma_program, process->host_pid, &reader));
	error = kernel_vma_reader_read(reader, dump->image.pool, &vmas);
	kernel_vma_reader_close(reader);
	TRY(error);
	known = vmas.items;
	for (size_t i = 0; i < maps.count; i++) {
		const struct proc_map *map = (struct proc_map *)maps.items + i;

		if (has_name(&map->name, "[vsyscall]"))
			continue; /* not in the address space, the same for every task */
		while (k < vmas.count && known[k].end <= map->start)
			k++;
		if (k == vmas.count || known[k].start > map->start)
			return error_new(CR_INTERNAL, "Failed to find the flags of mapping 0x%lx",
					 (unsigned long)map->start);
		TRY(dump_vma(dump, process, i ? map - 1 : NULL, map, &known[k], memory));
	}
	return NULL;
}

void memory_find_descriptions(struct dump *dump)
{
	for_each (struct process *, process, &dump->image.processes) {
		struct vma *vma = process->memory->vmas.items;

		for (size_t i = 0; i < process->memory->vmas.count; i++) {
			const struct object *object =
				vma[i].kernel_file ? file_find(dump, vma[i].kernel_file) : NULL;

			if (object && object->kind == &regular_kind)
				vma[i].description = object->id;
		}
	}
}

static struct cr_error *dump_exe(struct dump *dump, struct process *process,
				 struct memory_map *memory)
{
	struct sight sight = {.process = process, .link = "exe"};
	struct backing backing;

	TRY(proc_link(process->proc, "exe", dump->image.pool, &sight.path));
	if (fstatat(process->proc, "exe", &sight.stat, 0) < 0)
		return error_sys("Failed to look at the program of process %d", process->pid);
	TRY(error_wrap(backing_find(dump, &sight, &backing), "Cannot save program '%s'",
		       (const char *)sight.path.data));
	memory->exe = backing.path;
	memory->exe_object = backing.object;
	memory->exe_size = (uint64_t)sight.stat.st_size;
	memory->exe_mtime = mtime_ns(&sight.stat);
	return NULL;
}

/* Has it asked for all its memory to be merged (KSM)? Only what is mergeable can tell. */
static struct cr_error *dump_merging(struct dump *dump, struct process *process,
				     struct memory_map *memory)
{
	const struct vma *vma = memory->vmas.items;
	bool mergeable = false;
	char *text;

	for (size_t i = 0; i < memory->vmas.count && !mergeable; i++)
		mergeable = vma[i].flags & VM_MERGEABLE;
	if (!mergeable)
		return NULL;
	TRY(proc_read(process->proc, "ksm_stat", dump->image.pool, &text, NULL));
	memory->merge_any = strstr(text, "ksm_merge_any: yes") != NULL;
	return NULL;
}

/* What every new mapping gets. */
static struct cr_error *dump_defaults(struct dump *dump, struct process *process,
				      struct memory_map *memory)
{
	uint64_t flags = process_leader(process)->kernel->def_flags;

	if (flags & VM_LOCKED)
		memory->lock_future = MCL_FUTURE | (flags & VM_LOCKONFAULT ? MCL_ONFAULT : 0);
	return dump_merging(dump, process, memory);
}

/* Somebody else's record has it all. */
static struct cr_error *dump_shared(struct process *process, struct memory_map *memory)
{
	process->memory = sharing_owner(process, SHARE_MEMORY)->memory;
	if (!process->memory)
		return NULL; /* the survey keeps none */
	*memory = *process->memory;
	memset(&memory->vmas, 0, sizeof(memory->vmas));
	memset(&memory->extents, 0, sizeof(memory->extents));
	memset(&memory->guards, 0, sizeof(memory->guards));
	return NULL;
}

static struct cr_error *memory_dump(struct dump *dump, struct process *process, void *state)
{
	struct memory_map *memory = state;
	const struct proc_stat *stat = &process->stat;
	char *auxv;

	if (!sharing_is_first(process, SHARE_MEMORY))
		return dump_shared(process, memory);
	process->memory = memory;
	memory_keys_dump(process, memory);
	memory->start_code = stat->start_code;
	memory->end_code = stat->end_code;
	memory->start_data = stat->start_data;
	memory->end_data = stat->end_data;
	memory->start_brk = stat->start_brk;
	memory->brk = process_leader(process)->kernel->brk;
	memory->start_stack = stat->start_stack;
	memory->arg_start = stat->arg_start;
	memory->arg_end = stat->arg_end;
	memory->env_start = stat->env_start;
	memory->env_end = stat->env_end;
	TRY(proc_read(process->proc, "auxv", dump->image.pool, &auxv, &memory->auxv.len));
	memory->auxv.data = (uint8_t *)auxv;
	TRY(dump_exe(dump, process, memory));
	TRY(dump_vmas(dump, process, memory));
	TRY(special_check(dump, process));
	return dump_defaults(dump, process, memory);
}

/* The survey looks at the same things, into a scrap record. */
static struct cr_error *memory_check(struct dump *dump, struct process *process)
{
	struct memory_map scrap = {0};
	struct cr_error *error;

	if (!dump->running)
		return NULL;
	error = memory_dump(dump, process, &scrap);
	process->memory = NULL;
	return error_task(error, process->pid, process->stat.comm);
}

/* Address space randomization gives every execve(2) another stack; only fork(2) keeps it. */
bool memory_is_kin(const struct memory_map *a, const struct memory_map *b)
{
	return a && b && same_bytes(&a->exe, &b->exe) && a->exe_object == b->exe_object &&
	       a->start_stack == b->start_stack && a->arg_start == b->arg_start &&
	       a->start_brk == b->start_brk;
}

const struct memory_map *memory_inherited(const struct process *process)
{
	const struct process *mother = process->mother ? process->mother : process->parent;

	/* what a restart has it execute is nothing but a way to get rid of its memory */
	if (!mother || process->special.count)
		return NULL;
	return memory_is_kin(process->memory, mother->memory) ? mother->memory : NULL;
}

bool memory_hides_file(const void *context, uint64_t page)
{
	const struct memory_map *memory = ((const struct process *)context)->memory;
	const struct vma *vmas = memory->vmas.items;
	size_t low = 0, high = memory->vmas.count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (vmas[middle].end <= page * PAGE)
			low = middle + 1;
		else
			high = middle;
	}
	/* a hugetlb page is there as a whole or not at all */
	return low < memory->vmas.count &&
	       (vmas[low].type == VMA_FILE_PRIVATE || vmas[low].flags & VM_HUGETLB);
}

uint64_t memory_huge_size(uint64_t huge_page)
{
	return huge_page ? (uint64_t)__builtin_ctzll(huge_page) << MAP_HUGE_SHIFT : 0;
}

struct cr_error *extents_validate(const struct image *image, const struct list *extents)
{
	const struct extent *extent = extents->items;
	uint64_t next = 0, left = image->pages.count;

	for (size_t i = 0; i < extents->count; i++, extent++) {
		if (extent->page < next || extent->count > UINT64_MAX / PAGE - extent->page)
			return error_new(CR_IMAGE, "Page 0x%lx is out of order",
					 (unsigned long)extent->page);
		if (extent->index != EXTENT_ZERO &&
		    (extent->count > image->pages.count ||
		     extent->index > image->pages.count - extent->count))
			return error_new(CR_IMAGE, "Page 0x%lx is not in the pages file",
					 (unsigned long)extent->page);
		/* what has contents is there once: nobody could hold more of it than the file does */
		if (extent->index != EXTENT_ZERO && extent->count > left)
			return error_new(CR_IMAGE, "Page 0x%lx is one more than the pages file has",
					 (unsigned long)extent->page);
		left -= extent->index != EXTENT_ZERO ? extent->count : 0;
		next = extent->page + extent->count;
	}
	return NULL;
}

static struct cr_error *validate_vma(struct image *image, const struct vma *vma, uint64_t previous)
{
	struct object *object;

	if (vma->start < previous || vma->end <= vma->start || vma->start % PAGE ||
	    vma->end % PAGE || vma->offset % PAGE)
		return error_new(CR_IMAGE, "Mapping 0x%lx is out of order",
				 (unsigned long)vma->start);
	if (vma->flags & ~(VM_RESTORED | VM_MAYWRITE))
		return error_new(CR_IMAGE, "Mapping 0x%lx has unknown flags",
				 (unsigned long)vma->start);
	TRY(memory_name_validate(vma));
	if (vma->huge_page & (vma->huge_page - 1))
		return error_new(CR_IMAGE, "Mapping 0x%lx has pages of %lu bytes",
				 (unsigned long)vma->start, (unsigned long)vma->huge_page);
	object = image_object(image, vma->description);
	if (vma->description && (!object || object->kind != &regular_kind))
		return error_new(CR_IMAGE, "Mapping 0x%lx shows open file %u, which is none",
				 (unsigned long)vma->start, vma->description);
	if (!vma->object && vma->type != VMA_SHARED)
		return NULL;
	object = image_object(image, vma->object);
	if (!object || !contents_of(object) ||
	    (object->kind == &shared_memory_kind) != (vma->type == VMA_SHARED))
		return error_new(CR_IMAGE, "Mapping 0x%lx shows object %u, which is something else",
				 (unsigned long)vma->start, vma->object);
	return NULL;
}

static bool has_private_pages(const struct vma *vma)
{
	return vma->type == VMA_ANONYMOUS || vma->type == VMA_FILE_PRIVATE;
}

static bool has_guards(const struct vma *vma)
{
	return vma->type != VMA_SPECIAL;
}

/* Do all @count pages from @page on lie in mappings that @fit? The first that may is *vma. */
static bool is_within(const struct list *vmas, const struct vma **vma, uint64_t page,
		      uint64_t count, bool (*fit)(const struct vma *vma))
{
	const struct vma *last = (const struct vma *)vmas->items + vmas->count;
	uint64_t at = page * PAGE, end = at + count * PAGE;

	while (at < end) {
		while (*vma < last && (*vma)->end <= at)
			++*vma;
		if (*vma == last || (*vma)->start > at || !fit(*vma))
			return false;
		at = (*vma)->end;
	}
	return true;
}

/*
 * Every page lies in a private mapping. Pages elsewhere would be written all the same: over the
 * vdso, or over the program that runs in the process while it is rebuilt.
 */
static struct cr_error *validate_places(const struct memory_map *memory)
{
	const struct extent *extent = memory->extents.items;
	const struct vma *vma = memory->vmas.items;

	for (size_t i = 0; i < memory->extents.count; i++, extent++) {
		if (!is_within(&memory->vmas, &vma, extent->page, extent->count, has_private_pages))
			return error_new(CR_IMAGE, "Page 0x%lx is in no private mapping",
					 (unsigned long)extent->page);
	}
	return NULL;
}

/* Elsewhere they would guard that program. */
static struct cr_error *validate_guards(const struct memory_map *memory)
{
	const struct guard *guard = memory->guards.items;
	const struct vma *vma = memory->vmas.items;
	uint64_t next = 0;

	for (size_t i = 0; i < memory->guards.count; i++, guard++) {
		if (guard->page < next || guard->count > UINT64_MAX / PAGE - guard->page ||
		    !is_within(&memory->vmas, &vma, guard->page, guard->count, has_guards))
			return error_new(CR_IMAGE, "Guard page 0x%lx is in no mapping",
					 (unsigned long)guard->page);
		next = guard->page + guard->count;
	}
	return NULL;
}

struct cr_error *memory_validate(struct image *image, struct process *process)
{
	const struct memory_map *memory = process->memory;
	const struct vma *vma = memory->vmas.items;
	uint64_t previous = 0;

	for (size_t i = 0; i < memory->vmas.count; i++) {
		TRY(validate_vma(image, &vma[i], previous));
		previous = vma[i].end;
	}
	if (memory->lock_future == MCL_ONFAULT)
		return error_new(CR_IMAGE, "Process %d locks on fault, but nothing", process->pid);
	TRY(extents_validate(image, &memory->extents));
	TRY(validate_places(memory));
	return validate_guards(memory);
}

const struct kind memory_kind = {
	.name = "memory",
	.doc = "Address space: mappings, private pages, program",
	.scope = SCOPE_PROCESS,
	.size = sizeof(struct memory_map),
	.fields = memory_fields,
	.check_process = memory_check,
	.dump_process = memory_dump,
	/* restored by the tree, in an order of its own: memory_map.c */
};
