/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Contents of private pages: back into a process at restart; memory_pages.c has read them. */
#include <fcntl.h>
#include <sys/uio.h>

#include "../cleanup.h"
#include "../parallel.h"
#include "memory.h"
#include "memory_fresh.h"

struct filler {
	struct restore *restore;
	pid_t tid;
	int mem;
	struct iovec local[512], remote[512];
	size_t count;
	struct fresh fresh;
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

/* Page faults, not copying, are what takes the time there. */
static struct cr_error *fill_long(struct filler *filler, uint64_t page, uint64_t count,
				  uint64_t index)
{
	struct long_run run = {filler, page, index};

	fresh_widen(&filler->fresh);
	return parallel(count, FRESH_GRAIN, write_part, &run);
}

static struct cr_error *fill_pages(struct filler *filler, uint64_t page, uint64_t count,
				   uint64_t index)
{
	static const uint8_t zeros[PAGE];
	enum { MOST = sizeof(filler->local) / sizeof(filler->local[0]) };

	if (count >= 2 * FRESH_GRAIN && index != EXTENT_ZERO)
		return fill_long(filler, page, count, index);
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

/* Pages of one VMA, none of which is there. */
static struct cr_error *fill_fresh_run(struct filler *filler, const struct fresh_run *run)
{
	bool done = false;

	if (run->count >= 2 * FRESH_GRAIN)
		TRY(fresh_place(&filler->fresh, run, &done));
	return done ? NULL : fill_pages(filler, run->page, run->count, run->index);
}

static struct cr_error *fill_huge(struct filler *filler, const struct fresh_run *run)
{
	TRY(flush(filler));
	TRY(fresh_huge_begin(&filler->fresh, run->vma));
	TRY(fill_pages(filler, run->page, run->count, run->index));
	TRY(flush(filler));
	return fresh_huge_end(&filler->fresh);
}

/* The part of @run from page @begin to @end. */
static struct fresh_run part_of(const struct fresh_run *run, uint64_t begin, uint64_t end)
{
	return (struct fresh_run){run->vma, begin, end - begin, run->index + begin - run->page};
}

/* Blocks in the middle may become huge pages. */
static struct cr_error *fill_fresh_blocks(struct filler *filler, const struct fresh_run *run)
{
	uint64_t from, huge = fresh_huge(&filler->fresh, run, &from);
	struct fresh_run head, middle, tail;

	if (!huge)
		return fill_fresh_run(filler, run);
	head = part_of(run, run->page, from);
	middle = part_of(run, from, from + huge);
	tail = part_of(run, from + huge, run->page + run->count);
	TRY(fill_fresh_run(filler, &head));
	TRY(fill_huge(filler, &middle));
	return fill_fresh_run(filler, &tail);
}

/* An extent of which nothing is there; it may run on over several mappings. */
static struct cr_error *fill_fresh(struct filler *filler, const struct vma *vma,
				   const struct vma *last, const struct extent *extent)
{
	uint64_t page = extent->page, end = page + extent->count;

	if (extent->count < FRESH_LEAST)
		return fill_pages(filler, page, extent->count, extent->index);
	while (vma < last && vma->end <= page * PAGE)
		vma++;
	for (uint64_t stop; page < end && vma < last; vma++, page = stop) {
		struct fresh_run run = {vma, page, 0, extent->index + page - extent->page};

		stop = vma->end / PAGE < end ? vma->end / PAGE : end;
		run.count = stop - page;
		TRY(fill_fresh_blocks(filler, &run));
	}
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

static struct cr_error *fill_extent(struct filler *filler, const struct vma *vma,
				    const struct vma *last, const struct extent *extent,
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
		if (index == EXTENT_ZERO || (parent && run < FRESH_LEAST)) {
			TRY(fill_pages(filler, page, run, index));
			continue;
		}
		if (parent)
			TRY(fresh_drop(&filler->fresh, page, run));
		TRY(fill_fresh(filler, vma, last, &(struct extent){page, run, index}));
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
		TRY(fill_extent(filler, vma, end, extent, present, &at));
	}
	return flush(filler);
}

static struct cr_error *fill(struct restore *restore, struct process *process,
			     const struct list *pages, const struct list *present)
{
	pid_t tid = process_leader(process)->host_tid;
	_cleanup_close_ int proc = -1, mem = -1;
	struct filler filler = {
		.restore = restore, .tid = tid, .fresh = {.restore = restore, .process = process}};
	struct cr_error *error, *other;

	TRY(proc_open(tid, tid, &proc));
	mem = openat(proc, "mem", O_RDWR | O_CLOEXEC);
	if (mem < 0)
		return error_sys("Failed to open the memory of process %d", process->pid);
	filler.mem = mem;
	restore_begin(restore, process);
	error = fill_vmas(&filler, process, pages, present);
	other = fresh_end(&filler.fresh);
	if (!error)
		return other;
	cr_error_free(other);
	return error;
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
