/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * System calls that wait until somebody does something: the parent, when it is told to go on. None
 * returns before, and none says EINTR. Those with an end of their own are in restart_block.c and
 * socket_wait.c, those for locks in lock_waiter.c.
 */
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

#include "victim.h"

enum { PIPE_SIZE = 4096, SEMAPHORES = 2 };

struct shared {
	uint32_t arrived, done; /* how many */
	uint32_t word;		/* a futex */
};

static struct shared *shared;
static int event, timer, full[2], copied[2][2], pair[2], listener_pipe[2], locked, queue, set;
static char fifo[256];

static void read_event(void)
{
	uint64_t count;

	check(read(event, &count, sizeof(count)) == sizeof(count), "eventfd: %s", strerror(errno));
}

static void read_timer(void)
{
	uint64_t count;

	check(read(timer, &count, sizeof(count)) == sizeof(count), "timerfd: %s", strerror(errno));
}

static void read_signal(void)
{
	struct signalfd_siginfo info;
	sigset_t signals;
	int fd;

	sigemptyset(&signals);
	sigaddset(&signals, SIGUSR2);
	fd = must(signalfd(-1, &signals, 0));
	check(read(fd, &info, sizeof(info)) == sizeof(info), "signalfd: %s", strerror(errno));
}

static void wait_for_signal(void)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGUSR2);
	check(sigwaitinfo(&signals, NULL) == SIGUSR2, "sigwaitinfo: %s", strerror(errno));
}

static void receive(void)
{
	char byte;

	check(recv(pair[0], &byte, 1, 0) == 1, "recv: %s", strerror(errno));
}

static void write_pipe(void)
{
	check(write(full[1], "x", 1) == 1, "write: %s", strerror(errno));
}

static void splice_pipe(void)
{
	check(splice(copied[0][0], NULL, copied[1][1], NULL, 1, 0) == 1, "splice: %s",
	      strerror(errno));
}

static void open_fifo(void)
{
	close(must(open(fifo, O_WRONLY)));
}

static void wait_for_lock(void)
{
	int fd = must(open(victim_path, O_RDONLY));

	check(flock(fd, LOCK_EX) == 0, "flock: %s", strerror(errno));
	close(fd);
}

static struct pollfd readable(void)
{
	return (struct pollfd){listener_pipe[0], POLLIN, 0};
}

static void poll_endless(void)
{
	struct pollfd fd = readable();

	check(poll(&fd, 1, -1) == 1, "poll: %s", strerror(errno));
}

static void ppoll_endless(void)
{
	struct pollfd fd = readable();
	sigset_t signals;

	sigfillset(&signals);
	check(ppoll(&fd, 1, NULL, &signals) == 1, "ppoll: %s", strerror(errno));
}

static void select_endless(void)
{
	fd_set fds;

	FD_ZERO(&fds);
	FD_SET(listener_pipe[0], &fds);
	check(select(listener_pipe[0] + 1, &fds, NULL, NULL, NULL) == 1, "select: %s",
	      strerror(errno));
}

static void epoll_endless(void)
{
	struct epoll_event wanted = {.events = EPOLLIN};
	int fd = must(epoll_create1(0));

	must(epoll_ctl(fd, EPOLL_CTL_ADD, listener_pipe[0], &wanted));
	check(epoll_wait(fd, &wanted, 1, -1) == 1, "epoll_wait: %s", strerror(errno));
	close(fd);
}

static void futex_endless(void)
{
	check(syscall(SYS_futex, &shared->word, FUTEX_WAIT, 0, NULL, NULL, 0) == 0, "futex: %s",
	      strerror(errno));
}

static void wait_for_child(void)
{
	siginfo_t info;
	pid_t child = must(fork());

	if (!child) {
		read_event();
		_exit(7);
	}
	check(waitid(P_PID, child, &info, WEXITED) == 0, "waitid: %s", strerror(errno));
	check(info.si_status == 7, "status %d", info.si_status);
}

struct message {
	long type;
	char text[8];
};

static void receive_message(void)
{
	struct message message;

	check(msgrcv(queue, &message, sizeof(message.text), 3, 0) == 2, "msgrcv: %s",
	      strerror(errno));
}

static void take_semaphore(void)
{
	struct sembuf take = {.sem_num = 0, .sem_op = -1};

	check(semop(set, &take, 1) == 0, "semop: %s", strerror(errno));
}

static void take_semaphore_in_time(void)
{
	struct sembuf take = {.sem_num = 1, .sem_op = -1};
	struct timespec hour = {3600, 0};

	check(semtimedop(set, &take, 1, &hour) == 0, "semtimedop: %s", strerror(errno));
}

static void (*const calls[])(void) = {
	read_event,	 read_timer,	 read_signal,
	wait_for_signal, receive,	 write_pipe,
	splice_pipe,	 open_fifo,	 wait_for_lock,
	poll_endless,	 ppoll_endless,	 select_endless,
	epoll_endless,	 futex_endless,	 wait_for_child,
	receive_message, take_semaphore, take_semaphore_in_time,
};

enum { CALLS = sizeof(calls) / sizeof(calls[0]) };

static void run(void *argument)
{
	void (*const *call)(void) = argument;

	victim_arrive(&shared->arrived);
	(*call)();
	check(victim_told_to_go(), "call %ld was over too early", (long)(call - calls));
	victim_arrive(&shared->done);
}

static void prepare(void)
{
	struct sembuf none = {.sem_op = 0};
	sigset_t signals;
	char page[PIPE_SIZE] = {0};

	event = must(eventfd(0, EFD_SEMAPHORE));
	timer = must(timerfd_create(CLOCK_MONOTONIC, 0));
	must(pipe(full));
	must(fcntl(full[1], F_SETPIPE_SZ, PIPE_SIZE));
	check(write(full[1], page, PIPE_SIZE) == PIPE_SIZE, "write");
	must(pipe(copied[0]));
	must(pipe(copied[1]));
	must(pipe(listener_pipe));
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	snprintf(fifo, sizeof(fifo), "%s.fifo", victim_path);
	must(mkfifo(fifo, 0600));
	locked = must(open(victim_path, O_RDONLY | O_CLOEXEC));
	must(flock(locked, LOCK_EX));
	queue = must(msgget(IPC_PRIVATE, 0600));
	set = must(semget(IPC_PRIVATE, SEMAPHORES, 0600));
	must(semop(set, &none, 1));
	/* both for signalfd and for sigwaitinfo, in the children */
	sigemptyset(&signals);
	sigaddset(&signals, SIGUSR2);
	sigprocmask(SIG_BLOCK, &signals, NULL);
}

static void end_all(const pid_t *pids)
{
	struct itimerspec soon = {.it_value = {.tv_nsec = 1}};
	struct message message = {.type = 3, .text = "ab"};
	struct sembuf give[SEMAPHORES] = {{.sem_num = 0, .sem_op = 1}, {.sem_num = 1, .sem_op = 1}};
	uint64_t two = 2;
	char page[PIPE_SIZE];

	check(write(event, &two, sizeof(two)) == sizeof(two), "write");
	must(timerfd_settime(timer, 0, &soon, NULL));
	must(kill(pids[2], SIGUSR2));
	must(kill(pids[3], SIGUSR2));
	check(write(pair[1], "x", 1) == 1, "write");
	check(read(full[0], page, sizeof(page)) == PIPE_SIZE, "read");
	check(write(copied[0][1], "x", 1) == 1, "write");
	must(open(fifo, O_RDONLY));
	must(flock(locked, LOCK_UN));
	check(write(listener_pipe[1], "x", 1) == 1, "write");
	shared->word = 1;
	must(syscall(SYS_futex, &shared->word, FUTEX_WAKE, 1, NULL, NULL, 0));
	must(msgsnd(queue, &message, 2, 0));
	must(semop(set, give, SEMAPHORES));
}

int main(int argc, char **argv)
{
	pid_t pids[CALLS];

	victim_init(argc, argv);
	shared = victim_shared(4096);
	prepare();
	for (int i = 0; i < CALLS; i++)
		pids[i] = victim_child(run, (void *)&calls[i]);
	victim_meet(&shared->arrived, CALLS);
	victim_nap(100);
	victim_ready();
	victim_wait();
	check(shared->done == 0, "%u calls are over", shared->done);
	end_all(pids);
	for (int i = 0; i < CALLS; i++)
		victim_reap(pids[i]);
	must(msgctl(queue, IPC_RMID, NULL));
	must(semctl(set, 0, IPC_RMID));
	victim_ok();
	return 0;
}
