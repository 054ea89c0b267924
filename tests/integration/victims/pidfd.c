/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pidfds: of a child, of oneself, of a thread, of a zombie, and of who has been waited for. */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "victim.h"

#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL
#endif

struct exit_info {
	uint64_t mask, cgroup;
	uint32_t ids[11];
	int32_t exit_code;
};

enum { EXIT_INFO = 1 << 3 };

static int open_pid(pid_t pid, int flags)
{
	return must(syscall(SYS_pidfd_open, pid, flags));
}

static int send(int fd, int signal)
{
	return syscall(SYS_pidfd_send_signal, fd, signal, NULL, 0);
}

static bool has_ended(int fd)
{
	struct pollfd ready = {.fd = fd, .events = POLLIN};

	return must(poll(&ready, 1, 0)) == 1;
}

static void end_with_7(void *unused)
{
	(void)unused;
	_exit(7);
}

static void end_by_term(void *unused)
{
	(void)unused;
	kill(getpid(), SIGTERM);
}

static void sleep_on(void *unused)
{
	(void)unused;
	for (;;)
		pause();
}

static volatile pid_t thread_id;

static void *thread(void *unused)
{
	(void)unused;
	thread_id = gettid();
	sleep_on(NULL);
	return NULL;
}

/* A descriptor for a child that is dead and gone. */
static int dead(void (*function)(void *))
{
	pid_t pid = victim_child(function, NULL);
	int fd = open_pid(pid, O_NONBLOCK);

	check(waitpid(pid, NULL, 0) == pid, "waitpid");
	return fd;
}

/* A child that has ended, and that nobody has waited for yet. */
static int zombie(void)
{
	pid_t pid = victim_child(end_with_7, NULL);
	siginfo_t info;

	must(waitid(P_PID, pid, &info, WEXITED | WNOWAIT));
	return open_pid(pid, 0);
}

static void check_zombie(int fd)
{
	siginfo_t info = {0};

	check(has_ended(fd), "a zombie has not ended");
	must(waitid(P_PIDFD, fd, &info, WEXITED));
	check(info.si_code == CLD_EXITED && info.si_status == 7, "a zombie's status is %d",
	      info.si_status);
}

/* Kernels before 6.15 tell nothing about it. */
static int status_of(int fd, int otherwise)
{
	struct exit_info info = {.mask = EXIT_INFO};

	if (ioctl(fd, _IOWR(0xFF, 11, struct exit_info), &info) < 0 || !(info.mask & EXIT_INFO))
		return otherwise;
	return info.exit_code;
}

static void check_dead(int fd, int status, bool told)
{
	siginfo_t info;

	check(send(fd, 0) < 0 && errno == ESRCH, "a dead process gets signals");
	check(has_ended(fd), "a dead process has not ended");
	check(waitid(P_PIDFD, fd, &info, WEXITED) < 0 && errno == ECHILD, "a dead process is one");
	check(fcntl(fd, F_GETFL) & O_NONBLOCK, "O_NONBLOCK lost");
	if (told)
		check(status_of(fd, -1) == status, "status %#x", status_of(fd, -1));
}

static void check_live(int fd, pid_t pid)
{
	siginfo_t info = {0};

	check(!has_ended(fd), "a live process has ended");
	must(send(fd, SIGKILL));
	must(waitid(P_PIDFD, fd, &info, WEXITED));
	check(info.si_pid == pid && info.si_status == SIGKILL, "process %d, status %d", info.si_pid,
	      info.si_status);
	check(has_ended(fd), "a dead process has not ended");
}

static void check_thread(int fd)
{
	char path[64], text[1024], *line;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	victim_read(path, text, sizeof(text));
	line = strstr(text, "\nPid:");
	check(line && atoi(line + 5) == thread_id, "the thread is another one");
	check(!has_ended(fd), "the thread has ended");
}

int main(int argc, char **argv)
{
	int self, live, copy, seven, again, term, thread_fd, undead;
	pthread_t other;
	char path[64];
	bool told;
	pid_t pid;

	victim_init(argc, argv);
	check(pthread_create(&other, NULL, thread, NULL) == 0, "pthread_create");
	while (!thread_id)
		victim_nap(1);
	self = open_pid(getpid(), 0);
	thread_fd = syscall(SYS_pidfd_open, thread_id, PIDFD_THREAD);
	check(thread_fd >= 0 || errno == EINVAL, "PIDFD_THREAD: %s", strerror(errno));
	pid = victim_child(sleep_on, NULL);
	live = open_pid(pid, 0);
	copy = must(dup(live));
	seven = dead(end_with_7);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", seven);
	again = open(path, O_RDWR | O_NONBLOCK);
	term = dead(end_by_term);
	undead = zombie();
	told = status_of(seven, -1) == 7 << 8;
	victim_ready();
	victim_wait();
	must(send(self, 0));
	check(fcntl(self, F_GETFD) & FD_CLOEXEC, "FD_CLOEXEC lost");
	if (thread_fd >= 0)
		check_thread(thread_fd);
	check_live(live, pid);
	check(has_ended(copy), "the duplicate is another one");
	check_dead(seven, 7 << 8, told);
	check_dead(term, SIGTERM, told);
	check_zombie(undead);
	if (again >= 0)
		check_dead(again, 7 << 8, told);
	victim_ok();
	return 0;
}
