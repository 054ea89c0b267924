/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Private memory: contents, holes, protections, advice, heap, stack, brk. The list of mappings that
 * /proc/self/smaps shows, flags included, is the same before and after.
 */
#include "victim.h"

enum { PAGE = 4096, MIB = 1 << 20, SPARSE = 4000, SMAPS = 512 * 1024 };

struct area {
	const char *name;
	size_t size;
	int flags;   /* for mmap, beside MAP_PRIVATE | MAP_ANONYMOUS */
	int advice;  /* for madvise; -1: none */
	int protect; /* for mprotect after the area was filled */
	char *memory;
};

static struct area areas[] = {
	{"plain", 3 * MIB, 0, -1, PROT_READ | PROT_WRITE, NULL},
	{"read only", 5 * PAGE, 0, -1, PROT_READ, NULL},
	{"no access", 7 * PAGE, 0, -1, PROT_NONE, NULL},
	{"write only", 2 * PAGE, 0, -1, PROT_WRITE, NULL},
	{"no reserve", 4 * PAGE, MAP_NORESERVE, -1, PROT_READ | PROT_WRITE, NULL},
	{"don't fork", PAGE, 0, MADV_DONTFORK, PROT_READ | PROT_WRITE, NULL},
	{"don't dump", PAGE, 0, MADV_DONTDUMP, PROT_READ | PROT_WRITE, NULL},
	{"wipe on fork", PAGE, 0, MADV_WIPEONFORK, PROT_READ | PROT_WRITE, NULL},
	{"sequential", PAGE, 0, MADV_SEQUENTIAL, PROT_READ | PROT_WRITE, NULL},
	{"random", PAGE, 0, MADV_RANDOM, PROT_READ | PROT_WRITE, NULL},
	{"no huge pages", 4 * MIB, 0, MADV_NOHUGEPAGE, PROT_READ | PROT_WRITE, NULL},
	{"huge pages", 4 * MIB, 0, MADV_HUGEPAGE, PROT_READ | PROT_WRITE, NULL},
	{"grows down", 2 * PAGE, MAP_GROWSDOWN, -1, PROT_READ | PROT_WRITE, NULL},
	{"executable", PAGE, 0, -1, PROT_READ | PROT_EXEC, NULL},
};

enum { AREAS = sizeof(areas) / sizeof(areas[0]) };

static char before[SMAPS], after[SMAPS];
static char data_section[3 * PAGE] = "initialised";
static char *sparse, *reserved, *zeros;

static void build(struct area *area, int seed)
{
	/* A gap on both sides: neighbours with equal flags would be merged. */
	char *gap = mmap(NULL, area->size + 2 * PAGE, PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	check(gap != MAP_FAILED, "mmap");
	area->memory = mmap(gap + PAGE, area->size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | area->flags, -1, 0);
	check(area->memory != MAP_FAILED, "mmap of '%s'", area->name);
	munmap(gap, PAGE);
	munmap(gap + PAGE + area->size, PAGE);
	if (area->advice >= 0)
		check(madvise(area->memory, area->size, area->advice) == 0, "advice '%s': %s",
		      area->name, strerror(errno));
	victim_fill(area->memory, area->size, seed);
	must(mprotect(area->memory, area->size, area->protect));
}

static void verify(struct area *area, int seed)
{
	must(mprotect(area->memory, area->size, PROT_READ | PROT_WRITE));
	check(victim_differs(area->memory, area->size, seed) < 0, "'%s' differs at %ld", area->name,
	      victim_differs(area->memory, area->size, seed));
	victim_fill(area->memory, area->size, seed + 1000);
}

/* Every second page, so that nothing can be stored or written as one run. */
static void build_sparse(void)
{
	sparse = mmap(NULL, 2 * SPARSE * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		      -1, 0);
	check(sparse != MAP_FAILED, "mmap");
	must(madvise(sparse, 2 * SPARSE * PAGE, MADV_NOHUGEPAGE));
	for (long i = 0; i < SPARSE; i++)
		victim_fill(sparse + 2 * i * PAGE, PAGE, i);
}

static bool is_resident(void *page)
{
	uint64_t entry = 0;
	int fd = must(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));

	check(pread(fd, &entry, 8, (uintptr_t)page / PAGE * 8) == 8, "pagemap");
	close(fd);
	return entry >> 62; /* present or swapped */
}

static void verify_sparse(void)
{
	for (long i = 0; i < SPARSE; i++) {
		check(!is_resident(sparse + (2 * i + 1) * PAGE), "hole %ld was filled", i);
		check(victim_differs(sparse + 2 * i * PAGE, PAGE, i) < 0, "page %ld differs", i);
	}
}

static void leave_out(char *line, const char *flag)
{
	char *at = strstr(line, flag);

	if (at)
		memmove(at, at + strlen(flag), strlen(at + strlen(flag)) + 1);
}

/*
 * The lines of smaps that say what a mapping is, not how much of it is in memory. Whether a
 * read-only mapping is accounted ("ac") depends on whether it was writable once: no program can
 * tell. "sd" says that it is new since somebody has asked for it to be noted.
 */
static void read_smaps(char *buffer)
{
	static char all[SMAPS];
	char *out = buffer;

	victim_read("/proc/self/smaps", all, sizeof(all));
	for (char *save, *line = strtok_r(all, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		bool head = strchr("0123456789abcdef", line[0]) != NULL;

		if (!head) {
			leave_out(line, " ac");
			leave_out(line, " sd");
		}
		if (head || strncmp(line, "VmFlags", 7) == 0)
			out += sprintf(out, "%s\n", line);
	}
}

static void compare_smaps(void)
{
	char *save_a, *save_b;
	char *a = strtok_r(before, "\n", &save_a), *b = strtok_r(after, "\n", &save_b);

	while (a || b) {
		check(a && b && strcmp(a, b) == 0, "smaps: was '%s', is '%s'", a ? a : "",
		      b ? b : "");
		a = strtok_r(NULL, "\n", &save_a);
		b = strtok_r(NULL, "\n", &save_b);
	}
}

int main(int argc, char **argv)
{
	uint64_t on_stack[1000];
	char *heap, *break_before;
	int (*code)(void);
	static const unsigned char answer[] = {0xb8, 42, 0, 0, 0, 0xc3}; /* mov $42, %eax; ret */

	victim_init(argc, argv);
	for (int i = 0; i < AREAS; i++)
		build(&areas[i], i);
	code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memcpy((void *)code, answer, sizeof(answer));
	must(mprotect((void *)code, PAGE, PROT_READ | PROT_EXEC));
	build_sparse();
	reserved = mmap(NULL, 1UL << 36, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	check(reserved != MAP_FAILED, "mmap of 64 GiB");
	strcpy(reserved + (1UL << 35), "in the middle");
	zeros = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (int i = 0; i < MIB; i += PAGE)
		check(((volatile char *)zeros)[i] == 0, "not zero");
	heap = malloc(100000);
	victim_fill(heap, 100000, 55);
	must((long)sbrk(10 * PAGE));
	break_before = sbrk(0);
	victim_fill(break_before - 10 * PAGE, 10 * PAGE, 56);
	victim_fill(on_stack, sizeof(on_stack), 57);
	victim_fill(data_section + PAGE, PAGE, 58);
	memset(before, 1, sizeof(before));
	memset(after, 1, sizeof(after));
	read_smaps(after);
	read_smaps(before);
	victim_ready();
	victim_wait();

	read_smaps(after);
	compare_smaps();
	for (int i = 0; i < AREAS; i++)
		verify(&areas[i], i);
	check(code() == 42, "code");
	verify_sparse();
	check(strcmp(reserved + (1UL << 35), "in the middle") == 0, "large hole");
	check(!is_resident(reserved) && !is_resident(reserved + (1UL << 36) - PAGE), "hole filled");
	for (int i = 0; i < MIB; i++)
		check(zeros[i] == 0, "zero page at %d", i);
	check(sbrk(0) == break_before, "brk was %p, is %p", break_before, sbrk(0));
	check(victim_differs(heap, 100000, 55) < 0, "malloc'ed memory");
	check(victim_differs(break_before - 10 * PAGE, 10 * PAGE, 56) < 0, "brk area");
	check(victim_differs(on_stack, sizeof(on_stack), 57) < 0, "stack");
	check(victim_differs(data_section + PAGE, PAGE, 58) < 0, "data");
	check(strcmp(data_section, "initialised") == 0, "data, first page");
	/* The heap and the stack can still grow. */
	must((long)sbrk(100 * PAGE));
	memset(sbrk(0) - PAGE, 1, PAGE);
	memset(alloca(2 * MIB), 1, 2 * MIB);
	free(heap);
	victim_ok();
	return 0;
}
