/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Most of the time that it takes to fill memory goes to page faults, and to clearing pages which
 * are overwritten at once. Huge pages need a five hundredth of the faults; where the kernel would
 * not have made them for the program itself, UFFDIO_COPY of userfaultfd(2) brings in pages that were
 * never cleared.
 *
 * A task is built with PR_SET_THP_DISABLE, which its children inherit: else a single page in a huge
 * mapping would bring in 2 MiB that the program never had, or had given back. Huge pages are made of
 * blocks of which every page is in the image.
 */
#include "memory_fresh.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "../cleanup.h"
#include "../parallel.h"
#include "../pin.h"
#include "memory_flags.h"
#include "prctl.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1 /* Linux 5.11 */
#endif

enum { BLOCK = ARCH_HUGE_PAGE / PAGE };

struct cr_error *fresh_drop(struct fresh *fresh, uint64_t page, uint64_t count)
{
	struct program *p = fresh->restore->program;

	TRY(program_reserve(p, 1, 0));
	program_call(p, "drop inherited pages", SYS_madvise, page * PAGE, count * PAGE,
		     MADV_DONTNEED);
	return program_run(p);
}

/* ---- huge pages ---- */

/* The host's setting, in brackets among all there are. */
static enum huge_pages of_host(void)
{
	_cleanup_close_ int fd =
		open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY | O_CLOEXEC);
	char text[64];
	ssize_t len = fd >= 0 ? read(fd, text, sizeof(text) - 1) : 0;

	text[len > 0 ? len : 0] = 0;
	return strstr(text, "[always]")	   ? HUGE_ALWAYS
	       : strstr(text, "[madvise]") ? HUGE_ADVISED
					   : HUGE_NEVER;
}

static enum huge_pages of_process(struct fresh *fresh)
{
	uint32_t disabled;

	if (fresh->known)
		return fresh->huge_pages;
	fresh->known = true;
	fresh->huge_pages = of_host();
	disabled = prctl_thp_disable(fresh->process);
	if (disabled == PR_THP_DISABLE_EXCEPT_ADVISED && fresh->huge_pages == HUGE_ALWAYS)
		fresh->huge_pages = HUGE_ADVISED;
	else if (disabled == 1)
		fresh->huge_pages = HUGE_NEVER;
	return fresh->huge_pages;
}

static bool is_advised(const struct memory_map *memory, const struct vma *range)
{
	const struct vma *vma = memory->vmas.items, *end = vma + memory->vmas.count;

	for (; vma < end && vma->start < range->end; vma++) {
		if (vma->end > range->start && !(vma->flags & VM_HUGEPAGE))
			return false;
	}
	return true;
}

/* Whoever stems from it by fork(2) has the advice as well, and cannot get rid of it. */
static bool may_advise(const struct fresh *fresh, const struct vma *vma)
{
	const struct memory_map *memory = fresh->process->memory;

	if (!(vma->flags & VM_HUGEPAGE))
		return false;
	for_each (struct process *, other, &fresh->restore->image.processes) {
		if (other->memory && other->memory != memory &&
		    memory_is_kin(other->memory, memory) && !is_advised(other->memory, vma))
			return false;
	}
	return true;
}

static bool is_huge(struct fresh *fresh, const struct vma *vma)
{
	if (vma->type != VMA_ANONYMOUS || vma->flags & (VM_NOHUGEPAGE | VM_HUGETLB))
		return false;
	return of_process(fresh) == HUGE_ALWAYS ||
	       (of_process(fresh) == HUGE_ADVISED && may_advise(fresh, vma));
}

static void set_thp_disable(struct program *p, uint64_t disable)
{
	program_call(p, disable ? "build without huge pages" : "allow huge pages", SYS_prctl,
		     PR_SET_THP_DISABLE, disable, 0, 0, 0);
}

uint64_t fresh_huge(struct fresh *fresh, const struct fresh_run *run, uint64_t *from)
{
	uint64_t begin = (run->page + BLOCK - 1) / BLOCK * BLOCK;
	uint64_t end = (run->page + run->count) / BLOCK * BLOCK;

	*from = begin;
	return begin < end && is_huge(fresh, run->vma) ? end - begin : 0;
}

struct cr_error *fresh_huge_begin(struct fresh *fresh, const struct vma *vma)
{
	struct program *p = fresh->restore->program;

	TRY(program_reserve(p, 2, 0));
	set_thp_disable(p, 0);
	/* all of it, that it stays one mapping: a clone's parts could not be merged again */
	if (fresh->huge_pages == HUGE_ADVISED)
		program_call(p, "advise huge pages", SYS_madvise, vma->start, vma->end - vma->start,
			     MADV_HUGEPAGE);
	return program_run(p);
}

struct cr_error *fresh_huge_end(const struct fresh *fresh)
{
	set_thp_disable(fresh->restore->program, 1);
	return program_run(fresh->restore->program);
}

/* ---- userfaultfd(2) ---- */

/*
 * Of the process, which cannot wait for anybody to serve its faults: it does not run, and the kernel
 * waits for nobody (UFFD_USER_MODE_ONLY). Best effort: not every kernel has it.
 */
static struct cr_error *watch(struct fresh *fresh)
{
	struct program *p = fresh->restore->program;
	struct uffdio_api api = {.api = UFFD_API};
	int call, fd;

	fresh->watched = true;
	fresh->userfault = -1;
	TRY(program_reserve(p, 2, 0));
	call = program_call(p, "make a userfaultfd", SYS_userfaultfd,
			    O_CLOEXEC | UFFD_USER_MODE_ONLY);
	program_may_fail(p);
	TRY(program_run(p));
	fd = (int)program_result(p, call);
	if (fd >= 0)
		TRY(restore_fetch(fresh->restore, p->tid, fd, &fresh->userfault));
	if (fd >= 0 && ioctl(fresh->userfault, UFFDIO_API, &api) == 0)
		return NULL;
	log_say(&fresh->restore->log, CR_DEBUG, "No userfaultfd in process %d: %s",
		fresh->process->pid, strerror(fd < 0 ? -fd : errno));
	if (fresh->userfault >= 0)
		close(fresh->userfault);
	fresh->userfault = -1;
	return NULL;
}

struct placing {
	const struct fresh *fresh;
	const struct fresh_run *run;
	int refused; /* an errno of the kernel; parts may write it side by side */
};

static struct cr_error *place_part(void *context, uint64_t begin, uint64_t end)
{
	struct placing *placing = context;
	const struct fresh_run *run = placing->run;
	struct uffdio_copy copy = {
		.dst = (run->page + begin) * PAGE,
		.src = (uint64_t)page_store_page(&placing->fresh->restore->image.pages,
						 run->index + begin),
		.len = (end - begin) * PAGE,
	};

	while (ioctl(placing->fresh->userfault, UFFDIO_COPY, &copy) < 0) {
		if (copy.copy <= 0 || (uint64_t)copy.copy >= copy.len) {
			__atomic_store_n(&placing->refused, errno, __ATOMIC_RELAXED);
			break;
		}
		copy.dst += (uint64_t)copy.copy;
		copy.src += (uint64_t)copy.copy;
		copy.len -= (uint64_t)copy.copy;
		/* not written by the kernel when the process is gone */
		copy.copy = 0;
	}
	return NULL;
}

struct cr_error *fresh_place(struct fresh *fresh, const struct fresh_run *run, bool *done)
{
	struct placing placing = {fresh, run, 0};
	struct uffdio_register watched = {
		.range = {.start = run->page * PAGE, .len = run->count * PAGE},
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	*done = false;
	if (run->vma->type != VMA_ANONYMOUS || run->vma->flags & VM_HUGETLB)
		return NULL;
	if (!fresh->watched)
		TRY(watch(fresh));
	if (fresh->userfault < 0)
		return NULL;
	if (ioctl(fresh->userfault, UFFDIO_REGISTER, &watched) < 0) {
		placing.refused = errno;
	} else {
		fresh_widen(fresh);
		TRY(parallel(run->count, FRESH_GRAIN, place_part, &placing));
		ioctl(fresh->userfault, UFFDIO_UNREGISTER, &watched.range);
	}
	*done = !placing.refused;
	if (placing.refused)
		log_say(&fresh->restore->log, CR_DEBUG, "Pages at 0x%lx are written: %s",
			(unsigned long)(run->page * PAGE), strerror(placing.refused));
	return NULL;
}

/* ---- */

void fresh_widen(struct fresh *fresh)
{
	if (!fresh->wide)
		pin_lift(fresh->restore);
	fresh->wide = true;
}

struct cr_error *fresh_end(struct fresh *fresh)
{
	if (fresh->wide)
		pin_return(fresh->restore);
	if (fresh->watched && fresh->userfault >= 0)
		close(fresh->userfault);
	return program_run(fresh->restore->program);
}
