/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Contents of private pages: back into a process at restart; memory_pages.c has read them. */
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "../cleanup.h"
#include "../parallel.h"
#include "../pin.h"
#include "memory.h"
#include "memory_flags.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

struct filler {
	struct restore *restore;
	pid_t tid;
	int mem, pidfd;
	struct iovec local[512], remote[512];
	size_t count;
	struct collapse *ahead; /* who makes huge pages for what is filled now, or NULL */
};

/* Pages that are made huge in one go, and that are filled in one go behind that. */
enum { HUGE_AT_ONCE = 1024, FILL_AT_ONCE = 16384 };

static void wait_collapsed(struct collapse *collapse, uint64_t page);

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

enum { GRAIN = 2048 };

/* Page faults, not copying, are what takes the time there. */
static struct cr_error *fill_long(const struct filler *filler, uint64_t page, uint64_t count,
				  uint64_t index)
{
	for (uint64_t done = 0, step; done < count; done += step) {
		struct long_run run = {filler, page + done, index + done};

		step = filler->ahead && count - done > FILL_AT_ONCE ? FILL_AT_ONCE : count - done;
		wait_collapsed(filler->ahead, page + done + step);
		TRY(parallel(step, GRAIN, write_part, &run));
	}
	return NULL;
}

static struct cr_error *fill_pages(struct filler *filler, uint64_t page, uint64_t count,
				   uint64_t index)
{
	static const uint8_t zeros[PAGE];
	enum { MOST = sizeof(filler->local) / sizeof(filler->local[0]) };

	if (count >= 2 * GRAIN && index != EXTENT_ZERO)
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

/*
 * A fresh range whose every page will be written gets huge pages first: a tenth of the faults. One
 * page of each block is written so that there is a page table, then the kernel collapses it. The
 * mapping's flags stay as they are. Best effort: MADV_COLLAPSE is of 6.1, and a mapping may not
 * want it.
 *
 * The kernel clears a huge page before it is written, one at a time for each process. In a long
 * extent a thread of its own does that, ahead of the one that writes.
 */
struct collapse {
	struct filler filler; /* of this thread alone */
	const struct vma *vma, *last;
	const struct extent *extent;
	pthread_t thread;
	bool started;
	pthread_mutex_t lock;
	pthread_cond_t moved;
	uint64_t done; /* pages below this one are as they will be */
	int refused;   /* errno of the kernel */
	struct cr_error *error;
};

static void collapsed_to(struct collapse *collapse, uint64_t page)
{
	pthread_mutex_lock(&collapse->lock);
	collapse->done = page;
	pthread_cond_signal(&collapse->moved);
	pthread_mutex_unlock(&collapse->lock);
}

static void wait_collapsed(struct collapse *collapse, uint64_t page)
{
	if (!collapse)
		return;
	pthread_mutex_lock(&collapse->lock);
	while (collapse->done < page)
		pthread_cond_wait(&collapse->moved, &collapse->lock);
	pthread_mutex_unlock(&collapse->lock);
}

static struct cr_error *collapse_range(struct collapse *collapse, uint64_t begin, uint64_t end)
{
	struct filler *filler = &collapse->filler;
	const struct extent *extent = collapse->extent;
	struct iovec range = {.iov_base = (void *)begin, .iov_len = end - begin};

	for (uint64_t at = begin; at < end; at += ARCH_HUGE_PAGE)
		TRY(fill_pages(filler, at / PAGE, 1, extent->index + at / PAGE - extent->page));
	TRY(flush(filler));
	if (syscall(SYS_process_madvise, filler->pidfd, &range, 1, MADV_COLLAPSE, 0) < 0)
		collapse->refused = errno;
	return NULL;
}

static bool may_be_huge(const struct vma *vma)
{
	return vma->type == VMA_ANONYMOUS && !(vma->flags & (VM_NOHUGEPAGE | VM_HUGETLB));
}

static struct cr_error *collapse_in(struct collapse *collapse, const struct vma *vma)
{
	const struct extent *extent = collapse->extent;
	uint64_t begin = extent->page * PAGE, end = (extent->page + extent->count) * PAGE;

	begin = begin < vma->start ? vma->start : begin;
	end = end > vma->end ? vma->end : end;
	if (!may_be_huge(vma))
		return NULL;
	begin = (begin + ARCH_HUGE_PAGE - 1) & ~(uint64_t)(ARCH_HUGE_PAGE - 1);
	end &= ~(uint64_t)(ARCH_HUGE_PAGE - 1);
	for (uint64_t at = begin, next; at < end; at = next) {
		next = end - at < HUGE_AT_ONCE * PAGE ? end : at + HUGE_AT_ONCE * PAGE;
		TRY(collapse_range(collapse, at, next));
		collapsed_to(collapse, next / PAGE);
	}
	return NULL;
}

/* An extent may run on over several mappings. */
static void *collapse_all(void *argument)
{
	struct collapse *collapse = argument;
	uint64_t end = (collapse->extent->page + collapse->extent->count) * PAGE;

	for (const struct vma *vma = collapse->vma;
	     !collapse->error && vma < collapse->last && vma->start < end; vma++)
		collapse->error = collapse_in(collapse, vma);
	collapsed_to(collapse, UINT64_MAX);
	return NULL;
}

static void collapse_begin(struct collapse *collapse)
{
	pthread_mutex_init(&collapse->lock, NULL);
	pthread_cond_init(&collapse->moved, NULL);
	collapse->started = collapse->extent->count >= 2 * FILL_AT_ONCE &&
			    may_be_huge(collapse->vma) &&
			    pthread_create(&collapse->thread, NULL, collapse_all, collapse) == 0;
	if (!collapse->started)
		collapse_all(collapse);
}

static struct cr_error *collapse_end(struct collapse *collapse)
{
	if (collapse->started)
		pthread_join(collapse->thread, NULL);
	if (collapse->refused)
		log_say(&collapse->filler.restore->log, CR_DEBUG, "No huge pages at 0x%lx: %s",
			(unsigned long)(collapse->extent->page * PAGE),
			strerror(collapse->refused));
	return collapse->error;
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

/* An extent of which nothing is there. */
static struct cr_error *fill_fresh(struct filler *filler, const struct vma *vma,
				   const struct vma *last, const struct extent *extent)
{
	struct collapse collapse = {
		.filler = {.restore = filler->restore,
			   .tid = filler->tid,
			   .mem = filler->mem,
			   .pidfd = filler->pidfd},
		.vma = vma,
		.last = last,
		.extent = extent,
	};
	struct cr_error *error, *other;

	if (extent->count < ARCH_HUGE_PAGE / PAGE)
		return fill_pages(filler, extent->page, extent->count, extent->index);
	TRY(flush(filler));
	collapse_begin(&collapse);
	filler->ahead = collapse.started ? &collapse : NULL;
	error = fill_pages(filler, extent->page, extent->count, extent->index);
	filler->ahead = NULL;
	other = collapse_end(&collapse);
	if (!error)
		return other;
	cr_error_free(other);
	return error;
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
		TRY(present->count || extent->index == EXTENT_ZERO
			    ? fill_extent(filler, extent, present, &at)
			    : fill_fresh(filler, vma, end, extent));
	}
	return flush(filler);
}

/* Where there is enough for several threads, on all processors. */
static struct cr_error *fill_widely(struct filler *filler, struct process *process,
				    const struct list *pages, const struct list *present)
{
	const struct extent *extents = pages->items;
	uint64_t count = 0;
	struct cr_error *error;

	for (size_t i = 0; i < pages->count; i++)
		count += extents[i].count;
	if (count < 2 * GRAIN)
		return fill_vmas(filler, process, pages, present);
	pin_lift(filler->restore);
	error = fill_vmas(filler, process, pages, present);
	pin_return(filler->restore);
	return error;
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
	return fill_widely(&filler, process, pages, present);
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
