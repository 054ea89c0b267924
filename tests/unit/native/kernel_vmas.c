/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Checks the VMA iterator against /proc/PID/smaps and /proc/PID/maps. Runs as root. */
#include <fcntl.h>
#include <inttypes.h>
#include <sys/file.h>
#include <sys/syscall.h>

#include "kernel/vmas.h"
#include "stopped.h"
#include "types.h"

enum { PAGE = 4096, MANY = 20000 };

/* The two letters of smaps; soft-dirty and what depends on the configuration are left out. */
static const struct {
	const char *letters;
	uint64_t bit;
} names[] = {
	{"rd", 0x1},	   {"wr", 0x2},	      {"ex", 0x4},	  {"sh", 0x8},
	{"mr", 0x10},	   {"mw", 0x20},      {"me", 0x40},	  {"ms", 0x80},
	{"gd", 0x100},	   {"lo", 0x2000},    {"sr", 0x8000},	  {"rr", 0x10000},
	{"dc", 0x20000},   {"de", 0x40000},   {"ac", 0x100000},	  {"nr", 0x200000},
	{"wf", 0x2000000}, {"dd", 0x4000000}, {"hg", 0x20000000}, {"nh", 0x40000000},
};

/* One description mapped twice, and another one of the same file, which is locked. */
static void map_files(struct facts *facts)
{
	char path[] = "/tmp/lxc-cr-vmas-XXXXXX";
	int fd = mkstemp(path), other = open(path, O_RDWR);

	unlink(path);
	flock(fd, LOCK_EX);
	for (int i = 0; i < 3; i++)
		facts->values[2 + i] =
			(uintptr_t)mmap(NULL, PAGE, PROT_READ, MAP_SHARED, i == 2 ? other : fd, 0);
}

static void live_regions(struct facts *facts)
{
	static const int advices[] = {MADV_DONTFORK, MADV_DONTDUMP,   MADV_WIPEONFORK,
				      MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_SEQUENTIAL,
				      MADV_RANDOM};
	char *region;

	for (size_t i = 0; i < sizeof(advices) / sizeof(advices[0]); i++) {
		region = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			      -1, 0);
		madvise(region + PAGE, PAGE, advices[i]);
	}
	region = mmap(NULL, 4 * PAGE, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	syscall(SYS_mlock, region, PAGE); /* AddressSanitizer makes a no-op of mlock(3) */
	facts->values[0] = (uintptr_t)region;
	mmap(NULL, 4 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	mmap(NULL, 4 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, -1, 0);
	region = mmap(NULL, 4 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	madvise(region, PAGE, MADV_DONTFORK);
	facts->values[1] = (uintptr_t)region;
	map_files(facts);
	facts->ready = true;
	for (;;)
		pause();
}

static void live_many(struct facts *facts)
{
	char *region = mmap(NULL, (size_t)MANY * 2 * PAGE, PROT_NONE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	for (size_t i = 0; i < MANY; i++)
		mprotect(region + 2 * i * PAGE, PAGE, PROT_READ);
	facts->ready = true;
	for (;;)
		pause();
}

static FILE *open_proc(pid_t pid, const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	return fopen(path, "re");
}

/* Compares addresses with every line "start-end ..." and flags with every line "VmFlags: ...". */
static void compare(pid_t pid, const char *name, const struct list *list)
{
	const struct kernel_vma *vma = list->items;
	_cleanup_fclose_ FILE *file = open_proc(pid, name);
	size_t seen = 0, wrong = 0;
	char line[1024];

	if (!CHECK(file))
		return;
	while (fgets(line, sizeof(line), file)) {
		uint64_t start, end;

		if (strstr(line, "[vsyscall]"))
			break;
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &start, &end) == 2) {
			if (!CHECK(seen < list->count))
				return;
			wrong += vma[seen].start != start || vma[seen].end != end ||
				 vma[seen].tgid != pid;
			seen++;
		} else if (seen && strncmp(line, "VmFlags: ", 9) == 0) {
			for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
				bool set = strstr(line + 8, names[i].letters) != NULL;

				if (set != !!(vma[seen - 1].flags & names[i].bit)) {
					printf("%" PRIx64 " has flags %" PRIx64 ", smaps: %s",
					       vma[seen - 1].start, vma[seen - 1].flags, line);
					wrong++;
				}
			}
		}
	}
	CHECK(wrong == 0);
	CHECK(seen == list->count);
}

static const struct kernel_vma *vma_at(const struct list *list, uint64_t address)
{
	for (size_t i = 0; i < list->count; i++) {
		const struct kernel_vma *vma = (const struct kernel_vma *)list->items + i;

		if (vma->start <= address && address < vma->end)
			return vma;
	}
	abort();
}

static void check_files(const struct list *list, const struct facts *facts)
{
	const struct kernel_vma *first = vma_at(list, facts->values[2]),
				*second = vma_at(list, facts->values[3]),
				*other = vma_at(list, facts->values[4]);

	CHECK(first->file && first->file == second->file && first->file != other->file);
	CHECK(first->locks && first->locks == other->locks);
	CHECK(!vma_at(list, facts->values[1])->file && !vma_at(list, facts->values[1])->locks);
}

static uint64_t flags_at(const struct list *list, uint64_t address)
{
	for (size_t i = 0; i < list->count; i++) {
		const struct kernel_vma *vma = (const struct kernel_vma *)list->items + i;

		if (vma->start <= address && address < vma->end)
			return vma->flags;
	}
	return 0;
}

static void check_regions(struct kernel_vma_program *program)
{
	_cleanup_kernel_vma_reader_ struct kernel_vma_reader *reader = NULL;
	_cleanup_pool_ struct pool *pool = NULL;
	struct child child = child_start(live_regions);
	struct list list = {0};

	CHECK_SUCCESS(pool_create(0, &pool));
	CHECK_SUCCESS(kernel_vma_reader_open(program, child.pid, &reader));
	child_stop(&child);
	CHECK_SUCCESS(kernel_vma_reader_read(reader, pool, &list));
	compare(child.pid, "smaps", &list);
	CHECK((flags_at(&list, child.facts->values[0]) & 0x2008) == 0x2008); /* locked, shared */
	CHECK(flags_at(&list, child.facts->values[1]) & 0x20000);	     /* not forked */
	check_files(&list, child.facts);

	/* A second read gives the same; once the child is dead and reaped there is nothing. */
	CHECK_SUCCESS(kernel_vma_reader_read(reader, pool, &list));
	compare(child.pid, "smaps", &list);
	child_end(&child);
	CHECK_SUCCESS(kernel_vma_reader_read(reader, pool, &list));
	CHECK(list.count == 0);
}

/* Far more than one read(2) of the iterator holds; two processes share the program. */
static void check_many(struct kernel_vma_program *program)
{
	_cleanup_kernel_vma_reader_ struct kernel_vma_reader *reader = NULL, *own = NULL;
	_cleanup_pool_ struct pool *pool = NULL;
	struct child child = child_start(live_many);
	struct list list = {0};

	CHECK_SUCCESS(pool_create(0, &pool));
	CHECK_SUCCESS(kernel_vma_reader_open(program, child.pid, &reader));
	CHECK_SUCCESS(kernel_vma_reader_open(program, getpid(), &own));
	child_stop(&child);
	for (int i = 0; i < 2; i++) {
		CHECK_SUCCESS(kernel_vma_reader_read(reader, pool, &list));
		CHECK(list.count >= (size_t)MANY * 2 - 1);
		compare(child.pid, "maps", &list);
	}
	CHECK_SUCCESS(kernel_vma_reader_read(own, pool, &list));
	CHECK(flags_at(&list, (uintptr_t)names) & 1);
	child_end(&child);
}

int main(void)
{
	_cleanup_kernel_vma_program_ struct kernel_vma_program *program = NULL;
	struct kernel_vma_reader *reader = NULL;
	_cleanup_btf_ struct btf *btf = NULL;

	if (!CHECK_SUCCESS(types_open(&btf)) ||
	    !CHECK_SUCCESS(kernel_vma_program_open(btf, &program)))
		return checks_done();
	check_regions(program);
	check_many(program);
	CHECK_ERROR(kernel_vma_reader_open(program, 0, &reader), CR_INTERNAL, "No process 0");
	return checks_done();
}
