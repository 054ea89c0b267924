/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* File mappings: private with changed pages, shared and written, read-only, part of a file. */
#include <sys/stat.h>

#include "victim.h"

enum { PAGE = 4096, PAGES = 64, SIZE = PAGES * PAGE };

static char path[256];

static int make(const char *suffix, int flags)
{
	static char content[SIZE];
	int fd;

	snprintf(path, sizeof(path), "%s.%s", victim_path, suffix);
	fd = must(open(path, O_RDWR | O_CREAT, 0600));
	victim_fill(content, SIZE, strlen(suffix));
	check(write(fd, content, SIZE) == SIZE, "write");
	close(fd);
	return must(open(path, flags));
}

static char *map(int fd, int protection, int flags, off_t offset, size_t size)
{
	char *memory = mmap(NULL, size, protection, flags, fd, offset);

	check(memory != MAP_FAILED, "mmap: %s", strerror(errno));
	return memory;
}

static char *private, *shared, *read_only, *middle, *writable_once;
static int shared_fd, private_fd;

static void build(void)
{
	int fd;

	private_fd = make("private", O_RDONLY);
	private = map(private_fd, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, SIZE);
	for (int i = 0; i < PAGES; i += 7)
		victim_fill(private + i * PAGE, PAGE, 100 + i);

	shared_fd = make("shared", O_RDWR);
	shared = map(shared_fd, PROT_READ | PROT_WRITE, MAP_SHARED, 0, SIZE);
	for (int i = 0; i < PAGES; i += 5)
		victim_fill(shared + i * PAGE, PAGE, 200 + i);

	/* The descriptor is closed, the mapping stays. */
	fd = make("read-only", O_RDONLY);
	read_only = map(fd, PROT_READ, MAP_SHARED, 0, SIZE);
	close(fd);

	fd = make("middle", O_RDONLY);
	middle = map(fd, PROT_READ | PROT_WRITE, MAP_PRIVATE, 8 * PAGE, 8 * PAGE);
	close(fd);

	/* Changed first and protected then: the change is in an anonymous page all the same. */
	fd = make("protected", O_RDONLY);
	writable_once = map(fd, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, 4 * PAGE);
	close(fd);
	victim_fill(writable_once + PAGE, PAGE, 300);
	must(mprotect(writable_once, 4 * PAGE, PROT_READ));
}

static const char *content(const char *suffix, int page)
{
	static char content[SIZE];

	victim_fill(content, SIZE, strlen(suffix));
	return content + page * PAGE;
}

static void check_page(const char *memory, int page, bool changed, int seed, const char *suffix)
{
	memory += page * PAGE;
	if (changed)
		check(victim_differs(memory, PAGE, seed) < 0, "%s: changed page %d", suffix, page);
	else
		check(memcmp(memory, content(suffix, page), PAGE) == 0, "%s: page %d", suffix,
		      page);
}

static void verify(void)
{
	for (int i = 0; i < PAGES; i++) {
		check_page(private, i, i % 7 == 0, 100 + i, "private");
		check_page(shared, i, i % 5 == 0, 200 + i, "shared");
		check_page(read_only, i, false, 0, "read-only");
	}
	check(memcmp(middle, content("middle", 8), 8 * PAGE) == 0, "middle");
	for (int i = 0; i < 4; i++)
		check_page(writable_once, i, i == 1, 300, "protected");
}

/* The mappings are what they were, not only filled with the same bytes. */
static void use(void)
{
	char byte;

	private[1] = 'p';
	check(pread(private_fd, &byte, 1, 1) == 1 && byte == content("private", 0)[1],
	      "a private mapping writes to its file");
	shared[PAGE + 1] = 's';
	check(pread(shared_fd, &byte, 1, PAGE + 1) == 1 && byte == 's',
	      "a shared mapping does not write to its file");
	check(pwrite(shared_fd, "t", 1, PAGE + 2) == 1 && shared[PAGE + 2] == 't',
	      "a shared mapping does not see its file");
	check(mprotect(read_only, PAGE, PROT_READ | PROT_WRITE) < 0 && errno == EACCES,
	      "a read-only file became writable");
	must(mprotect(writable_once, PAGE, PROT_READ | PROT_WRITE));
	must(msync(shared, SIZE, MS_SYNC));
	/* Beyond what is mapped, but not beyond the file. */
	check(mremap(middle, 8 * PAGE, 16 * PAGE, MREMAP_MAYMOVE) != MAP_FAILED, "mremap");
}

static void look(char *maps, size_t size)
{
	victim_read("/proc/self/maps", maps, size);
}

int main(int argc, char **argv)
{
	static char before[65536], now[65536];

	victim_init(argc, argv);
	build();
	content("x", 0);
	memset(now, 1, sizeof(now));
	look(now, sizeof(now));
	look(before, sizeof(before));
	victim_ready();
	victim_wait();
	look(now, sizeof(now));
	check(strcmp(before, now) == 0, "another list of mappings");
	verify();
	use();
	victim_ok();
	return 0;
}
