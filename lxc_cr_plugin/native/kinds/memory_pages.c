/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Contents of private pages: out of a process under the stop; memory_fill.c puts them back. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "../births.h"
#include "../cleanup.h"
#include "../sharing.h"
#include "memory.h"
#include "memory_flags.h"

/* What is droppable may be dropped now: random number generators keep seeds there, which must not
 * be used twice. */
static bool has_own_pages(const struct vma *vma)
{
	return (vma->type == VMA_ANONYMOUS || vma->type == VMA_FILE_PRIVATE) &&
	       !(vma->flags & VM_DROPPABLE);
}

/* How many mappings from @vma on can be looked at as one. */
static size_t count_alike(const struct vma *vma, size_t most)
{
	size_t count = 1;

	while (count < most && has_own_pages(&vma[count]) && vma[count].start == vma[count - 1].end)
		count++;
	return has_own_pages(vma) ? count : 1;
}

/* Shared memory is saved elsewhere; guards are the mapping's. */
static struct cr_error *find_pages(struct dump *dump, struct memory_map *memory, int pagemap)
{
	const struct vma *vma = memory->vmas.items, *last;
	struct list unwanted = {0};

	for (size_t i = 0, count; i < memory->vmas.count; i += count) {
		bool wanted = has_own_pages(&vma[i]);

		count = count_alike(&vma[i], memory->vmas.count - i);
		last = &vma[i + count - 1];
		if (wanted || vma[i].flags & VM_MAYBE_GUARD)
			TRY(pages_find(pagemap, vma[i].start, last->end, dump->image.pool,
				       wanted ? &memory->extents : &unwanted, &memory->guards));
	}
	return NULL;
}

/* What makes two page map entries the same page (or the same place in swap): all but the soft bits
 * 55-60. */
#define SAME_PAGE ((1ull << 55) - 1)

struct page_maps {
	int ours, parents;
	uint64_t first, count; /* window of pages that is loaded */
	uint64_t own[512], parent[512];
};

/* @end: of what will be asked for in a row. */
static bool is_same_page(struct page_maps *maps, uint64_t page, uint64_t end)
{
	enum { WINDOW = 512 };
	uint64_t entry;

	if (page < maps->first || page >= maps->first + maps->count) {
		maps->first = page;
		maps->count = end - page < WINDOW ? end - page : WINDOW;
		memset(maps->own, 0, maps->count * 8);
		memset(maps->parent, 0, maps->count * 8);
		if (pread(maps->ours, maps->own, maps->count * 8, (off_t)(page * 8)) < 8 ||
		    pread(maps->parents, maps->parent, maps->count * 8, (off_t)(page * 8)) < 8)
			return false;
	}
	entry = maps->own[page - maps->first];
	return entry & SAME_PAGE && !((entry ^ maps->parent[page - maps->first]) & SAME_PAGE);
}

/* Split @extent where it meets the parent's: pages that both share get the parent's index. */
static struct cr_error *split_extent(struct pool *pool, struct page_maps *maps,
				     const struct extent *extent, const struct list *parents,
				     size_t *at, struct list *ret)
{
	const struct extent *parent = parents->items;

	if (extent->index != EXTENT_UNREAD)
		return extent_append(pool, ret, extent->page, extent->count, extent->index);
	for (uint64_t page = extent->page; page < extent->page + extent->count; page++) {
		while (*at < parents->count && parent[*at].page + parent[*at].count <= page)
			++*at;
		if (*at == parents->count) {
			return extent_append(pool, ret, page, extent->page + extent->count - page,
					     EXTENT_UNREAD);
		}
		if (parent[*at].page > page) {
			uint64_t gap = parent[*at].page - page;

			if (gap > extent->page + extent->count - page)
				gap = extent->page + extent->count - page;
			TRY(extent_append(pool, ret, page, gap, EXTENT_UNREAD));
			page += gap - 1;
			continue;
		}
		TRY(extent_append(pool, ret, page, 1,
				  is_same_page(maps, page, extent->page + extent->count)
					  ? parent[*at].index + (page - parent[*at].page)
					  : EXTENT_UNREAD));
	}
	return NULL;
}

/* Only same addresses can be shared: that is what fork does. */
static struct cr_error *share_with(struct dump *dump, struct process *process,
				   const struct process *other, int pagemap)
{
	struct list *extents = &process->memory->extents, shared = {0};
	struct page_maps maps = {.ours = pagemap, .parents = -1};
	_cleanup_close_ int proc = -1, others = -1;
	size_t at = 0;

	TRY(proc_open(other->host_pid, other->host_pid, &proc));
	others = openat(proc, "pagemap", O_RDONLY | O_CLOEXEC);
	if (others < 0)
		return error_sys("Failed to open the page map of process %d", other->pid);
	maps.parents = others;
	for (size_t i = 0; i < extents->count; i++)
		TRY(split_extent(dump->image.pool, &maps, (struct extent *)extents->items + i,
				 &other->memory->extents, &at, &shared));
	*extents = shared;
	return NULL;
}

/*
 * Pages shared copy-on-write are saved once. What the parent has written since is still shared by
 * its children; one of two of them will do to find it.
 */
static struct cr_error *share_with_kin(struct dump *dump, struct process *process, int pagemap)
{
	const struct process *mother = process->mother ? process->mother : process->parent;
	struct memory_map *parents;

	if (!memory_inherited(process))
		return NULL;
	parents = mother->memory;
	TRY(share_with(dump, process, mother, pagemap));
	if (parents->youngest)
		TRY(share_with(dump, process, parents->youngest, pagemap));
	if (parents->eldest != parents->youngest)
		TRY(share_with(dump, process, parents->eldest, pagemap));
	if (!parents->eldest)
		parents->eldest = process;
	parents->youngest = process;
	return NULL;
}

struct cr_error *memory_copy_pages(struct dump *dump, struct process *process)
{
	struct memory_map *memory = process->memory;
	_cleanup_close_ int proc = -1, pagemap = -1, mem = -1;

	if (!sharing_is_first(process, SHARE_MEMORY))
		return NULL;
	TRY(proc_open(process->host_pid, process->host_pid, &proc));
	pagemap = openat(proc, "pagemap", O_RDONLY | O_CLOEXEC);
	mem = openat(proc, "mem", O_RDONLY | O_CLOEXEC);
	if (pagemap < 0 || mem < 0)
		return error_sys("Failed to open the memory of process %d", process->pid);
	TRY(find_pages(dump, memory, pagemap));
	TRY(share_with_kin(dump, process, pagemap));
	return pages_copy(&dump->image.pages, process->host_pid, mem, memory->has_kin,
			  memory->extents.items, memory->extents.count);
}

static int by_kinship(const void *a, const void *b)
{
	const struct memory_map *x = (*(struct process *const *)a)->memory;
	const struct memory_map *y = (*(struct process *const *)b)->memory;

	return (x->start_stack > y->start_stack) - (x->start_stack < y->start_stack);
}

/* Processes that stem from one execve(2) by fork(2) have the same stack, and may share pages. */
struct cr_error *memory_find_kin(struct dump *dump)
{
	size_t count = dump->image.processes.count;
	struct process **order =
		pool_memdup(dump->image.pool, dump->image.processes.items, count * sizeof(*order));

	if (!order)
		return error_nomem();
	qsort(order, count, sizeof(*order), by_kinship);
	for (size_t i = 1; i < count; i++) {
		if (!by_kinship(&order[i - 1], &order[i]))
			order[i - 1]->memory->has_kin = order[i]->memory->has_kin = true;
	}
	for (size_t i = 0; i < count; i++) {
		if (order[i]->memory->has_kin)
			order[i]->mother = births_origin(order[i]);
	}
	return NULL;
}
