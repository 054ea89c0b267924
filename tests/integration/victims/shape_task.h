/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the tasks of shapes.c do when they are told to. */
#ifndef SHAPE_TASK_H
#define SHAPE_TASK_H

#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "victim.h"

enum { SLOTS = 24, STACK = 32 << 10, ARENA = 32, PAGE = 4096, TEXT = 1000, HANDLERS = 8 };

enum command {
	CLONE,
	UNSHARE,
	EXEC,
	SETSID,
	SETPGID,
	REAPER,
	PDEATHSIG,
	EXIT,
	EXIT_THREAD,
	WRITE,
	OPEN,
	HANDLER,
	CHDIR,
	REAP,
	LOOK,
};

static const char *const names[] = {
	"clone",       "unshare", "exec", "setsid",  "setpgid", "subreaper", "pdeathsig", "exit",
	"exit thread", "write",	  "open", "handler", "chdir",	"reap",	     "look",
};

struct slot {
	uint32_t asked, answered; /* numbers of commands */
	uint32_t command;
	uint64_t argument, other;
	pid_t tid, pid;
	bool lives, stopped;
	char text[TEXT], before[TEXT], outside[TEXT];
	uint8_t common[SLOTS];
	char stack[STACK] __attribute__((aligned(16)));
};

/* At the same address in everybody, also after execve(2); tasks run on its stacks. */
struct board {
	uint32_t count, commands;
	char path[64], program[128], log[4096];
	struct slot slots[SLOTS];
};

static struct board *const board = (struct board *)0x600000000000;
static volatile uint64_t arena[ARENA][PAGE / 8] __attribute__((aligned(4096)));
static void map_board(const char *path)
{
	int fd = must(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666));

	must(ftruncate(fd, sizeof(*board)));
	check(mmap(board, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) ==
		      board,
	      "mmap");
	must(close(fd));
}

static long futex(uint32_t *word, int op, uint32_t value)
{
	return syscall(SYS_futex, word, op, value, NULL, NULL, 0);
}

/* ---- what a task does ---- */

static void handler(int signal)
{
	(void)signal;
}

static void look(struct slot *slot)
{
	int pdeathsig = -1, reaper = -1;
	uint64_t sum = 0, handlers = 0;
	char cwd[64] = "";
	size_t used;

	prctl(PR_GET_PDEATHSIG, &pdeathsig);
	prctl(PR_GET_CHILD_SUBREAPER, &reaper);
	for (int i = 0; i < ARENA; i++)
		sum = sum * 31 + arena[i][7];
	for (int i = 0; i < HANDLERS; i++) {
		struct sigaction action;

		sigaction(SIGRTMIN + 1 + i, NULL, &action);
		handlers |= (uint64_t)(action.sa_handler == handler) << i;
	}
	syscall(SYS_getcwd, cwd, sizeof(cwd));
	used = (size_t)snprintf(slot->text, TEXT,
				"pdeathsig %d reaper %d memory %lx handlers %lx cwd %s fds",
				pdeathsig, reaper, sum, handlers, cwd);
	for (int fd = 0; fd < 64; fd++) {
		if (fcntl(fd, F_GETFD) >= 0)
			used += (size_t)snprintf(slot->text + used, TEXT - used, " %d", fd);
	}
}

static int serve(void *argument);

static void make(uint64_t number, uint64_t flags)
{
	struct slot *child = &board->slots[number];

	must(clone(serve, child->stack + STACK, (int)flags, (void *)number));
}

static void execute(const struct slot *slot)
{
	char number[16];
	char *words[] = {board->program, board->path, number, NULL};

	snprintf(number, sizeof(number), "%d", (int)(slot - board->slots));
	execve(words[0], words, (char *[]){NULL});
	check(0, "execve");
}

static void change_directory(uint64_t number)
{
	char path[64];

	snprintf(path, sizeof(path), "/tmp/shape-%d", (int)number);
	mkdir(path, 0755);
	must(chdir(path));
}

static void obey(struct slot *slot)
{
	uint64_t argument = slot->argument;

	switch (slot->command) {
	case CLONE: make(argument, slot->other); break;
	case UNSHARE: must(unshare((int)argument)); break;
	case EXEC: execute(slot); break;
	case SETSID: syscall(SYS_setsid); break;
	case SETPGID: syscall(SYS_setpgid, 0, argument); break;
	case REAPER: must(prctl(PR_SET_CHILD_SUBREAPER, argument)); break;
	case PDEATHSIG: must(prctl(PR_SET_PDEATHSIG, argument)); break;
	case EXIT: syscall(SYS_exit_group, argument); break;
	case EXIT_THREAD: syscall(SYS_exit, argument); break;
	case WRITE: arena[argument][7] = slot->other; break;
	case OPEN: must(dup2(must(open("/dev/null", O_RDONLY)), 10 + (int)argument)); break;
	case HANDLER: signal(SIGRTMIN + 1 + (int)argument, handler); break;
	case CHDIR: change_directory(argument); break;
	case REAP: syscall(SYS_wait4, -1, NULL, WNOHANG | __WALL, NULL); break;
	case LOOK: look(slot); break;
	}
}

static int serve(void *argument)
{
	struct slot *slot = &board->slots[(uintptr_t)argument];

	slot->tid = (pid_t)syscall(SYS_gettid);
	slot->pid = (pid_t)syscall(SYS_getpid);
	__atomic_store_n(&slot->lives, true, __ATOMIC_SEQ_CST);
	for (;;) {
		uint32_t answered = slot->answered;

		if (__atomic_load_n(&slot->asked, __ATOMIC_SEQ_CST) == answered) {
			futex(&slot->asked, FUTEX_WAIT, answered);
			continue;
		}
		obey(slot);
		__atomic_store_n(&slot->answered, answered + 1, __ATOMIC_SEQ_CST);
	}
	return 0;
}

#endif
