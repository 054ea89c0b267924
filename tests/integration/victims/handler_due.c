/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * System calls that a signal ends: SIGUSR1, which a test sends to all of these processes, while they
 * stand or before. Each handles it once, and then sees its EINTR once.
 */
#include <signal.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "victim.h"

enum { HOUR = 3600 };

static const struct timespec hour = {HOUR, 0};
static volatile sig_atomic_t caught;
static uint32_t *arrived;
static int held, set;
static char lock_path[256];

static void on_signal(int signal)
{
	(void)signal;
	caught++;
}

static long wait_at_epoll(void)
{
	struct epoll_event event;

	return epoll_wait(must(epoll_create1(0)), &event, 1, HOUR * 1000);
}

static long wait_at_epoll_endless(void)
{
	struct epoll_event event;

	return epoll_wait(must(epoll_create1(0)), &event, 1, -1);
}

static long wait_at_epoll_timespec(void)
{
	struct epoll_event event;

	return syscall(SYS_epoll_pwait2, must(epoll_create1(0)), &event, 1, &hour, NULL, 8);
}

static long wait_for_another_signal(void)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGUSR2);
	return sigtimedwait(&signals, NULL, &hour);
}

static long take_semaphore(void)
{
	struct sembuf take = {.sem_op = -1};

	return semop(set, &take, 1);
}

static long take_semaphore_in_time(void)
{
	struct sembuf take = {.sem_op = -1};

	return semtimedop(set, &take, 1, &hour);
}

static long read_socket(void)
{
	struct timeval limit = {HOUR, 0};
	int pair[2];
	char byte;

	must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	must(setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)));
	return read(pair[0], &byte, 1);
}

static long wait_for_flock(void)
{
	return flock(must(open(lock_path, O_RDWR)), LOCK_EX);
}

static long wait_for_posix_lock(void)
{
	struct flock whole = {.l_type = F_WRLCK};

	return fcntl(must(open(lock_path, O_RDWR)), F_SETLKW, &whole);
}

static const struct call {
	const char *name;
	long (*make)(void);
} calls[] = {
	{"epoll_wait", wait_at_epoll},
	{"epoll_wait without end", wait_at_epoll_endless},
	{"epoll_pwait2", wait_at_epoll_timespec},
	{"sigtimedwait", wait_for_another_signal},
	{"semop", take_semaphore},
	{"semtimedop", take_semaphore_in_time},
	{"read of a socket", read_socket},
	{"flock", wait_for_flock},
	{"fcntl", wait_for_posix_lock},
};

enum { CALLS = sizeof(calls) / sizeof(calls[0]) };

static void run(void *argument)
{
	struct sigaction action = {.sa_handler = on_signal};
	const struct call *call = argument;

	must(close(held));
	must(sigaction(SIGUSR1, &action, NULL));
	victim_arrive(arrived);
	check(call->make() < 0 && errno == EINTR, "%s: %s", call->name, strerror(errno));
	check(caught == 1, "%s: %d signals", call->name, caught);
}

int main(int argc, char **argv)
{
	struct flock whole = {.l_type = F_WRLCK};
	pid_t pids[CALLS];

	victim_init(argc, argv);
	arrived = victim_shared(4096);
	/* the signal is for the children */
	signal(SIGUSR1, SIG_IGN);
	snprintf(lock_path, sizeof(lock_path), "%s.lock", victim_path);
	held = must(open(lock_path, O_RDWR | O_CREAT, 0600));
	must(flock(held, LOCK_EX));
	must(fcntl(held, F_SETLK, &whole));
	set = must(semget(IPC_PRIVATE, 1, 0600));
	for (int i = 0; i < CALLS; i++)
		pids[i] = victim_child(run, (void *)&calls[i]);
	victim_meet(arrived, CALLS);
	victim_nap(100);
	victim_ready();
	for (int i = 0; i < CALLS; i++)
		victim_reap(pids[i]);
	must(semctl(set, 0, IPC_RMID));
	victim_ok();
	return 0;
}
