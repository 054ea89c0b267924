/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memfds: as descriptor, as mapping, as both, shared between processes; seals, name, owner, size,
 * holes, hugetlb pages where the system has some, and a program that was executed from one.
 */
#include <sys/sendfile.h>

#include "victim.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x10
#endif

enum { PAGE = 4096, PAGES = 32, SIZE = PAGES * PAGE, HUGE = 2 << 20 };

static int plain, named, sealed, future, sparse, shared_fd, empty, huge = -1, huge_unmapped,
								   read_only;
static char *mapped, *only_mapped, *future_writer, *sealed_private, *sealed_reader, *shared;
static char *huge_map, *huge_private;

static char *map(int fd, int protection, int flags, size_t size)
{
	char *memory = mmap(NULL, size, protection, flags, fd, 0);

	check(memory != MAP_FAILED, "mmap: %s", strerror(errno));
	return memory;
}

static int make(const char *name, unsigned int flags, int seed)
{
	static char content[SIZE];
	int fd = must(memfd_create(name, flags));

	victim_fill(content, SIZE, seed);
	check(write(fd, content, SIZE) == SIZE, "write");
	return fd;
}

static void build_huge(void)
{
	char *memory;

	huge = memfd_create("huge", MFD_HUGETLB);
	if (huge < 0)
		return;
	must(ftruncate(huge, 3L * HUGE));
	huge_map = mmap(NULL, 3L * HUGE, PROT_READ | PROT_WRITE, MAP_SHARED, huge, 0);
	if (huge_map == MAP_FAILED) { /* the system has no such pages */
		close(huge);
		huge = -1;
		return;
	}
	victim_fill(huge_map + 2L * HUGE, HUGE, 9);
	huge_private = map(huge, PROT_READ | PROT_WRITE, MAP_PRIVATE, HUGE);
	strcpy(huge_private, "private");

	huge_unmapped = must(memfd_create("huge, unmapped", MFD_HUGETLB | MFD_ALLOW_SEALING));
	must(ftruncate(huge_unmapped, HUGE));
	memory = map(huge_unmapped, PROT_READ | PROT_WRITE, MAP_SHARED, HUGE);
	victim_fill(memory, HUGE, 10);
	must(munmap(memory, HUGE));
	must(fcntl(huge_unmapped, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK));
}

static void build(void)
{
	char link[32];
	int fd;

	plain = make("plain", 0, 1);
	must(lseek(plain, 77, SEEK_SET));
	mapped = map(plain, PROT_READ | PROT_WRITE, MAP_SHARED, SIZE);
	named = make("a name with (deleted) in it/and a slash", MFD_CLOEXEC, 2);
	must(fchmod(named, 0640));
	must(fchown(named, 3, 4));
	fd = make("only mapped", 0, 3);
	only_mapped = map(fd, PROT_READ | PROT_WRITE, MAP_SHARED, SIZE);
	close(fd);

	sealed = make("sealed", MFD_ALLOW_SEALING, 4);
	must(fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL));
	sealed_private = map(sealed, PROT_READ | PROT_WRITE, MAP_PRIVATE, SIZE);
	strcpy(sealed_private, "mine");
	snprintf(link, sizeof(link), "/proc/self/fd/%d", sealed);
	read_only = must(open(link, O_RDONLY));
	sealed_reader = map(read_only, PROT_READ, MAP_SHARED, SIZE);

	future = make("future", MFD_ALLOW_SEALING, 5);
	future_writer = map(future, PROT_READ | PROT_WRITE, MAP_SHARED, SIZE);
	must(fcntl(future, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));

	sparse = must(memfd_create("sparse", MFD_ALLOW_SEALING));
	must(ftruncate(sparse, 1L << 36));
	must(pwrite(sparse, "middle", 6, 1L << 35));
	empty = must(memfd_create("", MFD_ALLOW_SEALING));
	shared_fd = make("shared", 0, 6);
	shared = map(shared_fd, PROT_READ | PROT_WRITE, MAP_SHARED, SIZE);
	build_huge();
}

static void check_file(int fd, const char *name, int seed)
{
	static char is[SIZE];
	char link[32], path[128] = "", wanted[128];

	check(pread(fd, is, SIZE, 0) == SIZE && victim_differs(is, SIZE, seed) < 0,
	      "%s: other contents", name);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	must(readlink(link, path, sizeof(path) - 1));
	snprintf(wanted, sizeof(wanted), "/memfd:%s (deleted)", name);
	check(strcmp(path, wanted) == 0, "was '%s', is '%s'", wanted, path);
}

static void check_seals(int fd, int seals)
{
	check(fcntl(fd, F_GET_SEALS) == seals, "seals were %#x, are %#x", seals,
	      fcntl(fd, F_GET_SEALS));
}

static void verify_plain(void)
{
	struct stat stat;

	check_file(plain, "plain", 1);
	check(lseek(plain, 0, SEEK_CUR) == 77, "position");
	check_seals(plain, F_SEAL_SEAL);
	mapped[5] ^= 1;
	check(pread(plain, &stat, 1, 5) == 1 && *(char *)&stat == mapped[5], "not one memory");
	check_file(named, "a name with (deleted) in it/and a slash", 2);
	must(fstat(named, &stat));
	check((stat.st_mode & 07777) == 0640 && stat.st_uid == 3 && stat.st_gid == 4, "owner");
	check(fcntl(named, F_GETFD) == FD_CLOEXEC && fcntl(plain, F_GETFD) == 0, "FD_CLOEXEC");
	check(victim_differs(only_mapped, SIZE, 3) < 0, "only mapped");
	must(fstat(empty, &stat));
	check(stat.st_size == 0, "empty");
	check_seals(empty, 0);
	must(fcntl(empty, F_ADD_SEALS, F_SEAL_GROW));
}

static void verify_sealed(void)
{
	char text[8] = "";
	struct stat stat;

	check_file(sealed, "sealed", 4);
	check_seals(sealed, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
	check(pwrite(sealed, "x", 1, 0) < 0 && errno == EPERM, "F_SEAL_WRITE does not hold");
	check(strcmp(sealed_private, "mine") == 0, "private copy of sealed memory");
	check(victim_differs(sealed_reader, SIZE, 4) < 0, "mapping of sealed memory");
	check(memcmp(sealed_private + PAGE, sealed_reader + PAGE, SIZE - PAGE) == 0, "sealed");
	check(mprotect(sealed_reader, PAGE, PROT_READ | PROT_WRITE) < 0 && errno == EACCES,
	      "sealed memory became writable");
	check(write(read_only, "x", 1) < 0 && errno == EBADF, "O_RDONLY lost");

	check_file(future, "future", 5);
	check_seals(future, F_SEAL_FUTURE_WRITE);
	future_writer[0] = 'w';
	check(pread(future, text, 1, 0) == 1 && text[0] == 'w', "the old writer cannot write");
	check(mmap(NULL, PAGE, PROT_WRITE, MAP_SHARED, future, 0) == MAP_FAILED, "a new writer");

	must(fstat(sparse, &stat));
	check(stat.st_size == 1L << 36 && stat.st_blocks < 5000, "sparse: %ld blocks",
	      (long)stat.st_blocks);
	check(pread(sparse, text, 6, 1L << 35) == 6 && strcmp(text, "middle") == 0, "sparse");
}

static void verify_huge(void)
{
	char byte;
	struct stat stat;

	if (huge < 0)
		return;
	must(fstat(huge, &stat));
	check(stat.st_blksize == HUGE && stat.st_size == 3L * HUGE, "huge: pages of %ld",
	      (long)stat.st_blksize);
	check(victim_differs(huge_map + 2L * HUGE, HUGE, 9) < 0, "huge: contents");
	check(strcmp(huge_private, "private") == 0 && huge_map[0] == 0, "huge: private copy");
	huge_map[2L * HUGE] = 'h';
	check(pread(huge, &byte, 1, 2L * HUGE) == 1 && byte == 'h', "huge: not one memory");
	check_seals(huge_unmapped, F_SEAL_WRITE | F_SEAL_SHRINK);
	check(victim_differs(map(huge_unmapped, PROT_READ, MAP_SHARED, HUGE), HUGE, 10) < 0,
	      "huge, unmapped: contents");
}

static void child(void *argument)
{
	(void)argument;
	victim_wait();
	while (__atomic_load_n(&shared[0], __ATOMIC_SEQ_CST) != 'a')
		victim_nap(1);
	check(pwrite(shared_fd, "b", 1, 1) == 1, "write");
}

/* The same program, executed from a memfd, as container runtimes do. */
static void from_memfd(char **argv)
{
	int fd = must(memfd_create("program", MFD_ALLOW_SEALING | MFD_CLOEXEC));
	int self = must(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
	struct stat stat;
	char *arguments[] = {argv[0], argv[1], "from memfd", NULL};

	must(fstat(self, &stat));
	check(sendfile(fd, self, NULL, stat.st_size) == stat.st_size, "sendfile");
	must(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL));
	must(fexecve(fd, arguments, environ));
}

static void run_from_memfd(void)
{
	char path[64] = "";

	victim_wait();
	must(readlink("/proc/self/exe", path, sizeof(path) - 1));
	check(strcmp(path, "/memfd:program (deleted)") == 0, "the program is %s", path);
	exit(0);
}

int main(int argc, char **argv)
{
	pid_t pid, program;

	if (argc > 2) {
		victim_path = argv[1];
		run_from_memfd();
	}
	victim_init(argc, argv);
	build();
	pid = victim_child(child, NULL);
	program = must(fork());
	if (program == 0)
		from_memfd(argv);
	victim_nap(50);
	victim_ready();
	victim_wait();
	verify_plain();
	verify_sealed();
	verify_huge();
	__atomic_store_n(&shared[0], 'a', __ATOMIC_SEQ_CST);
	victim_reap(pid);
	check(shared[1] == 'b', "the child has another memory");
	victim_reap(program);
	victim_ok();
	return 0;
}
