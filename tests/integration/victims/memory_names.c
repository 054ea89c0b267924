/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Names of memory (PR_SET_VMA_ANON_NAME): private and shared, of a heap and a stack, with names that
 * look like something else, in a parent and its child. A kernel without them says EINVAL, one before
 * 6.2 EBADF for shared memory: then /proc/self/maps must go on without.
 */
#include <sys/prctl.h>

#include "victim.h"

#ifndef PR_SET_VMA
#define PR_SET_VMA	     0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

enum { PAGE = 4096, PAGES = 12, SIZE = PAGES * PAGE, REGIONS = 8 };

/* 79 characters and a NUL are the most. */
#define LONGEST "0123456789012345678901234567890123456789012345678901234567890123456789012345678"

/* One line of /proc/self/maps, without what may be another one afterwards. */
struct line {
	unsigned long start, end;
	char protection[5], name[200];
};

static struct region {
	const char *what;
	char *memory;
	struct line lines[PAGES]; /* that show its pages */
} regions[REGIONS];

static int count;
static uint32_t *arrived;
static char maps[1 << 20];

/* The line that shows @at. */
static struct line line_of(const char *at)
{
	victim_read("/proc/self/maps", maps, sizeof(maps));
	for (char *text = maps; *text; text = strchr(text, '\n') + 1) {
		struct line line = {0};

		check(sscanf(text, "%lx-%lx %4s %*x %*s %*u%*[ ]%199[^\n]", &line.start, &line.end,
			     line.protection, line.name) >= 3,
		      "maps: %.80s", text);
		if ((unsigned long)at >= line.start && (unsigned long)at < line.end)
			return line;
	}
	check(false, "no mapping at %p", at);
	return (struct line){0};
}

static void look(struct region *region)
{
	for (int i = 0; i < PAGES; i++)
		region->lines[i] = line_of(region->memory + i * PAGE);
}

static void compare(struct region *region)
{
	for (int i = 0; i < PAGES; i++) {
		struct line was = region->lines[i], is = line_of(region->memory + i * PAGE);

		check(!strcmp(is.name, was.name), "%s, page %d: was '%s', is '%s'", region->what, i,
		      was.name, is.name);
		/* in a child the kernel may have left neighbours apart that are alike */
		check(is.start <= was.start && is.end >= was.end &&
			      !strcmp(is.protection, was.protection),
		      "%s, page %d: was %lx-%lx %s, is %lx-%lx %s", region->what, i, was.start,
		      was.end, was.protection, is.start, is.end, is.protection);
	}
}

static struct region *add(const char *what, int flags, int fd)
{
	struct region *region = &regions[count++];
	char *place = mmap(NULL, SIZE + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	/* gaps on both sides: neighbours would be merged */
	check(place != MAP_FAILED, "mmap: %s", strerror(errno));
	must(munmap(place, SIZE + 2 * PAGE));
	region->what = what;
	region->memory = mmap(place + PAGE, SIZE, PROT_READ | PROT_WRITE,
			      flags | MAP_FIXED_NOREPLACE, fd, 0);
	check(region->memory != MAP_FAILED, "%s: %s", what, strerror(errno));
	victim_fill(region->memory, SIZE, (uint64_t)count);
	return region;
}

/* Gives pages [from, from + pages) a name, NULL: none. */
static void name(char *memory, int from, int pages, const char *name)
{
	char *start = memory + from * PAGE, shown[120];
	bool shared = strchr(line_of(start).name, '/') || strstr(line_of(start).name, "shmem");
	struct line line;

	if (prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, start, (long)pages * PAGE, name) < 0) {
		check(errno == EINVAL || (shared && errno == EBADF), "naming '%s': %s", name,
		      strerror(errno));
		return;
	}
	line = line_of(start);
	snprintf(shown, sizeof(shown), "[%s:%s]", shared ? "anon_shmem" : "anon", name);
	if (name && line.name[0] && strcmp(line.name, "[heap]") && strcmp(line.name, "[stack]"))
		check(!strcmp(line.name, shown), "'%s' is shown as '%s'", name, line.name);
}

/* Neighbours that only a name keeps apart, and names that could be taken for something else. */
static void name_all(char *memory)
{
	name(memory, 0, 2, "one");
	name(memory, 2, 2, "two");
	name(memory, 5, 1, "/etc/passwd (deleted)");
	name(memory, 6, 1, "heap");
	name(memory, 7, 1, "/dev/zero (deleted)");
	name(memory, 8, 1, LONGEST);
	name(memory, 9, 1, "");
	name(memory, 10, 1, " -_anon:%s<\"'\"> {}");
	name(memory, 11, 1, "two");
}

static int unlinked(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd >= 0) {
		must(unlink(path));
		must(ftruncate(fd, SIZE));
	}
	return fd;
}

static void build(void)
{
	int memory = must(memfd_create("named", MFD_CLOEXEC)), file;

	must(ftruncate(memory, SIZE));
	name_all(add("private memory", MAP_PRIVATE | MAP_ANONYMOUS, -1)->memory);
	name_all(add("shared memory", MAP_SHARED | MAP_ANONYMOUS, -1)->memory);
	name_all(add("memfd", MAP_SHARED, memory)->memory);
	name_all(add("private memfd", MAP_PRIVATE, memory)->memory);
	add("no name", MAP_SHARED | MAP_ANONYMOUS, -1);
	file = unlinked("/dev/shm/memory_names");
	if (file >= 0) {
		name_all(add("deleted file", MAP_SHARED, file)->memory);
		close(file);
	}
	close(memory);
}

/* The heap and the stack have names that are not shown: mremap(2) takes them along. */
static char *heap;
static struct line moved_heap, moved_stack;

static struct line move(char *page)
{
	char *place = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct line line;

	check(place != MAP_FAILED, "mmap: %s", strerror(errno));
	check(mremap(page, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place) == place, "mremap");
	line = line_of(place);
	must(munmap(place, PAGE));
	return line;
}

static char *low_in_stack(void)
{
	char here;

	return (char *)((uintptr_t)&here / PAGE * PAGE) - 4 * PAGE;
}

static void build_heap(void)
{
	char *end = sbrk(0);

	heap = end + (PAGE - (uintptr_t)end % PAGE) % PAGE;
	check(sbrk(heap - end + 6 * PAGE) != (void *)-1, "sbrk");
	memset(heap, 'h', 6 * PAGE);
	name(heap, 0, 4, "hidden");
	moved_heap = move(heap + PAGE);
	low_in_stack()[0] = 's';
	name(low_in_stack(), 0, 2, "of a stack");
}

static void verify_heap(void)
{
	struct line line = move(heap + 2 * PAGE);

	check(heap[0] == 'h' && heap[5 * PAGE] == 'h', "contents of the heap");
	check(!strcmp(line.name, moved_heap.name), "heap: was '%s', is '%s'", moved_heap.name,
	      line.name);
	line = move(low_in_stack());
	moved_stack = move(low_in_stack() + PAGE);
	check(!strcmp(line.name, moved_stack.name) &&
		      (!moved_heap.name[0] || !strcmp(line.name, "[anon:of a stack]")),
	      "stack: '%s' and '%s'", line.name, moved_stack.name);
}

static void compare_all(void)
{
	for (int i = 0; i < count; i++)
		compare(&regions[i]);
}

/* Has the parent's names but where it has given others. */
static void child(void *unused)
{
	(void)unused;
	for (int i = 0; i < count; i++) {
		name(regions[i].memory, 0, 1, "child's");
		name(regions[i].memory, 2, 2, NULL);
		look(&regions[i]);
	}
	victim_arrive(arrived);
	victim_wait();
	compare_all();
	victim_meet(arrived, 2); /* the parent has looked */
	regions[1].memory[0] = 'c';
	regions[2].memory[0] = 'c';
}

int main(int argc, char **argv)
{
	pid_t pid;

	victim_init(argc, argv);
	arrived = victim_shared(PAGE);
	build();
	build_heap();
	pid = victim_child(child, NULL);
	victim_meet(arrived, 1);
	for (int i = 0; i < count; i++)
		look(&regions[i]);
	victim_ready();
	victim_wait();
	compare_all();
	for (int i = 0; i < count; i++)
		check(victim_differs(regions[i].memory, SIZE, (uint64_t)i + 1) < 0, "%s: contents",
		      regions[i].what);
	verify_heap();
	victim_arrive(arrived);
	victim_reap(pid);
	check(regions[1].memory[0] == 'c' && regions[2].memory[0] == 'c', "not shared any more");
	victim_ok();
	return 0;
}
