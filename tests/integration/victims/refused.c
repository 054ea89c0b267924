/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Objects that cannot be checkpointed yet, one per run: argv[2] names it. It is made, and after the
 * checkpoint was refused it must still work.
 */
#include <linux/io_uring.h>
#include <linux/mempolicy.h>
#include <linux/userfaultfd.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>

#include "pass.h"

static int fd = -1, other = -1;
static pid_t child = -1;
static char path[256];

static void file(void)
{
	snprintf(path, sizeof(path), "%s.file", victim_path);
	fd = must(open(path, O_RDWR | O_CREAT, 0600));
	check(write(fd, "content", 7) == 7, "write");
}

static void check_content(int from)
{
	char text[8] = "";

	check(pread(from, text, 7, 0) == 7 && strcmp(text, "content") == 0, "content: %s", text);
}

/* Listening, with a client that nobody has accepted. */
static void named_socket(void)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "\0victim"};

	fd = must(socket(AF_UNIX, SOCK_STREAM, 0));
	must(bind(fd, (struct sockaddr *)&name, sizeof(name)));
	must(listen(fd, 5));
	other = must(socket(AF_UNIX, SOCK_STREAM, 0));
	must(connect(other, (struct sockaddr *)&name, sizeof(name)));
}

static void named_socket_verify(void)
{
	char text[8] = "";
	int accepted = must(accept(fd, NULL, NULL));

	must(write(other, "content", 7));
	check(read(accepted, text, 7) == 7 && strcmp(text, "content") == 0, "text: %s", text);
}

/* A descriptor that is nowhere but in a message. */
static void send_file(void)
{
	int ends[2];

	must(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
	pass(ends[0], "x", &fd, 1);
	fd = ends[0];
	other = ends[1];
}

static void tcp_socket(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(4711)};

	fd = must(socket(AF_INET, SOCK_STREAM, 0));
	must(bind(fd, (struct sockaddr *)&address, sizeof(address)));
	must(listen(fd, 5));
}

static void tcp_socket_verify(void)
{
	struct sockaddr_in address;
	socklen_t length = sizeof(address);

	must(getsockname(fd, (struct sockaddr *)&address, &length));
	check(ntohs(address.sin_port) == 4711, "port %d", ntohs(address.sin_port));
}

static void in_flight(void)
{
	tcp_socket();
	send_file();
}

static void in_flight_verify(void)
{
	char control[CMSG_SPACE(sizeof(int))], byte;
	struct iovec iov = {&byte, 1};
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};

	must(recvmsg(other, &message, 0));
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
	tcp_socket_verify();
}

static void inotify(void)
{
	fd = must(inotify_init1(0));
	must(inotify_add_watch(fd, "/tmp", IN_CREATE));
}

static void inotify_verify(void)
{
	char buffer[4096];

	must(close(must(open("/tmp/created", O_CREAT | O_WRONLY, 0600))));
	check(read(fd, buffer, sizeof(buffer)) > 0, "event");
}

static void absent(void)
{
	victim_say("absent");
	exit(0);
}

static void io_uring(void)
{
	struct io_uring_params params = {0};

	fd = syscall(SYS_io_uring_setup, 4, &params);
	if (fd < 0)
		absent();
}

static void io_uring_verify(void)
{
	check(fcntl(fd, F_GETFD) >= 0, "closed");
}

static char *secret;

static void secretmem(void)
{
	fd = syscall(SYS_memfd_secret, 0);
	if (fd < 0)
		absent();
	must(ftruncate(fd, 4096));
	secret = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	check(secret != MAP_FAILED, "mmap");
	strcpy(secret, "secret");
}

static void secretmem_verify(void)
{
	check(strcmp(secret, "secret") == 0, "content: %s", secret);
}

/* Nobody has it open any more. */
static void secretmem_mapped(void)
{
	secretmem();
	must(close(fd));
}

static void userfaultfd(void)
{
	struct uffdio_api api = {.api = UFFD_API};

	fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		absent();
	must(ioctl(fd, UFFDIO_API, &api));
}

static void userfaultfd_verify(void)
{
	check(fcntl(fd, F_GETFD) >= 0, "closed");
}

static void userfaultfd_mapping(void)
{
	struct uffdio_register range = {.mode = UFFDIO_REGISTER_MODE_MISSING};

	userfaultfd();
	secret = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(secret != MAP_FAILED, "mmap");
	range.range.start = (uintptr_t)secret;
	range.range.len = 4096;
	must(ioctl(fd, UFFDIO_REGISTER, &range));
}

/* A page that is missing is still the program's to bring in. */
static void userfaultfd_mapping_verify(void)
{
	char page[4096] = "brought in";
	struct uffdio_copy copy = {
		.dst = (uintptr_t)secret, .src = (uintptr_t)page, .len = sizeof(page)};

	must(ioctl(fd, UFFDIO_COPY, &copy));
	check(strcmp(secret, "brought in") == 0, "content: %s", secret);
}

static void unmap_special(const char *name)
{
	static char maps[65536];
	unsigned long start, end;
	char *at;

	victim_read("/proc/self/maps", maps, sizeof(maps));
	at = strstr(maps, name);
	while (at > maps && at[-1] != '\n')
		at--;
	check(at && sscanf(at, "%lx-%lx", &start, &end) == 2, "maps");
	must(munmap((void *)start, end - start));
}

static void unmapped_vdso(void)
{
	unmap_special("[vdso]");
}

static void unmapped_vdso_verify(void)
{
	must(getpid());
}

/* The child has them again, as everybody who executes a program. */
static void unmapped_vvar(void)
{
	unmap_special("[vvar]");
	child = must(fork());
	if (child == 0)
		must(execl("/bin/sleep", "sleep", "1000", NULL));
	victim_nap(50);
}

static void unmapped_vvar_verify(void)
{
	check(waitpid(child, NULL, WNOHANG) == 0, "the child has ended");
	must(kill(child, SIGKILL));
	check(waitpid(child, NULL, 0) == child, "waitpid");
}

/* Little on the disk, and yet more than the test allows. */
static void large_deleted_file(void)
{
	char block[4096] = "content";

	file();
	must(unlink(path));
	for (int i = 0; i < 512; i++)
		check(write(fd, block, sizeof(block)) == sizeof(block), "write");
	check(pwrite(fd, "content", 7, 0) == 7, "pwrite");
}

static void large_deleted_file_verify(void)
{
	check_content(fd);
}

static void pty(void)
{
	fd = must(posix_openpt(O_RDWR | O_NOCTTY));
	must(grantpt(fd));
	must(unlockpt(fd));
	other = must(open(ptsname(fd), O_RDWR | O_NOCTTY));
}

static void pty_verify(void)
{
	char text[8] = "";

	must(write(fd, "line\n", 5));
	check(read(other, text, 5) == 5 && strcmp(text, "line\n") == 0, "text: %s", text);
}

static void sleep_on(void *unused)
{
	(void)unused;
	for (;;)
		pause();
}

static void traced(void)
{
	child = victim_child(sleep_on, NULL);
	must(ptrace(PTRACE_SEIZE, child, NULL, NULL));
}

static void traced_verify(void)
{
	int status;

	must(ptrace(PTRACE_INTERRUPT, child, NULL, NULL));
	check(waitpid(child, &status, __WALL) == child && WIFSTOPPED(status), "%#x", status);
	must(kill(child, SIGKILL));
}

static void namespace(void)
{
	must(unshare(CLONE_NEWUTS));
	must(sethostname("inner", 5));
}

static void namespace_verify(void)
{
	char name[64];

	must(gethostname(name, sizeof(name)));
	check(strcmp(name, "inner") == 0, "host name %s", name);
}

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

/* For children that are yet to come: the process itself is where it was. */
static void clocks_for_children(void)
{
	must(unshare(CLONE_NEWTIME));
}

static void clocks_for_children_verify(void)
{
	struct stat own, children;

	must(stat("/proc/self/ns/time", &own));
	must(stat("/proc/self/ns/time_for_children", &children));
	check(own.st_ino != children.st_ino, "the namespace is gone");
}

/* Of a thread that is not the first: what /proc/PID/ns shows is not all there is. */
static pthread_barrier_t apart;

static void *name_of_its_own(void *unused)
{
	char name[64];

	namespace();
	pthread_barrier_wait(&apart);
	pthread_barrier_wait(&apart);
	must(gethostname(name, sizeof(name)));
	check(strcmp(name, "inner") == 0, "host name %s", name);
	pthread_barrier_wait(&apart);
	return unused;
}

static void namespace_of_thread(void)
{
	pthread_t thread;

	pthread_barrier_init(&apart, NULL, 2);
	check(pthread_create(&thread, NULL, name_of_its_own, NULL) == 0, "pthread_create");
	pthread_barrier_wait(&apart);
}

static void namespace_of_thread_verify(void)
{
	pthread_barrier_wait(&apart);
	pthread_barrier_wait(&apart);
}

static void mount_point(void)
{
	must(mount("none", "/mnt", "ramfs", 0, NULL));
	must(close(must(open("/mnt/file", O_CREAT | O_WRONLY, 0600))));
}

static void mount_point_verify(void)
{
	must(access("/mnt/file", F_OK));
	must(umount("/mnt"));
}

/* Its name leads to the directory that the mount point was before. */
static void hidden_directory(void)
{
	must(mount("none", "/mnt", "tmpfs", 0, NULL));
	must(chdir("/mnt"));
	must(umount2("/mnt", MNT_DETACH));
	must(close(must(open("file", O_CREAT | O_WRONLY, 0600))));
}

static void hidden_directory_verify(void)
{
	must(access("file", F_OK));
	check(access("/mnt/file", F_OK) < 0, "the file is visible");
}

static void *start_by_vfork(void *ready)
{
	if (vfork() == 0) {
		child = getpid();
		*(volatile int *)ready = 1;
		for (;;)
			pause();
	}
	return NULL;
}

static pthread_t starter;

/* The thread that has started it cannot be stopped; after a second it is clear that this lasts. */
static void lasting_vfork(void)
{
	static volatile int ready;

	check(pthread_create(&starter, NULL, start_by_vfork, (void *)&ready) == 0, "create");
	while (!ready)
		victim_nap(1);
	victim_nap(2100);
}

static void lasting_vfork_verify(void)
{
	must(kill(child, SIGKILL));
	check(pthread_join(starter, NULL) == 0, "join");
	check(waitpid(child, NULL, 0) == child, "waitpid");
}

static int pause_for_ever(void *unused)
{
	return unused ? 1 : pause();
}

static pid_t orphan; /* in memory that both have */

static int leave_orphan(void *stack)
{
	must(setsid());
	orphan = must(clone(pause_for_ever, stack, CLONE_VM | SIGCHLD, NULL));
	return 0;
}

/* Who was in between has made a session, and is a zombie, which has no memory to hand on. */
static void memory_behind_zombie(void)
{
	char *stacks = victim_shared(131072);
	siginfo_t info;

	child = must(clone(leave_orphan, stacks + 131072, CLONE_VM | SIGCHLD, stacks + 65536));
	must(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT));
}

static void memory_behind_zombie_verify(void)
{
	must(kill(orphan, SIGKILL));
	check(waitpid(child, NULL, 0) == child, "waitpid");
}

/* A queue that nobody has open is there all the same. */
static mqd_t posix_queue = -1;

static void open_posix_queue(void)
{
	posix_queue = mq_open("/victim", O_RDWR | O_CREAT, 0600, NULL);
	if (posix_queue < 0 && errno == ENOSYS)
		absent();
	must(posix_queue);
	must(mq_send(posix_queue, "content", 7, 1));
}

static void check_posix_queue(void)
{
	char text[8192] = "";

	check(mq_receive(posix_queue, text, sizeof(text), NULL) == 7, "receive");
	check(strcmp(text, "content") == 0, "content: %s", text);
}

static void posix_message_queue(void)
{
	open_posix_queue();
	must(mq_close(posix_queue));
}

static void posix_message_queue_verify(void)
{
	posix_queue = must(mq_open("/victim", O_RDWR));
	check_posix_queue();
	must(mq_unlink("/victim"));
}

static void unlinked_posix_queue(void)
{
	open_posix_queue();
	must(mq_unlink("/victim"));
}

/* Of the memory itself, not of who maps it. */
static void shared_numa_policy(void)
{
	unsigned long first = 1;

	secret = victim_shared(4096);
	strcpy(secret, "content");
	if (syscall(SYS_mbind, secret, 4096, MPOL_PREFERRED, &first, 8, 0) < 0 && errno == ENOSYS)
		absent();
}

static void shared_numa_policy_verify(void)
{
	int mode = -1;

	must(syscall(SYS_get_mempolicy, &mode, NULL, 0, secret, MPOL_F_ADDR));
	check(mode == MPOL_PREFERRED, "policy %d", mode);
	check(strcmp(secret, "content") == 0, "content: %s", secret);
}

static const struct victim_state objects[] = {
	{"named_socket", named_socket, named_socket_verify},
	{"in_flight", in_flight, in_flight_verify},
	{"tcp_socket", tcp_socket, tcp_socket_verify},
	{"inotify", inotify, inotify_verify},
	{"io_uring", io_uring, io_uring_verify},
	{"secretmem", secretmem, secretmem_verify},
	{"secretmem_mapped", secretmem_mapped, secretmem_verify},
	{"userfaultfd", userfaultfd, userfaultfd_verify},
	{"userfaultfd_mapping", userfaultfd_mapping, userfaultfd_mapping_verify},
	{"unmapped_vdso", unmapped_vdso, unmapped_vdso_verify},
	{"unmapped_vvar", unmapped_vvar, unmapped_vvar_verify},
	{"large_deleted_file", large_deleted_file, large_deleted_file_verify},
	{"pty", pty, pty_verify},
	{"vfork", lasting_vfork, lasting_vfork_verify},
	{"memory_behind_zombie", memory_behind_zombie, memory_behind_zombie_verify},
	{"traced", traced, traced_verify},
	{"namespace", namespace, namespace_verify},
	{"clocks_for_children", clocks_for_children, clocks_for_children_verify},
	{"namespace_of_thread", namespace_of_thread, namespace_of_thread_verify},
	{"posix_message_queue", posix_message_queue, posix_message_queue_verify},
	{"unlinked_posix_queue", unlinked_posix_queue, check_posix_queue},
	{"shared_numa_policy", shared_numa_policy, shared_numa_policy_verify},
	{"mount_point", mount_point, mount_point_verify},
	{"hidden_directory", hidden_directory, hidden_directory_verify},
};

int main(int argc, char **argv)
{
	return victim_of(objects, sizeof(objects) / sizeof(objects[0]), argc, argv);
}
