/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "takeover.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock_ns.h"
#include "clocks.h"
#include "kinds/epoll.h"
#include "kinds/files.h"
#include "kinds/memory.h"
#include "kinds/memory_special.h"
#include "steps.h"

#ifndef PTRACE_O_SUSPEND_SECCOMP
#define PTRACE_O_SUSPEND_SECCOMP (1 << 21)
#endif

/* In milliseconds, for poll(2). */
static int time_left(uint64_t deadline)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC) / 1000000;

	if (now >= deadline)
		return 0;
	return deadline - now < INT_MAX ? (int)(deadline - now) : INT_MAX;
}

/* Until then the runtime must have come to its hook, and must have executed init. */
static uint64_t deadline_of(const struct restore *restore)
{
	return clock_ns(CLOCK_MONOTONIC) / 1000000 + restore->options->timeout / 1000000;
}

static struct cr_error *late(const char *what)
{
	return error_remedy(error_new(CR_HOST, "The runtime did not %s", what),
			    "See the container's log (lxc-start -o LOG -l DEBUG) for what it "
			    "waits for; restart_timeout in the configuration gives it more");
}

/* No time runs before the supervisor starts the runtime: bringing back files may take long. */
static struct cr_error *await_request(struct restore *restore, uint64_t *deadline, pid_t *ret)
{
	const struct cr_restart_options *options = restore->options;
	struct pollfd fds[] = {
		{.fd = options->request_fd, .events = POLLIN},
		{.fd = options->supervisor_fd, .events = POLLIN},
	};
	char text[32] = {0}, started;
	size_t len = 0;

	while (!memchr(text, '\n', len)) {
		int ready = poll(fds, 2, time_left(*deadline));
		ssize_t got;

		if (ready < 0 && errno != EINTR)
			return error_sys("Failed to wait for the runtime");
		if (!ready)
			return late("come to its start hook in time");
		if (fds[1].revents & (POLLHUP | POLLERR))
			return error_new(CR_CANCELLED, "The supervisor has gone");
		if (fds[1].revents & POLLIN && read(options->supervisor_fd, &started, 1) == 1)
			*deadline = deadline_of(restore);
		if (!(fds[0].revents & POLLIN))
			continue;
		got = read(options->request_fd, text + len, sizeof(text) - 1 - len);
		if (got <= 0 || len + (size_t)got >= sizeof(text) - 1)
			return error_new(CR_INTERNAL, "The hook's request is not a pid");
		len += (size_t)got;
	}
	*ret = (pid_t)strtol(text, NULL, 10);
	return NULL;
}

/* Whoever writes to the fifo is root; but a mistake must not cost a process of the host its life.
 */
static struct cr_error *check_init(struct restore *restore, pid_t pid)
{
	struct proc_status status;
	_cleanup_close_ int proc = -1;
	char *cgroup;

	TRY(proc_open(pid, pid, &proc));
	TRY(proc_status(proc, restore->image.pool, &status));
	TRY(proc_read(proc, "cgroup", restore->image.pool, &cgroup, NULL));
	if (status.pid_levels < 2 || status.ns_pid != 1)
		return error_new(CR_INTERNAL, "Process %d is not the init of a container", pid);
	if (restore->options->cgroup_hint && !strstr(cgroup, restore->options->cgroup_hint))
		return error_new(CR_INTERNAL, "Process %d is not in a cgroup of this container",
				 pid);
	return NULL;
}

static struct cr_error *seize_threads(struct restore *restore, pid_t pid)
{
	struct list tids = {0};
	_cleanup_close_ int proc = -1;

	TRY(proc_open(pid, pid, &proc));
	TRY(proc_numbers(proc, "task", restore->image.pool, &tids));
	for (size_t i = 0; i < tids.count; i++)
		TRY(task_seize(((int *)tids.items)[i],
			       PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD));
	return NULL;
}

static struct cr_error *answer(const struct restore *restore, const char *verdict)
{
	if (write(restore->options->reply_fd, verdict, strlen(verdict)) < 0)
		return error_sys("Failed to answer the hook");
	return NULL;
}

static struct cr_error *supervised(const struct restore *restore)
{
	/* poll(2) ignores a negative descriptor */
	struct pollfd supervisor = {.fd = restore->options->supervisor_fd};

	if (poll(&supervisor, 1, 0) > 0)
		return error_new(CR_CANCELLED, "The supervisor has gone");
	return NULL;
}

/*
 * Behind its hook LXC gets descriptors from its init, over a socket of which it holds both ends: if init
 * dies before it has sent them, LXC waits for ever, and so does whoever asks LXC about the container.
 * Called off, we let it come to its execve(2), if it soon does.
 */
static void hurry(const struct restore *restore, uint64_t *deadline)
{
	enum { SOON_MS = 5000 };
	uint64_t soon = clock_ns(CLOCK_MONOTONIC) / 1000000 + SOON_MS;
	struct cr_error *gone = supervised(restore);

	if (gone && *deadline > soon)
		*deadline = soon;
	cr_error_free(gone);
}

/* The next event of any task, or an error when there is none in time. */
static struct cr_error *await_event(struct restore *restore, uint64_t *deadline, pid_t *tid,
				    int *status)
{
	for (;;) {
		*tid = waitpid(-1, status, __WALL | WNOHANG);
		if (*tid)
			return NULL;
		hurry(restore, deadline);
		if (!time_left(*deadline)) {
			TRY(supervised(restore));
			return late("execute init in time");
		}
		poll(NULL, 0, 1);
	}
}

/* The runtime goes on, in whatever threads it has, until one of them executes init. */
static struct cr_error *await_exec(struct restore *restore, uint64_t deadline, pid_t pid)
{
	for (;;) {
		int status;
		pid_t tid;

		TRY(await_event(restore, &deadline, &tid, &status));
		if (tid < 0)
			return error_new(CR_GONE, "The runtime gave up before it executed init");
		if (!WIFSTOPPED(status)) {
			if (tid == pid)
				return error_remedy(
					error_new(CR_GONE,
						  "The container's init ended before it began"),
					"See the container's log (lxc-start -o LOG -l DEBUG)");
			continue;
		}
		if (status >> 16 == PTRACE_EVENT_EXEC)
			return supervised(restore);
		TRY(task_continue(tid, status >> 16 ? 0 : WSTOPSIG(status)));
	}
}

/* Filters of the runtime must not stop the calls that rebuild the container; needs CAP_SYS_ADMIN.
 */
static struct cr_error *trace_for_restore(struct restore *restore)
{
	unsigned long options = PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK |
				PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE;
	struct cr_error *error =
		task_set_options(restore->init, options | PTRACE_O_SUSPEND_SECCOMP);

	restore->seccomp_suspended = !error;
	if (!error)
		return NULL;
	cr_error_free(error);
	return task_set_options(restore->init, options);
}

/* From the exec event to a stop at the first instruction. */
static struct cr_error *to_first_instruction(struct restore *restore)
{
	struct stop stop;

	TRY(trace_for_restore(restore));
	TRY(task_interrupt(restore->init));
	do {
		TRY(task_continue(restore->init, 0));
		TRY(task_wait(restore->init, &stop));
	} while (stop.reason != STOP_TRAP);
	return task_set_mask(restore->init, SIGNALS_BUT_TRAP);
}

/*
 * Before the hook lets the runtime go on it must be known which init is ours: whoever cleans up
 * after us may end that one and no other. Dying earlier, we leave the hook without an answer, and
 * then the start fails by itself; later, the kernel kills what we trace.
 */
static struct cr_error *seize_init(struct restore *restore, pid_t pid)
{
	const struct cr_listener *listener = restore->log.listener;

	TRY(check_init(restore, pid));
	TRY(seize_threads(restore, pid));
	TRY(clocks_prepare(restore, pid));
	TRY(step(restore->options->fault, RESTART_SEIZED));
	if (listener && listener->seized && listener->seized(listener->context, pid))
		return error_new(CR_SYSTEM, "Failed to note which process is the new init");
	restore->init = pid;
	return step(restore->options->fault, RESTART_NOTED);
}

struct cr_error *takeover(struct restore *restore)
{
	const struct cr_listener *listener = restore->log.listener;
	bool alone = restore->options->supervisor_fd < 0;
	uint64_t deadline = alone ? deadline_of(restore) : UINT64_MAX;
	struct cr_error *error;
	pid_t pid = 0;

	TRY(await_request(restore, &deadline, &pid));
	if (deadline == UINT64_MAX)
		deadline = deadline_of(restore);
	error = seize_init(restore, pid);
	if (error) {
		cr_error_free(answer(restore, "abort\n"));
		return error;
	}
	TRY(answer(restore, "go\n"));
	TRY(step(restore->options->fault, RESTART_LET_GO));
	TRY(await_exec(restore, deadline, pid));
	TRY(to_first_instruction(restore));
	if (listener && listener->taken_over && listener->taken_over(listener->context, pid))
		return error_new(CR_SYSTEM, "Failed to complete the container's files and mounts");
	return NULL;
}

/* ---- the program area ---- */

static bool overlaps(const struct list *vmas, uint64_t start, uint64_t end, uint64_t *next)
{
	const struct vma *vma = vmas->items;

	for (size_t i = 0; i < vmas->count && vma[i].start < end; i++) {
		if (vma[i].end > start) {
			*next = vma[i].end;
			return true;
		}
	}
	return false;
}

static bool overlaps_any(struct restore *restore, const struct list *maps, uint64_t start,
			 uint64_t end, uint64_t *next)
{
	const struct proc_map *map = maps->items;

	for (size_t i = 0; i < maps->count; i++) {
		if (map[i].start < end && map[i].end > start) {
			*next = map[i].end;
			return true;
		}
	}
	for_each (struct process *, process, &restore->image.processes) {
		if (overlaps(&process->memory->vmas, start, end, next))
			return true;
	}
	return false;
}

/* Free in init as it is now and in every address space of the image. */
static struct cr_error *choose_area(struct restore *restore, const struct list *maps)
{
	enum { SIZE = 2 * PROGRAM_AREA };
	uint64_t at = 0x10000000;

	while (at < ARCH_TASK_SIZE - SIZE) {
		if (!overlaps_any(restore, maps, at, at + SIZE, &at)) {
			restore->area = at;
			return NULL;
		}
	}
	return error_new(CR_UNSUPPORTED, "The programs leave no room in their address spaces");
}

/* The kernel's mappings must be as large as the image has them; we only move them. */
static struct cr_error *check_sizes(struct restore *restore, const struct process *process)
{
	const struct vma *vma = process->memory->vmas.items, *there = restore->special.items;

	for (size_t i = 0; i < process->memory->vmas.count; i++) {
		size_t n = 0;

		if (vma[i].type != VMA_SPECIAL)
			continue;
		while (n < restore->special.count &&
		       strcmp((char *)there[n].name.data, (char *)vma[i].name.data))
			n++;
		if (n == restore->special.count ||
		    there[n].end - there[n].start != vma[i].end - vma[i].start)
			return error_new(CR_HOST, "This kernel lays out its vdso in another way");
	}
	return memory_vdso(process) ? NULL
				    : error_new(CR_IMAGE, "Process %d has no vdso", process->pid);
}

/* Note where they lie in init, fresh from execve(2). */
static struct cr_error *find_vdso(struct restore *restore, const struct list *maps)
{
	const uint8_t *vdso = (const uint8_t *)getauxval(AT_SYSINFO_EHDR);
	const struct vma *there;
	long offset = -1;

	TRY(special_find(restore->image.pool, maps, &restore->special));
	there = special_vdso(&restore->special);
	if (vdso && there)
		offset = arch_find_syscall(vdso, there->end - there->start);
	if (offset < 0)
		return error_new(CR_HOST, "There is no vdso, or it holds no system call");
	restore->insn = (uint64_t)offset;
	for_each (struct process *, process, &restore->image.processes)
		TRY(check_sizes(restore, process));
	return NULL;
}

static struct cr_error *map_area(const struct restore *restore, pid_t tid,
				 const struct list *special)
{
	uint64_t args[6] = {restore->area,
			    (PROGRAM_AREA + PAGE - 1) & ~(PAGE - 1),
			    PROT_READ | PROT_WRITE | PROT_EXEC,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
			    (uint64_t)-1,
			    0};
	const struct vma *vdso = special_vdso(special);
	int64_t result;

	if (!vdso)
		return error_new(CR_HOST, "Task %d has no vdso", tid);
	TRY(task_syscall(tid, vdso->start + restore->insn, SYS_mmap, args, &result));
	if (result < 0)
		return error_errno((int)result, "Failed to map the program area");
	return task_write(tid, restore->area, __start_crblob, blob_size());
}

/*
 * After an execve(2) memory under a protection key is closed to a task, and so to calls that it
 * makes for us. Its clones have this from it, until they get their own registers.
 */
static struct cr_error *open_keys(const struct restore *restore, pid_t tid)
{
	struct bytes xstate;

	TRY(task_get_xstate(tid, restore->image.pool, &xstate));
	return arch_open_keys(xstate.data, xstate.len) ? task_set_xstate(tid, &xstate) : NULL;
}

struct cr_error *takeover_equip(const struct restore *restore, pid_t tid,
				const struct list *special)
{
	TRY(map_area(restore, tid, special));
	return open_keys(restore, tid);
}

/* Room for every descriptor number of the image and our own; the saved limits come last. */
static struct cr_error *raise_file_limit(struct restore *restore)
{
	struct program *p = restore->program;
	uint64_t old = program_data(p, NULL, sizeof(struct rlimit));
	struct rlimit limit;

	program_call(p, "read the limit of open files", SYS_prlimit64, 0, RLIMIT_NOFILE, 0, old);
	TRY(program_run(p));
	TRY(program_output(p, old, &limit, sizeof(limit)));
	limit.rlim_cur = limit.rlim_max;
	program_call(p, "raise the limit of open files", SYS_prlimit64, 0, RLIMIT_NOFILE,
		     program_data(p, &limit, sizeof(limit)), 0);
	return program_run(p);
}

/* All that has an owner, the container's files too, would belong to somebody else. */
static struct cr_error *check_ids(struct restore *restore)
{
	struct id_map now;

	TRY(id_map_read(restore->init, restore->image.pool, &now));
	if (id_map_equals(&now, &restore->image.ids))
		return NULL;
	return error_remedy(
		error_object(error_new(CR_HOST, "The container maps its users and groups in "
						"another way than at the checkpoint"),
			     "user_namespace"),
		"Set lxc.idmap back to what it was: the image's manifest holds the configuration");
}

struct cr_error *takeover_prepare(struct restore *restore)
{
	enum { LOWEST_CHANNEL = 16 };
	struct list maps = {0};
	_cleanup_close_ int proc = -1;
	int highest = files_highest(&restore->image), watched = epoll_highest(&restore->image);

	TRY(check_ids(restore));
	TRY(proc_open(restore->init, restore->init, &proc));
	TRY(proc_maps(proc, restore->image.pool, &maps));
	TRY(choose_area(restore, &maps));
	TRY(find_vdso(restore, &maps));
	TRY(takeover_equip(restore, restore->init, &restore->special));
	restore->program->base = restore->area;
	program_begin(restore->program, restore->init);
	TRY(raise_file_limit(restore));
	program_call(restore->program, "build without huge pages", SYS_prctl, PR_SET_THP_DISABLE, 1,
		     0, 0, 0);
	if (watched > highest)
		highest = watched;
	return channel_open(&restore->channel, restore->program,
			    highest + 1 > LOWEST_CHANNEL ? highest + 1 : LOWEST_CHANNEL);
}
