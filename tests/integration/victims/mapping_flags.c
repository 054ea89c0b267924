/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Properties of mappings that outlast the call that made them: locks, seals, guard pages, droppable and
 * hugetlb memory, memory to be merged, a reservation of 1 TiB, and the vdso at another place.
 */
#include <setjmp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "victim.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE  103
#endif
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 8
#endif
#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#define PR_GET_MEMORY_MERGE 68
#endif

#ifndef SYS_mseal
#define SYS_mseal 462
#endif

enum { PAGE = 4096, PAGES = 16, SIZE = PAGES * PAGE, HUGE = 2 << 20, MERGED = 64 };

static char *guarded, *shared_guarded, *droppable, *locked, *locked_on_fault, *locked_none;
static char *huge, *huge_shared, *mergeable, *reserved, *none, *sealed;
static bool has_guards, has_shared_guards, merges;
static uint32_t *arrived; /* children that are ready */

static char *map(size_t size, int protection, int flags)
{
	char *memory = mmap(NULL, size + 2 * PAGE, PROT_NONE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	/* gaps on both sides: neighbours with equal flags would be merged */
	check(memory != MAP_FAILED, "mmap: %s", strerror(errno));
	must(munmap(memory, size + 2 * PAGE));
	memory = mmap(memory + PAGE, size, protection, flags | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
		      -1, 0);
	check(memory != MAP_FAILED, "mmap: %s", strerror(errno));
	return memory;
}

/* The VmFlags of the mapping at @at. */
static const char *flags_of(const void *at)
{
	static char smaps[1 << 20];
	char start[32], *line;

	snprintf(start, sizeof(start), "%lx-", (unsigned long)at);
	victim_read("/proc/self/smaps", smaps, sizeof(smaps));
	line = strstr(smaps, start);
	check(line && (line == smaps || line[-1] == '\n'), "no mapping at %p", at);
	line = strstr(line, "VmFlags:");
	*strchr(line, '\n') = '\0';
	return line;
}

static void check_flag(const void *at, const char *flag)
{
	check(strstr(flags_of(at), flag), "the mapping at %p has lost '%s': %s", at, flag,
	      flags_of(at));
}

static sigjmp_buf back;

static void on_fault(int signal)
{
	siglongjmp(back, signal);
}

static bool faults(volatile char *at)
{
	struct sigaction action = {.sa_handler = on_fault}, old;
	volatile bool faulted = true;

	must(sigaction(SIGSEGV, &action, &old));
	if (sigsetjmp(back, 1) == 0) {
		(void)*at;
		faulted = false;
	}
	must(sigaction(SIGSEGV, &old, NULL));
	return faulted;
}

static void build_guards(void)
{
	guarded = map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	shared_guarded = map(SIZE, PROT_READ | PROT_WRITE, MAP_SHARED);
	victim_fill(guarded, SIZE, 1);
	victim_fill(shared_guarded, SIZE, 2);
	has_guards = madvise(guarded + 3 * PAGE, 2 * PAGE, MADV_GUARD_INSTALL) == 0;
	if (has_guards)
		must(madvise(guarded + 15 * PAGE, PAGE, MADV_GUARD_INSTALL));
	/* a mapping that says of itself that it has guards: nobody looks otherwise */
	has_shared_guards = madvise(shared_guarded, PAGE, MADV_GUARD_INSTALL) == 0 &&
			    strstr(flags_of(shared_guarded), " gu");
}

static void verify_guards(void)
{
	for (int i = 0; has_guards && i < PAGES; i++) {
		bool guard = i == 3 || i == 4 || i == 15;

		check(faults(guarded + i * PAGE) == guard, "page %d: guard %s", i,
		      guard ? "lost" : "new");
	}
	if (has_guards) {
		must(madvise(guarded + 3 * PAGE, PAGE, MADV_GUARD_REMOVE));
		check(guarded[3 * PAGE] == 0, "behind a guard");
	}
	if (has_shared_guards)
		check(faults(shared_guarded) && !faults(shared_guarded + PAGE), "shared guard");
	check(victim_differs(guarded, PAGE, 1) < 0, "contents before a guard");
}

static void build_locks(void)
{
	locked = map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	locked_on_fault = map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	locked_none = map(SIZE, PROT_NONE, MAP_PRIVATE);
	must(mlock(locked, SIZE));
	victim_fill(locked, SIZE, 3);
	must(mlock2(locked_on_fault, SIZE, MLOCK_ONFAULT));
	victim_fill(locked_on_fault, PAGE, 4);
	mlock(locked_none, SIZE); /* says ENOMEM, and locks */
}

static bool is_resident(void *page)
{
	uint64_t entry = 0;
	int fd = must(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));

	check(pread(fd, &entry, 8, (uintptr_t)page / PAGE * 8) == 8, "pagemap");
	close(fd);
	return entry >> 62;
}

static void verify_locks(void)
{
	check_flag(locked, " lo");
	check(!strstr(flags_of(locked), " lf"), "locks on fault");
	check_flag(locked_on_fault, " lo");
	check_flag(locked_on_fault, " lf");
	check_flag(locked_none, " lo");
	check(victim_differs(locked, SIZE, 3) < 0, "locked");
	check(victim_differs(locked_on_fault, PAGE, 4) < 0, "locked on fault");
	check(!is_resident(locked_on_fault + 5 * PAGE), "locked on fault: brought in");
}

/* The child has everything locked, and what it maps later too. */
static void locks_all(void *on_fault_too)
{
	char *before = map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE), *after;

	if (mlockall(MCL_CURRENT | MCL_FUTURE | (on_fault_too ? MCL_ONFAULT : 0)) < 0) {
		/* in a user namespace root has a limit as anybody else */
		check(errno == ENOMEM, "mlockall: %s", strerror(errno));
		victim_arrive(arrived);
		return;
	}
	victim_arrive(arrived);
	victim_wait();
	check_flag(before, " lo");
	after = map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	check_flag(after, " lo");
	/* older kernels have no letters for it */
	check((strstr(flags_of(after), " lf") || strstr(flags_of(after), " ??")) == !!on_fault_too,
	      "MCL_ONFAULT");
	check(is_resident(after) == !on_fault_too, "MCL_FUTURE");
}

static void build_huge(void)
{
	huge = mmap(NULL, 3L * HUGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	huge_shared = mmap(NULL, 2L * HUGE, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (huge == MAP_FAILED || huge_shared == MAP_FAILED) {
		huge = NULL;
		return;
	}
	victim_fill(huge + HUGE, HUGE, 5);
	memset(huge + HUGE + PAGE, 0, 4 * PAGE);
	victim_fill(huge_shared + HUGE, HUGE, 6);
}

static void verify_huge(void)
{
	if (!huge)
		return;
	check_flag(huge, " ht");
	check_flag(huge_shared, " ht");
	check(victim_differs(huge + HUGE, PAGE, 5) < 0 && huge[HUGE + 2 * PAGE] == 0, "hugetlb");
	check(victim_differs(huge_shared + HUGE, HUGE, 6) < 0, "hugetlb, shared");
	check(!is_resident(huge + 2L * HUGE), "hugetlb: a hole was filled");
	huge[0] = 1;
}

static void huge_child(void *unused)
{
	(void)unused;
	if (huge) {
		memset(huge + HUGE, 0, PAGE);
		huge[HUGE + 2 * PAGE] = 'c';
	}
	victim_arrive(arrived);
	victim_wait();
	if (!huge)
		return;
	check(huge[HUGE] == 0 && huge[HUGE + 100] == 0, "hugetlb: the parent's page");
	check(huge[HUGE + 2 * PAGE] == 'c', "hugetlb: the child's page");
	huge_shared[7] = 's';
}

static void build_others(void)
{
	droppable = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);
	if (droppable == MAP_FAILED)
		droppable = NULL; /* before 6.11 */
	else
		memset(droppable, 'd', PAGE);
	mergeable = map(MERGED * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	memset(mergeable, 'm', MERGED * PAGE);
	must(madvise(mergeable, MERGED * PAGE, MADV_MERGEABLE));
	reserved = map(1UL << 40, PROT_NONE, MAP_PRIVATE | MAP_NORESERVE);
	must(mprotect(reserved + (1UL << 39), PAGE, PROT_READ | PROT_WRITE));
	strcpy(reserved + (1UL << 39), "in the middle");
	none = map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	victim_fill(none, SIZE, 8);
	must(mprotect(none, SIZE, PROT_NONE));
	sealed = map(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	victim_fill(sealed, SIZE, 9);
	must(mlock(sealed, PAGE));
	if (syscall(SYS_mseal, sealed, 2L * PAGE, 0) < 0) {
		check(errno == ENOSYS, "mseal: %s", strerror(errno));
		sealed = NULL; /* before 6.10 */
	}
}

static void verify_others(void)
{
	if (droppable) {
		check_flag(droppable, " dp");
		check(droppable[0] == 'd' || droppable[0] == 0, "droppable: %d", droppable[0]);
		droppable[0] = 1;
	}
	check_flag(mergeable, " mg");
	for (int i = 0; i < MERGED * PAGE; i++)
		check(mergeable[i] == 'm', "mergeable, at %d", i);
	check(strcmp(reserved + (1UL << 39), "in the middle") == 0, "1 TiB");
	check(faults(reserved) && faults(reserved + (1UL << 40) - 1), "1 TiB: not reserved");
	check(faults(none), "PROT_NONE");
	must(mprotect(none, SIZE, PROT_READ));
	check(victim_differs(none, SIZE, 8) < 0, "contents of PROT_NONE");
	if (!sealed)
		return;
	check(victim_differs(sealed, SIZE, 9) < 0, "contents of what is sealed");
	for (int i = 0; i < 2; i++)
		check(munmap(sealed + i * PAGE, PAGE) < 0 && errno == EPERM, "not sealed, page %d",
		      i);
	must(munmap(sealed + 2 * PAGE, PAGE));
}

/* All its memory is to be merged. */
static void merges_all(void *unused)
{
	(void)unused;
	merges = prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0) == 0;
	victim_arrive(arrived);
	victim_wait();
	if (merges)
		check(prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0) == 1, "PR_SET_MEMORY_MERGE");
}

static uintptr_t special(const char *name, size_t *size)
{
	static char maps[1 << 18];
	char *at;
	unsigned long start, end;

	victim_read("/proc/self/maps", maps, sizeof(maps));
	at = strstr(maps, name);
	check(at, "no %s", name);
	while (at > maps && at[-1] != '\n')
		at--;
	check(sscanf(at, "%lx-%lx", &start, &end) == 2, "maps");
	*size = end - start;
	return start;
}

/* The vdso far from its data, as a program that looks for it in auxv would not expect. */
static void moves_vdso(void *unused)
{
	size_t size;
	uintptr_t old = special("[vdso]", &size), now;
	char *place = map(size, PROT_NONE, MAP_PRIVATE);

	(void)unused;
	check(mremap((void *)old, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, place) == place,
	      "mremap");
	victim_arrive(arrived);
	while (!victim_told_to_go()) {
		struct timespec time = {0, 10000000};

		syscall(SYS_nanosleep, &time, NULL);
	}
	now = special("[vdso]", &size);
	check(now == (uintptr_t)place, "the vdso was at %p, is at %#lx", place, now);
}

int main(int argc, char **argv)
{
	pid_t pids[5];

	victim_init(argc, argv);
	arrived = victim_shared(PAGE);
	build_guards();
	build_huge();
	build_others();
	pids[0] = victim_child(locks_all, NULL);
	pids[1] = victim_child(locks_all, "on fault");
	pids[2] = victim_child(huge_child, NULL);
	pids[3] = victim_child(merges_all, NULL);
	pids[4] = victim_child(moves_vdso, NULL);
	victim_meet(arrived, 5);
	build_locks();
	victim_ready();
	victim_wait();
	for (int i = 0; i < 5; i++)
		victim_reap(pids[i]);
	verify_guards();
	verify_locks();
	verify_huge();
	verify_others();
	if (huge)
		check(huge_shared[7] == 's', "hugetlb is not shared any more");
	victim_ok();
	return 0;
}
