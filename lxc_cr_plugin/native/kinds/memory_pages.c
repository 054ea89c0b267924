/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Contents of private pages: out of a process under the stop, back into it at restart. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "../cleanup.h"
#include "../parallel.h"
#include "../sharing.h"
#include "memory.h"
#include "memory_flags.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

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
	struct memory_map *parents;

	if (!memory_inherited(process))
		return NULL;
	parents = process->parent->memory;
	TRY(share_with(dump, process, process->parent, pagemap));
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
	return NULL;
}

/* ---- restart ---- */

struct filler {
	struct restore *restore;
	pid_t tid;
	int mem, pidfd;
	struct iovec local[512], remote[512];
	size_t count;
};

/* Elements the vectored call refused (no PROT_WRITE): /proc/PID/mem makes private copies all the
 * same. */
static struct cr_error *write_forced(const struct filler *filler, const struct iovec *local,
				     const struct iovec *remote, size_t skip)
{
	size_t len = local->iov_len - skip;

	while (len) {
		ssize_t put =
			pwrite(filler->mem, (uint8_t *)local->iov_base + local->iov_len - len, len,
			       (off_t)((uint64_t)remote->iov_base + remote->iov_len - len));

		if (put <= 0)
			return error_errno(put ? errno : EFAULT, "Failed to write memory at 0x%lx",
					   (unsigned long)remote->iov_base);
		len -= (size_t)put;
	}
	return NULL;
}

static struct cr_error *flush(struct filler *filler)
{
	struct iovec *local = filler->local, *remote = filler->remote;
	size_t left = filler->count;

	while (left) {
		ssize_t put = process_vm_writev(filler->tid, local, left, remote, left, 0);

		if (put < 0 && errno == ESRCH)
			return error_new(CR_GONE, "Task %d is gone", filler->tid);
		for (; left && put > 0 && (size_t)put >= local->iov_len; left--) {
			put -= (ssize_t)local->iov_len;
			local++;
			remote++;
		}
		if (!left)
			break;
		TRY(write_forced(filler, local, remote, put > 0 ? (size_t)put : 0));
		local++;
		remote++;
		left--;
	}
	filler->count = 0;
	return NULL;
}

/* A long run of pages. */
struct long_run {
	const struct filler *filler;
	uint64_t page, index;
};

static struct cr_error *write_part(void *context, uint64_t begin, uint64_t end)
{
	const struct long_run *run = context;
	struct iovec local = {
		.iov_base = page_store_page(&run->filler->restore->image.pages, run->index + begin),
		.iov_len = (end - begin) * PAGE,
	};
	struct iovec remote = {
		.iov_base = (void *)((run->page + begin) * PAGE),
		.iov_len = local.iov_len,
	};
	ssize_t put = process_vm_writev(run->filler->tid, &local, 1, &remote, 1, 0);

	if (put < 0 && errno == ESRCH)
		return error_new(CR_GONE, "Task %d is gone", run->filler->tid);
	if (put == (ssize_t)local.iov_len)
		return NULL;
	return write_forced(run->filler, &local, &remote, put > 0 ? (size_t)put : 0);
}

static struct cr_error *fill_pages(struct filler *filler, uint64_t page, uint64_t count,
				   uint64_t index)
{
	static const uint8_t zeros[PAGE];
	enum { MOST = sizeof(filler->local) / sizeof(filler->local[0]), GRAIN = 2048 };

	/* page faults, not copying, are what takes the time there */
	if (count >= 2 * GRAIN && index != EXTENT_ZERO) {
		struct long_run run = {filler, page, index};

		return parallel(count, GRAIN, write_part, &run);
	}
	for (uint64_t done = 0, step; done < count; done += step) {
		struct iovec *local = &filler->local[filler->count],
			     *remote = &filler->remote[filler->count];

		step = index == EXTENT_ZERO ? 1 : count - done;
		local->iov_base =
			index == EXTENT_ZERO
				? (void *)zeros
				: page_store_page(&filler->restore->image.pages, index + done);
		remote->iov_base = (void *)((page + done) * PAGE);
		local->iov_len = remote->iov_len = step * PAGE;
		if (++filler->count == MOST)
			TRY(flush(filler));
	}
	return NULL;
}

/*
 * A fresh range whose every page will be written gets huge pages first: a tenth of the faults. One
 * page of each block is written so that there is a page table, then the kernel collapses it. The
 * mapping's flags stay as they are. Best effort: MADV_COLLAPSE is of 6.1, and a mapping may not
 * want it.
 */
static struct cr_error *collapse_in(struct filler *filler, const struct vma *vma,
				    const struct extent *extent)
{
	uint64_t begin = extent->page * PAGE, end = (extent->page + extent->count) * PAGE;
	struct iovec range;

	begin = begin < vma->start ? vma->start : begin;
	end = end > vma->end ? vma->end : end;
	if (vma->type != VMA_ANONYMOUS || vma->flags & (VM_NOHUGEPAGE | VM_HUGETLB) ||
	    extent->index == EXTENT_ZERO)
		return NULL;
	begin = (begin + ARCH_HUGE_PAGE - 1) & ~(uint64_t)(ARCH_HUGE_PAGE - 1);
	end &= ~(uint64_t)(ARCH_HUGE_PAGE - 1);
	if (begin >= end)
		return NULL;
	for (uint64_t at = begin; at < end; at += ARCH_HUGE_PAGE)
		TRY(fill_pages(filler, at / PAGE, 1, extent->index + at / PAGE - extent->page));
	TRY(flush(filler));
	range = (struct iovec){.iov_base = (void *)begin, .iov_len = end - begin};
	if (syscall(SYS_process_madvise, filler->pidfd, &range, 1, MADV_COLLAPSE, 0) < 0)
		log_say(&filler->restore->log, CR_DEBUG, "No huge pages at 0x%lx: %s",
			(unsigned long)begin, strerror(errno));
	return NULL;
}

/* An extent may run on over several mappings. */
static struct cr_error *collapse(struct filler *filler, const struct vma *vma,
				 const struct vma *last, const struct extent *extent)
{
	for (; vma < last && vma->start < (extent->page + extent->count) * PAGE; vma++)
		TRY(collapse_in(filler, vma, extent));
	return NULL;
}

/* The part of the parent's extents that covers @page, NULL when none does; *at only grows. */
static const struct extent *covering(const struct list *extents, size_t *at, uint64_t page)
{
	const struct extent *extent = extents->items;

	while (*at < extents->count && extent[*at].page + extent[*at].count <= page)
		++*at;
	return *at < extents->count && extent[*at].page <= page ? &extent[*at] : NULL;
}

/* How many pages from @page on have the same answer to "does the parent's copy hold them already?".
 */
static uint64_t run_length(const struct extent *parent, const struct list *parents, size_t at,
			   uint64_t page, uint64_t count)
{
	uint64_t end;

	if (parent)
		end = parent->page + parent->count;
	else if (at < parents->count)
		end = ((const struct extent *)parents->items)[at].page;
	else
		return count;
	return end - page < count ? end - page : count;
}

static struct cr_error *fill_extent(struct filler *filler, const struct extent *extent,
				    const struct list *parents, size_t *at)
{
	for (uint64_t done = 0, run; done < extent->count; done += run) {
		uint64_t page = extent->page + done;
		uint64_t index = extent->index == EXTENT_ZERO ? EXTENT_ZERO : extent->index + done;
		const struct extent *parent = covering(parents, at, page);

		run = run_length(parent, parents, *at, page, extent->count - done);
		if (parent && index != EXTENT_ZERO && parent->index != EXTENT_ZERO &&
		    parent->index + (page - parent->page) == index)
			continue;
		TRY(fill_pages(filler, page, run, index));
	}
	return NULL;
}

/* Fill with @pages, as far as it is not there already: @present, what it was born with. */
static struct cr_error *fill_vmas(struct filler *filler, struct process *process,
				  const struct list *pages, const struct list *present)
{
	const struct memory_map *memory = process->memory;
	const struct vma *vma = memory->vmas.items, *end = vma + memory->vmas.count;
	const struct extent *extent = pages->items;
	size_t at = 0;

	for (size_t i = 0; i < pages->count; i++, extent++) {
		while (vma < end && vma->end <= extent->page * PAGE)
			vma++;
		if (vma == end)
			return error_new(CR_IMAGE, "Pages at 0x%lx belong to no mapping",
					 (unsigned long)(extent->page * PAGE));
		if (!present->count)
			TRY(collapse(filler, vma, end, extent));
		TRY(fill_extent(filler, extent, present, &at));
	}
	return flush(filler);
}

static struct cr_error *fill(struct restore *restore, struct process *process,
			     const struct list *pages, const struct list *present)
{
	pid_t tid = process_leader(process)->host_tid;
	_cleanup_close_ int proc = -1, mem = -1, pidfd = (int)syscall(SYS_pidfd_open, tid, 0);
	struct filler filler = {.restore = restore, .tid = tid, .pidfd = pidfd};

	TRY(proc_open(tid, tid, &proc));
	mem = openat(proc, "mem", O_RDWR | O_CLOEXEC);
	if (mem < 0)
		return error_sys("Failed to open the memory of process %d", process->pid);
	filler.mem = mem;
	return fill_vmas(&filler, process, pages, present);
}

struct cr_error *memory_fill(struct restore *restore, struct process *process)
{
	static const struct list none;

	TRY(memory_find_birth(restore, process));
	return fill(restore, process, memory_birth(process),
		    memory_inherited(process)
			    ? memory_birth(process->mother ? process->mother : process->parent)
			    : &none);
}

struct cr_error *memory_fill_own(struct restore *restore, struct process *process)
{
	const struct memory_map *memory = process->memory;

	return memory->birth.count ? fill(restore, process, &memory->extents, &memory->birth)
				   : NULL;
}
