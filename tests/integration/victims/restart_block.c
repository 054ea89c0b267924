/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * System calls that sleep while the checkpoint is taken: none returns EINTR, none is early, and the
 * time that the container was away counts for none of them.
 */
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>

#include "ticker.h"

enum { SECONDS = 3 };

static const int64_t nominal = SECONDS * 1000000000LL;
static struct ticker *ticker;
static int empty[2]; /* a pipe that nobody writes to */
static int late[2];  /* a pipe that is written to after the nominal time */
static char fifo[256];
static uint32_t *word; /* a futex that nobody wakes */
static uint32_t *arrived;

static void sleep_relative(void)
{
	struct timespec time = {SECONDS, 0};

	check(nanosleep(&time, NULL) == 0, "nanosleep: %s", strerror(errno));
}

static void sleep_with_remainder(void)
{
	struct timespec time = {SECONDS, 0}, left = {77, 77};

	check(clock_nanosleep(CLOCK_MONOTONIC, 0, &time, &left) == 0, "clock_nanosleep");
}

static void sleep_realtime(void)
{
	struct timespec time = {SECONDS, 0};

	check(clock_nanosleep(CLOCK_REALTIME, 0, &time, NULL) == 0, "clock_nanosleep");
}

static void poll_milliseconds(void)
{
	struct pollfd fd = {empty[0], POLLIN, 0};

	check(poll(&fd, 1, SECONDS * 1000) == 0, "poll: %s", strerror(errno));
}

static void poll_timespec(void)
{
	struct pollfd fd = {empty[0], POLLIN, 0};
	struct timespec time = {SECONDS, 0};

	check(ppoll(&fd, 1, &time, NULL) == 0, "ppoll: %s", strerror(errno));
}

static void select_timeval(void)
{
	struct timeval time = {SECONDS, 0};
	fd_set set;

	FD_ZERO(&set);
	FD_SET(empty[0], &set);
	check(select(empty[0] + 1, &set, NULL, NULL, &time) == 0, "select: %s", strerror(errno));
}

static void select_timespec(void)
{
	struct timespec time = {SECONDS, 0};

	check(pselect(0, NULL, NULL, NULL, &time, NULL) == 0, "pselect: %s", strerror(errno));
}

/* Where the kernel cannot note what is left: constants, in memory that cannot be written. */
static const struct timespec constant = {SECONDS, 0};

static void poll_constant(void)
{
	struct pollfd fd = {empty[0], POLLIN, 0};

	check(syscall(SYS_ppoll, &fd, 1, &constant, NULL, 8) == 0, "ppoll: %s", strerror(errno));
}

static void select_constant(void)
{
	check(syscall(SYS_pselect6, 0, NULL, NULL, NULL, &constant, NULL) == 0, "pselect: %s",
	      strerror(errno));
}

static void futex_relative(void)
{
	struct timespec time = {SECONDS, 0};

	check(syscall(SYS_futex, word, FUTEX_WAIT, 0, &time, NULL, 0) < 0 && errno == ETIMEDOUT,
	      "futex: %s", strerror(errno));
}

static void wait_for_signal(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	check(sigtimedwait(&set, NULL, &constant) < 0 && errno == EAGAIN, "sigtimedwait: %s",
	      strerror(errno));
	check(constant.tv_sec == SECONDS && !constant.tv_nsec, "the constant has changed");
}

/* The same on a small stack, with somebody else's memory right below it. */
enum { STACK = 16 << 10, BELOW = 256 << 10, PATTERN = 0xa5 };

static void *wait_for_signal_there(void *unused)
{
	wait_for_signal();
	return unused;
}

static void wait_on_small_stack(void)
{
	unsigned char *memory = victim_shared(BELOW + STACK);
	pthread_attr_t attributes;
	pthread_t thread;
	int changed = 0;

	memset(memory, PATTERN, BELOW);
	pthread_attr_init(&attributes);
	check(!pthread_attr_setstack(&attributes, memory + BELOW, STACK), "setstack");
	check(!pthread_create(&thread, &attributes, wait_for_signal_there, NULL), "pthread_create");
	check(!pthread_join(thread, NULL), "pthread_join");
	for (int i = 0; i < BELOW; i++)
		changed += memory[i] != PATTERN;
	check(!changed, "%d bytes below the stack have changed", changed);
}

/* An epoll instance with nothing in it, as it is waited at in three ways. */
static void epoll_milliseconds(void)
{
	struct epoll_event event;
	int fd = must(epoll_create1(0));

	check(epoll_wait(fd, &event, 1, SECONDS * 1000) == 0, "epoll_wait: %s", strerror(errno));
	close(fd);
}

static void epoll_with_mask(void)
{
	struct epoll_event event;
	sigset_t mask, before, now;
	int fd = must(epoll_create1(0));

	sigprocmask(SIG_BLOCK, NULL, &before);
	sigfillset(&mask);
	check(epoll_pwait(fd, &event, 1, SECONDS * 1000, &mask) == 0, "epoll_pwait: %s",
	      strerror(errno));
	sigprocmask(SIG_BLOCK, NULL, &now);
	check(!memcmp(&before, &now, 8), "epoll_pwait has left its mask");
	close(fd);
}

static void epoll_timespec(void)
{
	struct epoll_event event;
	int fd = must(epoll_create1(0));

	check(syscall(SYS_epoll_pwait2, fd, &event, 1, &constant, NULL, 8) == 0, "epoll_pwait2: %s",
	      strerror(errno));
	close(fd);
}

static void wait_for_child(void)
{
	pid_t child = must(fork());
	int status;

	if (child == 0) {
		sleep_relative();
		_exit(33);
	}
	check(wait4(child, &status, 0, NULL) == child, "wait4: %s", strerror(errno));
	check(WEXITSTATUS(status) == 33, "status %#x", status);
}

/* These end when another process acts, after the nominal time. */
static void read_pipe(void)
{
	char byte;

	check(read(late[0], &byte, 1) == 1, "read: %s", strerror(errno));
}

static void open_fifo(void)
{
	int fd = open(fifo, O_RDONLY);

	check(fd >= 0, "open of a fifo: %s", strerror(errno));
	close(fd);
}

static volatile sig_atomic_t caught;

static void catch (int signal)
{
	caught = signal;
}

static void pause_for_signal(void)
{
	check(pause() < 0 && errno == EINTR && caught == SIGUSR1, "pause, signal %d", caught);
}

static void suspend_for_signal(void)
{
	sigset_t none;

	sigemptyset(&none);
	check(sigsuspend(&none) < 0 && caught == SIGUSR1, "sigsuspend, signal %d", caught);
}

static const struct sleeper {
	const char *name;
	void (*call)(void);
	bool signal; /* ended by SIGUSR1 */
} sleepers[] = {
	{"nanosleep", sleep_relative, false},
	{"clock_nanosleep", sleep_with_remainder, false},
	{"clock_nanosleep CLOCK_REALTIME", sleep_realtime, false},
	{"poll", poll_milliseconds, false},
	{"ppoll", poll_timespec, false},
	{"select", select_timeval, false},
	{"pselect", select_timespec, false},
	{"ppoll, constant", poll_constant, false},
	{"pselect, constant", select_constant, false},
	{"futex", futex_relative, false},
	{"rt_sigtimedwait", wait_for_signal, false},
	{"rt_sigtimedwait, small stack", wait_on_small_stack, false},
	{"epoll_wait", epoll_milliseconds, false},
	{"epoll_pwait", epoll_with_mask, false},
	{"epoll_pwait2", epoll_timespec, false},
	{"wait4", wait_for_child, false},
	{"read", read_pipe, false},
	{"open", open_fifo, false},
	{"pause", pause_for_signal, true},
	{"rt_sigsuspend", suspend_for_signal, true},
};

enum { SLEEPERS = sizeof(sleepers) / sizeof(sleepers[0]) };

static void run(void *argument)
{
	const struct sleeper *sleeper = argument;
	int64_t begun = ticker_read(ticker), took;

	victim_arrive(arrived);
	sleeper->call();
	took = ticker_read(ticker) - begun;
	ticker_check(ticker, took, nominal, sleeper->name);
}

/*
 * An absolute deadline is one of the clock that the program sees, which stands while the container
 * is away: it comes when it would have come.
 */
static void run_absolute(void *argument)
{
	clockid_t clock = *(const clockid_t *)argument;
	int64_t begun = ticker_read(ticker), deadline;
	struct timespec time, now;

	must(clock_gettime(clock, &time));
	time.tv_sec += SECONDS;
	deadline = ticker_now() + nominal;
	victim_arrive(arrived);
	check(clock_nanosleep(clock, TIMER_ABSTIME, &time, NULL) == 0, "absolute sleep");
	must(clock_gettime(clock, &now));
	check(now.tv_sec > time.tv_sec ||
		      (now.tv_sec == time.tv_sec && now.tv_nsec >= time.tv_nsec),
	      "absolute sleep ended early");
	check(ticker_now() >= deadline - 1000000, "the clocks have gone apart");
	ticker_check(ticker, ticker_read(ticker) - begun, nominal, "absolute sleep");
}

/* The call that reads the clock, and the page by which programs read it, tell the same time. */
static void check_clock(clockid_t clock)
{
	struct timespec page, call, later;

	must(clock_gettime(clock, &page));
	must(syscall(SYS_clock_gettime, clock, &call));
	must(clock_gettime(clock, &later));
	check((call.tv_sec - page.tv_sec) * 1000000000LL + call.tv_nsec - page.tv_nsec >= 0 &&
		      (later.tv_sec - call.tv_sec) * 1000000000LL + later.tv_nsec - call.tv_nsec >=
			      0,
	      "clock %d: %lld.%09ld by the page, %lld.%09ld by the call", clock,
	      (long long)page.tv_sec, page.tv_nsec, (long long)call.tv_sec, call.tv_nsec);
}

/* A futex with an absolute deadline, as pthread_cond_timedwait() waits; in a second thread. */
static void *futex_absolute(void *unused)
{
	int64_t begun = ticker_read(ticker);
	int64_t deadline = ticker_now() + nominal;
	struct timespec time = {deadline / 1000000000, deadline % 1000000000};

	(void)unused;
	victim_arrive(arrived);
	check(syscall(SYS_futex, word, FUTEX_WAIT_BITSET, 0, &time, NULL, FUTEX_BITSET_MATCH_ANY) <
			      0 &&
		      errno == ETIMEDOUT,
	      "absolute futex: %s", strerror(errno));
	check(ticker_now() >= deadline, "absolute futex ended early");
	check_clock(CLOCK_MONOTONIC);
	check_clock(CLOCK_BOOTTIME);
	ticker_check(ticker, ticker_read(ticker) - begun, nominal, "absolute futex");
	return NULL;
}

static void run_futex_absolute(void *unused)
{
	pthread_t thread;

	(void)unused;
	check(!pthread_create(&thread, NULL, futex_absolute, NULL), "pthread_create");
	check(!pthread_join(thread, NULL), "pthread_join");
}

/* The new call that waits for several, until an absolute time. */
static void run_futex_waitv(void *unused)
{
	int64_t deadline = ticker_now() + nominal;
	struct timespec time = {deadline / 1000000000, deadline % 1000000000};
	struct futex_waitv waiters[2] = {
		{.uaddr = (uintptr_t)word, .flags = FUTEX_32},
		{.uaddr = (uintptr_t)(word + 2), .flags = FUTEX_32},
	};

	(void)unused;
	victim_arrive(arrived);
	check(syscall(SYS_futex_waitv, waiters, 2, 0, &time, CLOCK_MONOTONIC) < 0 &&
		      errno == ETIMEDOUT,
	      "futex_waitv: %s", strerror(errno));
	check(ticker_now() >= deadline, "futex_waitv ended early");
}

/* A lock with priority inheritance that its owner, the parent, never gives back. */
static void run_futex_pi(void *unused)
{
	struct timespec time;

	(void)unused;
	clock_gettime(CLOCK_REALTIME, &time);
	time.tv_sec += SECONDS;
	victim_arrive(arrived);
	check(syscall(SYS_futex, word + 3, FUTEX_LOCK_PI, 0, &time, NULL, 0) < 0 &&
		      errno == ETIMEDOUT,
	      "FUTEX_LOCK_PI: %s", strerror(errno));
	check((word[3] & FUTEX_TID_MASK) == (uint32_t)getppid(), "the owner is %u", word[3]);
}

int main(int argc, char **argv)
{
	static const clockid_t clocks[] = {CLOCK_MONOTONIC, CLOCK_BOOTTIME};
	pid_t pids[SLEEPERS], others[5];
	sigset_t usr1, old;
	int fd;

	victim_init(argc, argv);
	ticker = ticker_start();
	must(pipe(empty));
	must(pipe(late));
	snprintf(fifo, sizeof(fifo), "%s.fifo", victim_path);
	must(mkfifo(fifo, 0600));
	word = victim_shared(4096);
	arrived = word + 1;
	signal(SIGUSR1, catch);
	/* sigsuspend() must not miss its signal; pause() is met long before its own comes. */
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	for (int i = 0; i < SLEEPERS; i++) {
		sigprocmask(sleepers[i].call == suspend_for_signal ? SIG_BLOCK : SIG_UNBLOCK, &usr1,
			    &old);
		pids[i] = victim_child(run, (void *)&sleepers[i]);
		sigprocmask(SIG_SETMASK, &old, NULL);
	}
	word[3] = getpid();
	others[0] = victim_child(run_absolute, (void *)&clocks[0]);
	others[4] = victim_child(run_absolute, (void *)&clocks[1]);
	others[1] = victim_child(run_futex_absolute, NULL);
	others[2] = victim_child(run_futex_waitv, NULL);
	others[3] = victim_child(run_futex_pi, NULL);
	victim_meet(arrived, SLEEPERS + 5);
	victim_ready();

	sleep_relative();
	check(write(late[1], "x", 1) == 1, "write");
	fd = must(open(fifo, O_WRONLY));
	for (int i = 0; i < SLEEPERS; i++)
		if (sleepers[i].signal)
			must(kill(pids[i], SIGUSR1));
	for (int i = 0; i < SLEEPERS; i++)
		victim_reap(pids[i]);
	close(fd);
	for (int i = 0; i < 5; i++)
		victim_reap(others[i]);
	ticker_stop(ticker);
	victim_wait();
	victim_ok();
	return 0;
}
