/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Processes that share memory, directories, signal handlers or descriptors with their parent, one
 * by one and together, with several exit signals. What one changes the other sees, and only that.
 * One has the memory of its grandparent: who is in between has executed a program since.
 */
#include <sched.h>
#include <signal.h>

#include "victim.h"

enum { STACK = 64 << 10, CHILDREN = 6, OWN = CHILDREN, GRANDCHILD };

struct child {
	int flags, exit_signal;
	pid_t pid;
	int fd; /* that it has opened; in the shared page */
};

static struct child *children; /* shared by all, whatever else they share */
static volatile uint64_t memory[CHILDREN + 2];
static uint32_t *arrived;
static char file_path[256];

static void handler(int signal)
{
	(void)signal;
}

/* One signal each, so that it shows whose handler was set. */
static int signal_of(int number)
{
	return SIGRTMIN + 1 + number;
}

static void change_everything(int number)
{
	char path[64];
	int fd;

	memory[number] = 1000 + number;
	signal(signal_of(number), handler);
	snprintf(path, sizeof(path), "/tmp/sharing-%d", number);
	mkdir(path, 0755);
	must(chdir(path));
	fd = must(open(file_path, O_RDONLY));
	children[number].fd = must(fcntl(fd, F_DUPFD, 100 + number));
}

static int run(void *argument)
{
	int number = (int)(intptr_t)argument;

	victim_arrive(arrived);
	victim_wait();
	/* one after the other: what is shared by several is looked at in between */
	while (__atomic_load_n(arrived, __ATOMIC_SEQ_CST) < CHILDREN + 1u + number)
		victim_nap(1);
	change_everything(number);
	_exit(20 + number);
}

static void start(int number, int flags, int exit_signal)
{
	struct child *child = &children[number];
	char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check(stack != MAP_FAILED, "mmap");
	child->flags = flags;
	child->exit_signal = exit_signal;
	child->fd = -1;
	child->pid = must(clone(run, stack + STACK, flags | exit_signal, (void *)(intptr_t)number));
}

static void verify(int number)
{
	struct child *child = &children[number];
	char path[64], now[256];
	struct sigaction action;
	bool entered;
	int status;

	victim_arrive(arrived);
	check(waitpid(child->pid, &status, __WALL) == child->pid, "waitpid: %s", strerror(errno));
	check(WIFEXITED(status) && WEXITSTATUS(status) == 20 + number, "status %#x", status);
	check((memory[number] != 0) == !!(child->flags & CLONE_VM), "child %d: memory is %s",
	      number, memory[number] ? "shared" : "not shared");
	must(sigaction(signal_of(number), NULL, &action));
	check((action.sa_handler == handler) == !!(child->flags & CLONE_SIGHAND),
	      "child %d: signal handlers", number);
	snprintf(path, sizeof(path), "/tmp/sharing-%d", number);
	entered = strcmp(getcwd(now, sizeof(now)), path) == 0;
	check(entered == !!(child->flags & CLONE_FS), "child %d: directory %s", number, now);
	check((fcntl(child->fd, F_GETFD) >= 0) == !!(child->flags & CLONE_FILES),
	      "child %d: descriptor %d", number, child->fd);
}

static int write_there(void *unused)
{
	(void)unused;
	victim_wait();
	memory[GRANDCHILD] = (uint64_t)getpid();
	return pause();
}

static int leave_grandchild(void *stack)
{
	must(clone(write_there, stack, CLONE_VM | SIGCHLD, NULL));
	return execl("/bin/busybox", "sleep", "1000", NULL);
}

static pid_t start_grandchild(void)
{
	char *stacks = victim_shared(2L * STACK);

	return must(clone(leave_grandchild, stacks + 2L * STACK, CLONE_VM | CLONE_VFORK | SIGCHLD,
			  stacks + STACK));
}

static void verify_grandchild(pid_t between)
{
	while (!memory[GRANDCHILD])
		victim_nap(1);
	must(kill((pid_t)memory[GRANDCHILD], SIGKILL));
	must(kill(between, SIGKILL));
	check(waitpid(between, NULL, 0) == between, "waitpid: %s", strerror(errno));
}

int main(int argc, char **argv)
{
	static const int everything = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND;

	pid_t between;

	victim_init(argc, argv);
	between = start_grandchild();
	children = victim_shared(4096);
	arrived = victim_shared(4096);
	snprintf(file_path, sizeof(file_path), "%s", argv[1]);
	/* children with other exit signals than SIGCHLD are found by __WALL only */
	signal(SIGUSR1, SIG_IGN);
	start(0, CLONE_VM, SIGCHLD);
	start(1, CLONE_FS, SIGCHLD);
	start(2, CLONE_FILES, 0);
	start(3, CLONE_VM | CLONE_SIGHAND, SIGUSR1);
	start(4, everything, SIGCHLD);
	start(5, 0, SIGCHLD);
	victim_meet(arrived, CHILDREN);
	memory[OWN] = 77;
	victim_ready();
	victim_wait();
	for (int i = 0; i < CHILDREN; i++)
		verify(i);
	verify_grandchild(between);
	check(memory[OWN] == 77, "memory has changed");
	victim_ok();
	return 0;
}
