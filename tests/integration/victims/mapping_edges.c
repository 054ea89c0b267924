/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Edges of mappings: behind the end of a file, below a stack that grows, what a fork leaves out or
 * wipes, a vdso without its data, and a file at both ends of many changes.
 */
#include <setjmp.h>
#include <signal.h>
#include <sys/syscall.h>

#include "victim.h"

enum { PAGE = 4096, FILE_PAGES = 3, MAPPED_PAGES = 8, STACK = 16 * PAGE };

static uint32_t *arrived;
static sigjmp_buf back;

static void on_fault(int signal)
{
	siglongjmp(back, signal);
}

/* The signal that touching @at brings; 0: none. */
static int fault(volatile char *at)
{
	int signal = sigsetjmp(back, 1);

	if (signal == 0)
		(void)*at;
	return signal;
}

/* ---- behind the end of a file ---- */

static int file;
static char *shared, *private;

static void build_file(void)
{
	char path[256], content[PAGE];

	snprintf(path, sizeof(path), "%s.short", victim_path);
	file = must(open(path, O_RDWR | O_CREAT, 0600));
	for (int i = 0; i < FILE_PAGES; i++) {
		victim_fill(content, PAGE, i);
		check(write(file, content, PAGE) == PAGE, "write");
	}
	/* half a page more: the rest of it reads as zeros */
	check(write(file, content, PAGE / 2) == PAGE / 2, "write");
	shared = mmap(NULL, MAPPED_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	private = mmap(NULL, MAPPED_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
	check(shared != MAP_FAILED && private != MAP_FAILED, "mmap");
	victim_fill(private + PAGE, PAGE, 10);
	/* its copy of a page that is behind the end once the file was cut ends with the page */
	private[FILE_PAGES * PAGE] = 'p';
}

static void verify_file(void)
{
	char *const both[] = {shared, private};

	check(victim_differs(private + PAGE, PAGE, 10) < 0, "private page");
	check(private[FILE_PAGES * PAGE] == 'p', "private copy of the last page");
	check(victim_differs(shared + PAGE, PAGE, 1) < 0, "shared page");
	for (int i = 0; i < 2; i++) {
		check(both[i][FILE_PAGES * PAGE + PAGE - 1] == 0, "rest of the last page");
		check(fault(both[i] + (FILE_PAGES + 1) * PAGE) == SIGBUS, "no end of the file");
		check(fault(both[i] + (MAPPED_PAGES - 1) * PAGE) == SIGBUS, "no end of the file");
	}
	must(ftruncate(file, MAPPED_PAGES * PAGE));
	check(fault(shared + (MAPPED_PAGES - 1) * PAGE) == 0, "the file has not grown");
}

/* ---- below a stack ---- */

static char *stack; /* its top */

static void build_stack(void)
{
	char *room = mmap(NULL, 100 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			  -1, 0);

	check(room != MAP_FAILED, "mmap");
	/* a hole so small that nothing else is mapped below a stack, above what nobody can touch */
	must(munmap(room + 50 * PAGE, 50 * PAGE));
	stack = room + 100 * PAGE;
	check(mmap(stack - PAGE, PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_GROWSDOWN, -1,
		   0) != MAP_FAILED,
	      "mmap");
	/* it has grown already */
	for (int i = 1; i <= 4; i++)
		victim_fill(stack - i * PAGE, PAGE, 20 + i);
}

static void verify_stack(void)
{
	for (int i = 1; i <= 4; i++)
		check(victim_differs(stack - i * PAGE, PAGE, 20 + i) < 0, "page %d of a stack", i);
	for (int i = 5; i <= STACK / PAGE; i++)
		check(fault(stack - i * PAGE) == 0, "the stack does not grow any more");
}

/* ---- what a fork leaves out ---- */

static char *left_out, *wiped;

static void build_forked(void)
{
	char *both =
		mmap(NULL, 5 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check(both != MAP_FAILED, "mmap");
	left_out = both + PAGE;
	wiped = both + 3 * PAGE;
	victim_fill(both, 5 * PAGE, 30);
	victim_fill(left_out, PAGE, 31);
	victim_fill(wiped, PAGE, 32);
	must(madvise(left_out, PAGE, MADV_DONTFORK));
	must(madvise(wiped, PAGE, MADV_WIPEONFORK));
}

static void check_child(char written)
{
	check(fault(left_out) == SIGSEGV, "MADV_DONTFORK: the child has it");
	check(wiped[1] == 0 && wiped[0] == written, "MADV_WIPEONFORK: the child reads %d, %d",
	      wiped[0], wiped[1]);
}

static void forked_before(void *unused)
{
	(void)unused;
	check_child(0);
	wiped[0] = 'c';
	victim_arrive(arrived);
	victim_wait();
	check_child('c');
}

static void forked_after(void *unused)
{
	(void)unused;
	check_child(0);
}

static void verify_forked(void)
{
	check(victim_differs(left_out, PAGE, 31) < 0, "MADV_DONTFORK: contents");
	check(victim_differs(wiped, PAGE, 32) < 0, "MADV_WIPEONFORK: contents");
	victim_reap(victim_child(forked_after, NULL));
}

/* ---- the vdso ---- */

static bool find_special(const char *name, unsigned long *start, unsigned long *size)
{
	static char maps[1 << 16];
	unsigned long end;
	char *at;

	victim_read("/proc/self/maps", maps, sizeof(maps));
	at = strstr(maps, name);
	if (!at)
		return false;
	while (at > maps && at[-1] != '\n')
		at--;
	check(sscanf(at, "%lx-%lx", start, &end) == 2, "maps");
	*size = end - *start;
	return true;
}

/* Nobody can have a part of it: the kernel forbids to split it. */
static void without_vvar(void *unused)
{
	static const char *const parts[] = {"[vvar]", "[vvar_vclock]"};
	unsigned long start, size;

	(void)unused;
	check(find_special("[vdso]", &start, &size), "no vdso");
	check(munmap((void *)start, PAGE) < 0 || size == PAGE, "the vdso was split");
	check(mprotect((void *)start, PAGE, PROT_READ) < 0 || size == PAGE, "the vdso was split");
	for (int i = 0; i < 2; i++) {
		if (find_special(parts[i], &start, &size))
			must(munmap((void *)start, size));
	}
	victim_arrive(arrived);
	victim_wait();
	for (int i = 0; i < 2; i++)
		check(!find_special(parts[i], &start, &size), "%s is back", parts[i]);
	check(find_special("[vdso]", &start, &size), "no vdso");
}

/* ---- a file twice, and between more changes of what was inherited than go in one program ---- */

enum { BETWEEN = 2400 };

static char *between;

/* Every second page is a mapping of its own. */
static void build_between(void)
{
	between = mmap(NULL, (BETWEEN + 2) * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(between != MAP_FAILED, "mmap");
	for (int i = 2; i <= BETWEEN; i += 2)
		must(mprotect(between + i * PAGE, PAGE, PROT_READ));
}

static void file_twice(void *unused)
{
	char *ends[] = {between, between + (BETWEEN + 1) * PAGE}, path[4096];
	int fd;

	(void)unused;
	snprintf(path, sizeof(path), "%s.twice", victim_path);
	fd = must(open(path, O_RDWR | O_CREAT | O_TRUNC, 0600));
	must(ftruncate(fd, PAGE));
	check(pwrite(fd, "twice", 6, 0) == 6, "pwrite: %s", strerror(errno));
	for (int i = 0; i < 2; i++)
		check(mmap(ends[i], PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0) == ends[i],
		      "mmap: %s", strerror(errno));
	must(close(fd));
	for (int i = 1; i <= BETWEEN; i += 2)
		must(mprotect(between + i * PAGE, PAGE, PROT_NONE));
	victim_arrive(arrived);
	victim_wait();
	for (int i = 0; i < 2; i++)
		check(!strcmp(ends[i], "twice"), "mapping %d shows something else", i);
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = on_fault};
	pid_t before, bare, twice;

	victim_init(argc, argv);
	arrived = victim_shared(PAGE);
	must(sigaction(SIGSEGV, &action, NULL));
	must(sigaction(SIGBUS, &action, NULL));
	build_file();
	build_stack();
	build_forked();
	before = victim_child(forked_before, NULL);
	bare = victim_child(without_vvar, NULL);
	build_between();
	twice = victim_child(file_twice, NULL);
	victim_meet(arrived, 3);
	victim_ready();
	victim_wait();
	verify_file();
	verify_stack();
	verify_forked();
	victim_reap(before);
	victim_reap(bare);
	victim_reap(twice);
	victim_ok();
	return 0;
}
