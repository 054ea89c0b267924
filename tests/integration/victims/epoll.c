/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Epoll: level, edge and one-shot entries, reported or not; nested instances; outlived numbers. */
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#include "victim.h"

static int make(void)
{
	return must(epoll_create1(EPOLL_CLOEXEC));
}

static void add(int epoll, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event event = {.events = events, .data.u64 = data};

	must(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
}

/* The only thing reported, or 0. */
static uint64_t report(int epoll, int patience)
{
	struct epoll_event events[4];
	int got = must(epoll_wait(epoll, events, 4, patience));

	check(got < 2, "%d events", got);
	return got ? events[0].data.u64 : 0;
}

struct pipe {
	int read, write;
};

static struct pipe make_pipe(const char *content)
{
	int fds[2];

	must(pipe2(fds, O_NONBLOCK));
	must(write(fds[1], content, strlen(content)));
	return (struct pipe){fds[0], fds[1]};
}

/* An instance with one entry, for a pipe. */
struct watch {
	int epoll;
	struct pipe pipe;
};

static struct watch watch(const char *content, uint32_t events)
{
	struct watch made = {make(), make_pipe(content)};

	add(made.epoll, made.pipe.read, EPOLLIN | events, 7);
	return made;
}

static void put(struct watch watch)
{
	must(write(watch.pipe.write, "x", 1));
}

static void empty(struct watch watch)
{
	char byte;

	while (read(watch.pipe.read, &byte, 1) == 1)
		continue;
	check(errno == EAGAIN, "read: %s", strerror(errno));
}

static void rearm(struct watch watch)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 8};

	must(epoll_ctl(watch.epoll, EPOLL_CTL_MOD, watch.pipe.read, &event));
}

static void check_level(struct watch full, struct watch drained)
{
	check(report(full.epoll, 0) == 7 && report(full.epoll, 0) == 7, "level: not reported");
	empty(full);
	check(report(full.epoll, 0) == 0, "level: reported when empty");
	check(report(drained.epoll, 0) == 0, "level: empty");
	put(drained);
	check(report(drained.epoll, 0) == 7, "level: not woken");
}

static void check_edge(struct watch reported, struct watch fresh)
{
	check(report(reported.epoll, 0) == 0, "edge: reported again");
	put(reported);
	check(report(reported.epoll, 0) == 7, "edge: a new one is lost");
	check(report(fresh.epoll, 0) == 7, "edge: lost");
	check(report(fresh.epoll, 0) == 0, "edge: reported twice");
}

static void check_oneshot(struct watch armed, struct watch fired, struct watch drained)
{
	check(report(armed.epoll, 0) == 7 && report(armed.epoll, 0) == 0, "one shot: armed");
	check(report(fired.epoll, 0) == 0, "one shot: fired twice");
	put(fired);
	check(report(fired.epoll, 0) == 0, "one shot: fired twice by more");
	rearm(fired);
	check(report(fired.epoll, 0) == 8, "one shot: armed again");
	close(drained.pipe.write);
	check(report(drained.epoll, 0) == 0, "one shot: hang-up reported");
	rearm(drained);
	check(report(drained.epoll, 0) == 8, "one shot: hang-up when armed again");
}

/* An entry whose number shows something else by now. */
struct outlived {
	int epoll, number, copy;
	struct pipe pipe;
};

static struct outlived outlive(int reuse)
{
	struct outlived made = {.epoll = make(), .pipe = make_pipe("")};

	made.number = must(fcntl(made.pipe.read, F_DUPFD, 700));
	made.copy = made.pipe.read;
	add(made.epoll, made.number, EPOLLIN, 9);
	must(close(made.number));
	if (reuse >= 0)
		check(dup2(reuse, made.number) == made.number, "dup2");
	return made;
}

static void check_outlived(struct outlived outlived)
{
	must(write(outlived.pipe.write, "x", 1));
	check(report(outlived.epoll, 0) == 9, "outlived: not reported");
	check(epoll_ctl(outlived.epoll, EPOLL_CTL_DEL, outlived.copy, NULL) < 0, "wrong number");
	check(dup2(outlived.copy, outlived.number) == outlived.number, "dup2");
	must(epoll_ctl(outlived.epoll, EPOLL_CTL_DEL, outlived.number, NULL));
	check(report(outlived.epoll, 0) == 0, "outlived: deleted and reported");
}

static int make_signalfd(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	must(sigprocmask(SIG_BLOCK, &set, NULL));
	return must(signalfd(-1, &set, SFD_NONBLOCK));
}

static int make_timer(void)
{
	struct itimerspec time = {.it_value = {2, 0}};
	int fd = must(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));

	must(timerfd_settime(fd, 0, &time, NULL));
	return fd;
}

/* What fdinfo shows of the entries, whose order may change. */
static uint64_t entries(int epoll)
{
	char path[64], text[4096], *line;
	uint64_t sum = 0, data;
	unsigned int events;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", epoll);
	victim_read(path, text, sizeof(text));
	for (line = text; (line = strstr(line, "tfd:")); line++) {
		check(sscanf(line, "tfd: %d events: %x data: %lx", &fd, &events, &data) == 3,
		      "fdinfo: %s", line);
		sum += (uint64_t)fd * 1000003 + events * 65537ull + data;
	}
	return sum;
}

/* Blocked in epoll_wait(2) all the time. */
static void child(void *argument)
{
	check(report(*(int *)argument, -1) == 7, "blocked: not woken");
}

int main(int argc, char **argv)
{
	struct watch full, drained, reported, fresh, armed, fired, spent, blocked, inner;
	struct outlived gone, reused;
	int many, outer, edge_outer, signals, expiring, timer;
	uint64_t before;
	pid_t pid;

	victim_init(argc, argv);
	/* before there are pipes that it would hold too */
	blocked = watch("", 0);
	pid = victim_child(child, &blocked.epoll);
	full = watch("x", 0);
	drained = watch("", 0);
	reported = watch("x", EPOLLET);
	check(report(reported.epoll, 0) == 7, "edge");
	fresh = watch("x", EPOLLET);
	armed = watch("x", EPOLLONESHOT);
	fired = watch("x", EPOLLONESHOT);
	check(report(fired.epoll, 0) == 7, "one shot");
	spent = watch("x", EPOLLONESHOT | EPOLLET);
	check(report(spent.epoll, 0) == 7, "one shot");
	empty(spent);
	gone = outlive(-1);
	reused = outlive(must(eventfd(0, 0)));

	inner = watch("x", 0);
	outer = make();
	add(outer, inner.epoll, EPOLLIN, 11);
	edge_outer = make();
	add(edge_outer, inner.epoll, EPOLLIN | EPOLLET, 12);
	check(report(edge_outer, 0) == 12, "nested edge");

	signals = make();
	add(signals, make_signalfd(), EPOLLIN, 13);
	expiring = make();
	timer = make_timer();
	add(expiring, timer, EPOLLIN | EPOLLET, 14);
	many = make();
	for (int i = 0; i < 300; i++)
		add(many, must(eventfd(i == 299, EFD_CLOEXEC)), EPOLLIN | EPOLLEXCLUSIVE, 1000 + i);
	before = entries(signals) + entries(outer) + entries(fired.epoll) + entries(gone.epoll);
	victim_ready();
	victim_wait();
	check(entries(signals) + entries(outer) + entries(fired.epoll) + entries(gone.epoll) ==
		      before,
	      "entries have changed");
	check_level(full, drained);
	check_edge(reported, fresh);
	check_oneshot(armed, fired, spent);
	check_outlived(gone);
	check_outlived(reused);
	check(report(outer, 0) == 11, "nested: not reported");
	check(report(edge_outer, 0) == 0, "nested edge: reported again");
	check(report(signals, 0) == 0, "a signal is reported");
	must(kill(getpid(), SIGUSR1));
	check(report(signals, 1000) == 13, "a signal is not reported");
	check(report(expiring, 5000) == 14, "an expiration is not reported");
	check(report(many, 0) == 1299, "300 eventfds");
	put(blocked);
	victim_reap(pid);
	victim_ok();
	return 0;
}
