/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Waits at sockets with a time-out of their own: none returns EINTR, each ends when it would have
 * ended, several at one socket too, and the option is afterwards what it was.
 */
#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "ticker.h"

enum {
	SECONDS = 3,
	/* the kernel rounds the end of such a wait up, the more the longer it is */
	ROUNDED = 400 * 1000 * 1000,
};

static const int64_t nominal = SECONDS * 1000000000LL;
static const struct timeval limit = {SECONDS, 0};
static struct ticker *ticker;
static uint32_t *arrived;

struct waiter {
	const char *name;
	int type;
	int option;
	ssize_t (*call)(int fd);
};

static char byte;

static ssize_t call_read(int fd)
{
	return read(fd, &byte, 1);
}

static ssize_t call_readv(int fd)
{
	struct iovec iov = {&byte, 1};

	return readv(fd, &iov, 1);
}

static ssize_t call_recv(int fd)
{
	return recv(fd, &byte, 1, 0);
}

static ssize_t call_recvmsg(int fd)
{
	struct iovec iov = {&byte, 1};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

	return recvmsg(fd, &message, MSG_PEEK);
}

static ssize_t call_recvmmsg(int fd)
{
	struct iovec iov = {&byte, 1};
	struct mmsghdr message = {.msg_hdr = {.msg_iov = &iov, .msg_iovlen = 1}};

	return recvmmsg(fd, &message, 1, 0, NULL);
}

static ssize_t call_write(int fd)
{
	return write(fd, &byte, 1);
}

static ssize_t call_sendto(int fd)
{
	return sendto(fd, &byte, 1, MSG_NOSIGNAL, NULL, 0);
}

static ssize_t call_sendmsg(int fd)
{
	struct iovec iov = {&byte, 1};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

	return sendmsg(fd, &message, MSG_NOSIGNAL);
}

static const struct waiter waiters[] = {
	{"read", SOCK_STREAM, SO_RCVTIMEO, call_read},
	{"readv", SOCK_STREAM, SO_RCVTIMEO, call_readv},
	{"recv", SOCK_DGRAM, SO_RCVTIMEO, call_recv},
	{"recvmsg", SOCK_SEQPACKET, SO_RCVTIMEO, call_recvmsg},
	{"recvmmsg", SOCK_DGRAM, SO_RCVTIMEO, call_recvmmsg},
	{"write", SOCK_DGRAM, SO_SNDTIMEO, call_write},
	{"sendto", SOCK_DGRAM, SO_SNDTIMEO, call_sendto},
	{"sendmsg", SOCK_DGRAM, SO_SNDTIMEO, call_sendmsg},
};

enum { WAITERS = sizeof(waiters) / sizeof(waiters[0]) };

/* Until nothing more fits: a number of messages, whatever their size. */
static void fill(int fd)
{
	while (send(fd, &byte, 1, MSG_DONTWAIT) == 1)
		continue;
	check(errno == EAGAIN, "send: %s", strerror(errno));
}

static void check_option(int fd, int option)
{
	struct timeval now;
	socklen_t len = sizeof(now);

	must(getsockopt(fd, SOL_SOCKET, option, &now, &len));
	check(now.tv_sec == limit.tv_sec && now.tv_usec == limit.tv_usec,
	      "the time-out is %lld.%06ld s", (long long)now.tv_sec, (long)now.tv_usec);
}

static void check_wait(int fd, const struct waiter *waiter)
{
	int64_t begun = ticker_read(ticker), took, noise;

	victim_arrive(arrived);
	check(waiter->call(fd) < 0 && errno == EAGAIN, "%s: %s", waiter->name, strerror(errno));
	took = ticker_read(ticker) - begun;
	noise = ticker_noise(ticker);
	check(took >= nominal - TOLERANCE && took <= nominal + ROUNDED + TOLERANCE + noise,
	      "%s took %lld ms of running time (away %lld ms, noise %lld ms)", waiter->name,
	      (long long)took / 1000000, (long long)ticker->away / 1000000,
	      (long long)noise / 1000000);
}

static void run(void *argument)
{
	const struct waiter *waiter = argument;
	int pair[2];

	must(socketpair(AF_UNIX, waiter->type, 0, pair));
	must(setsockopt(pair[0], SOL_SOCKET, waiter->option, &limit, sizeof(limit)));
	if (waiter->option == SO_SNDTIMEO)
		fill(pair[0]);
	check_wait(pair[0], waiter);
	check_option(pair[0], waiter->option);
}

/* Two threads wait at one socket; the second one has begun half a second later. */
static int shared[2];

static void *second(void *unused)
{
	(void)unused;
	victim_nap(500);
	check_wait(shared[0], &waiters[2]);
	return NULL;
}

static void run_shared(void *unused)
{
	pthread_t thread;

	(void)unused;
	must(socketpair(AF_UNIX, SOCK_DGRAM, 0, shared));
	must(setsockopt(shared[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)));
	check(!pthread_create(&thread, NULL, second, NULL), "pthread_create");
	check_wait(shared[0], &waiters[2]);
	check(!pthread_join(thread, NULL), "pthread_join");
	check_option(shared[0], SO_RCVTIMEO);
}

/* A thread with descriptors of its own, of which the first thread has others, or none. */
static void *wait_apart(void *unused)
{
	(void)unused;
	must(unshare(CLONE_FILES));
	run((void *)&waiters[0]);
	return NULL;
}

static void run_apart(void *unused)
{
	pthread_t thread;

	(void)unused;
	check(!pthread_create(&thread, NULL, wait_apart, NULL), "pthread_create");
	check(!pthread_join(thread, NULL), "pthread_join");
}

int main(int argc, char **argv)
{
	pid_t pids[WAITERS], pair, apart;

	victim_init(argc, argv);
	ticker = ticker_start();
	arrived = victim_shared(4096);
	for (int i = 0; i < WAITERS; i++)
		pids[i] = victim_child(run, (void *)&waiters[i]);
	pair = victim_child(run_shared, NULL);
	apart = victim_child(run_apart, NULL);
	victim_meet(arrived, WAITERS + 3);
	victim_ready();

	for (int i = 0; i < WAITERS; i++)
		victim_reap(pids[i]);
	victim_reap(pair);
	victim_reap(apart);
	ticker_stop(ticker);
	victim_wait();
	victim_ok();
	return 0;
}
