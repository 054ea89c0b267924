/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "zombie.h"

#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../cleanup.h"

static const struct field zombie_fields[] = {
	FIELD_INT(struct zombie, identity.pid, 1, MAX_TASKS, "process id in the container"),
	FIELD_INT(struct zombie, identity.ppid, 1, MAX_TASKS, "its parent's"),
	FIELD_INT(struct zombie, identity.pgid, 0, MAX_TASKS,
		  "process group, 0: outside the container"),
	FIELD_INT(struct zombie, identity.sid, 0, MAX_TASKS, "session, 0: outside the container"),
	FIELD_INT(struct zombie, identity.exit_signal, 0, 64, "what the parent got when it ended"),
	FIELD_BYTES(struct zombie, comm, 15, "name"),
	FIELD_UINT(struct zombie, uid, 0, UINT32_MAX, "real user id"),
	FIELD_UINT(struct zombie, gid, 0, UINT32_MAX, "real group id"),
	FIELD_UINT(struct zombie, status, 0, UINT16_MAX, "what wait(2) will tell"),
	FIELD_END,
};

struct cr_error *zombie_add(struct image *image, struct process *parent, struct zombie *state,
			    struct process **ret)
{
	struct process *process = image_add_zombie(image, parent);

	if (!process)
		return error_nomem();
	process->pid = process->number = state->identity.pid;
	process->session = state->identity.sid;
	process->exit_signal = state->identity.exit_signal;
	process->states[kind_index(&process_kind)] = &state->identity;
	process->states[kind_index(&zombie_kind)] = state;
	if (ret)
		*ret = process;
	return NULL;
}

static struct cr_error *read_proc(struct dump *dump, pid_t pid, struct zombie *state,
				  struct proc_stat *stat)
{
	_cleanup_close_ int proc = -1;
	struct proc_status status;
	char *comm;

	TRY(proc_open(pid, pid, &proc));
	TRY(proc_stat(proc, stat));
	TRY(proc_status(proc, dump->image.pool, &status));
	comm = pool_strndup(dump->image.pool, stat->comm, sizeof(stat->comm));
	if (!comm)
		return error_nomem();
	state->identity.pid = status.ns_pid;
	state->identity.pgid = status.ns_pgid;
	state->identity.sid = status.ns_sid;
	state->identity.exit_signal = stat->exit_signal;
	state->comm = (struct bytes){.data = (uint8_t *)comm, .len = strnlen(comm, 15)};
	state->uid = status.uid[0];
	state->gid = status.gid[0];
	return NULL;
}

struct cr_error *zombie_dump(struct dump *dump, const struct kernel_task *task,
			     struct process *parent)
{
	struct zombie *state = pool_alloc(dump->image.pool, sizeof(*state));
	struct process *process;
	struct proc_stat stat;

	if (!state)
		return error_nomem();
	TRY(read_proc(dump, task->pid, state, &stat));
	state->status = (uint32_t)(task->signal_flags & KERNEL_GROUP_EXIT ? task->group_exit_code
									  : task->exit_code);
	/* the parent's own number is known when it has been looked at: zombie_resolve() */
	TRY(zombie_add(&dump->image, parent, state, &process));
	process->host_pid = process->host_tgid = process->number = task->pid;
	process->session = stat.session;
	process->stat = stat;
	return image_number_process(&dump->image, process);
}

void zombie_resolve(struct process *process)
{
	struct zombie *zombie = process_state(process, &zombie_kind);

	zombie->identity.ppid = process->parent->pid;
}

/* ---- restart ---- */

/* No memory in the core dump. */
static struct cr_error *set_core_filter(pid_t pid)
{
	_cleanup_close_ int proc = -1, fd = -1;

	TRY(proc_open(pid, pid, &proc));
	fd = openat(proc, "coredump_filter", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "0", 1) != 1)
		return error_sys("Failed to set the core dump filter of a zombie");
	return NULL;
}

static void limit_core(struct program *p, rlim_t size)
{
	struct rlimit limit = {.rlim_cur = size, .rlim_max = size};

	program_call(p, "limit its core dump", SYS_prlimit64, 0, RLIMIT_CORE,
		     program_data(p, &limit, sizeof(limit)), 0);
	/* only a higher one is refused, and then it stays what it is */
	program_may_fail(p);
}

/* A directory for the core dump that goes with the process. */
static struct cr_error *prepare_core(struct restore *restore, const struct process *process)
{
	static const char options[] = "size=1m,mode=1777";
	struct program *p = restore->program;
	uint64_t type = program_data(p, "tmpfs", 6), where = program_data(p, "/proc", 6);
	uint64_t root = program_data(p, "/", 2), here = program_data(p, ".", 2);

	program_call(p, "leave the mount namespace", SYS_unshare, CLONE_NEWNS);
	program_call(p, "keep mounts private", SYS_mount, 0, root, 0, MS_REC | MS_PRIVATE, 0);
	program_call(p, "mount a directory for a core dump", SYS_mount, type, where, type, 0,
		     program_data(p, options, sizeof(options)));
	program_call(p, "enter it", SYS_chdir, where);
	program_call(p, "make it the root directory", SYS_chroot, here);
	limit_core(p, RLIM_INFINITY);
	TRY(program_run(p));
	return set_core_filter(process_leader(process)->host_tid);
}

/* Only who has really dumped core gets WCOREFLAG: a few headers, which nobody will see. */
static bool may_dump_core(struct restore *restore, const struct process *process)
{
	struct cr_error *error = prepare_core(restore, process);

	if (error)
		log_say(&restore->log, CR_DEBUG, "A zombie cannot dump core again: %s",
			error->message);
	cr_error_free(error);
	return !error;
}

static struct cr_error *take_looks(struct restore *restore, const struct zombie *zombie)
{
	struct program *p = restore->program;
	uint32_t uid, gid;

	TRY(id_map_user(&restore->image.ids, zombie->uid, &uid));
	TRY(id_map_group(&restore->image.ids, zombie->gid, &gid));
	program_call(p, "set the name", SYS_prctl, PR_SET_NAME, program_bytes(p, &zombie->comm));
	program_call(p, "set group ids", SYS_setresgid, gid, gid, gid);
	program_call(p, "set user ids", SYS_setresuid, uid, uid, uid);
	/* another user's process would not dump core */
	program_call(p, "set dumpable", SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0);
	return program_run(p);
}

static bool ends_processes(int signal)
{
	static const int others[] = {SIGCHLD, SIGCONT, SIGURG,	SIGWINCH,
				     SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU};

	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		if (signal == others[i])
			return false;
	}
	return signal <= KERNEL_SIGNALS;
}

static struct cr_error *impossible(uint32_t status)
{
	return error_new(CR_IMAGE, "No process can have ended with status 0x%x", status);
}

/* The signal is put in place of the breakpoint's that the task stands in. */
static struct cr_error *die_of(struct restore *restore, pid_t tid, int signal)
{
	struct kernel_sigaction action = {0};
	struct program *p = restore->program;

	if (signal != SIGKILL)
		program_call(p, "reset a signal", SYS_rt_sigaction, (uint64_t)signal,
			     program_data(p, &action, sizeof(action)), 0, sizeof(uint64_t));
	else
		program_call(p, "stand", SYS_getpid);
	TRY(program_run(p));
	TRY(task_set_mask(tid, 0));
	return task_continue(tid, signal);
}

static struct cr_error *exit_with(struct restore *restore, int code)
{
	program_call(restore->program, "end", SYS_exit_group, (uint64_t)code);
	return program_start(restore->program);
}

/* The kernel hands it to its parent when we, who trace it, have seen its end. */
static struct cr_error *see_end(pid_t tid, uint32_t status, bool *core)
{
	int got;

	for (;;) {
		if (waitpid(tid, &got, __WALL) < 0) {
			if (errno == EINTR)
				continue;
			return error_sys("Failed to wait for process %d", tid);
		}
		if (!WIFSTOPPED(got))
			break;
		if (got >> 16 != PTRACE_EVENT_STOP)
			return impossible(status);
		TRY(task_continue(tid, 0));
	}
	*core = got & WCOREFLAG;
	if (((uint32_t)got & ~(uint32_t)WCOREFLAG) != (status & ~(uint32_t)WCOREFLAG))
		return impossible(status);
	return NULL;
}

struct cr_error *zombie_end_as(struct restore *restore, pid_t tid, uint32_t status, bool *core)
{
	int signal = WTERMSIG((int)status);

	if (signal && !ends_processes(signal))
		return impossible(status);
	TRY(signal ? die_of(restore, tid, signal) : exit_with(restore, WEXITSTATUS((int)status)));
	return see_end(tid, status, core);
}

struct cr_error *zombie_end(struct restore *restore, struct process *process)
{
	const struct zombie *zombie = process_state(process, &zombie_kind);
	pid_t tid = process_leader(process)->host_tid;
	bool core = false, had_core = zombie->status & WCOREFLAG;

	restore_begin(restore, process);
	if (!had_core || !may_dump_core(restore, process))
		limit_core(restore->program, 0);
	TRY(take_looks(restore, zombie));
	TRY(error_wrap(zombie_end_as(restore, tid, zombie->status, &core),
		       "Failed to end process %d again", process->pid));
	if (had_core != core)
		log_say(&restore->log, CR_WARNING,
			"Process %d, which its parent has not waited for, had dumped core; its "
			"parent will not be told so: the host's core_pattern is not a file",
			process->pid);
	return NULL;
}

const struct kind zombie_kind = {
	.name = "zombie",
	.doc = "Child that has ended and was not waited for",
	.scope = SCOPE_ZOMBIE,
	.size = sizeof(struct zombie),
	.fields = zombie_fields,
};
