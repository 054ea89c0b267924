/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "clocks.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include "cleanup.h"
#include "clock_ns.h"
#include "kinds/lease.h"
#include "kinds/lock.h"
#include "kinds/pidfd.h"
#include "kinds/socket_wait.h"
#include "sharing.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

enum { SECOND = 1000000000 };

static int64_t host_ns(clockid_t clock)
{
	return (int64_t)clock_ns(clock);
}

/* ---- how much time the container is to see ---- */

static bool sees_all_time(const struct restore *restore)
{
	return restore->options->time_policy == CR_TIME_WALL;
}

/* Has this host been up since before T0? */
static struct cr_error *read_boot(struct restore *restore)
{
	const struct bytes *then = &restore->image.clocks.boot;
	struct bytes now;

	TRY(proc_boot_id(restore->image.pool, &now));
	restore->clocks.same_boot =
		now.len && now.len == then->len && !memcmp(now.data, then->data, now.len);
	return NULL;
}

/* Are the container's clocks to show something else than those of the host? */
static bool needs_own(const struct restore *restore)
{
	const struct image_clocks *saved = &restore->image.clocks;

	if (!saved->monotonic)
		return false; /* an image that does not tell */
	return !sees_all_time(restore) || !restore->clocks.same_boot || saved->monotonic_offset ||
	       saved->boottime_offset;
}

/* From T0 to now. A wall clock that has been set back has not turned back the time. */
static int64_t since_checkpoint(const struct restore *restore)
{
	const struct image_clocks *saved = &restore->image.clocks;
	int64_t passed = restore->clocks.same_boot
				 ? host_ns(CLOCK_BOOTTIME) - (int64_t)saved->boottime
				 : host_ns(CLOCK_REALTIME) - (int64_t)saved->realtime;

	return passed > 0 ? passed : 0;
}

/* What the namespace must add to the host's clocks, when the container is let go in @delay ns. */
static void choose_offsets(struct restore *restore, int64_t delay)
{
	const struct image_clocks *saved = &restore->image.clocks;
	struct container_clocks *clocks = &restore->clocks;
	int64_t monotonic = host_ns(CLOCK_MONOTONIC), boottime = host_ns(CLOCK_BOOTTIME);
	int64_t passed = sees_all_time(restore) ? since_checkpoint(restore) : -delay;

	clocks->monotonic_offset = saved->monotonic_offset;
	clocks->boottime_offset = saved->boottime_offset;
	if (sees_all_time(restore) && restore->clocks.same_boot)
		return;
	clocks->monotonic_offset += (int64_t)saved->monotonic + passed - monotonic;
	clocks->boottime_offset += (int64_t)saved->boottime + passed - boottime;
	if (!sees_all_time(restore))
		clocks->planned = (uint64_t)(monotonic + delay);
}

void clocks_settle(struct restore *restore)
{
	struct container_clocks *clocks = &restore->clocks;
	uint64_t now = (uint64_t)host_ns(CLOCK_MONOTONIC);

	if (clocks->planned)
		log_say(&restore->log, CR_DEBUG,
			"The planned release is %ld us behind the first that is possible",
			(long)(clocks->planned - restore->release) / 1000);
	if (restore->release < clocks->planned)
		restore->release = clocks->planned;
	else if (clocks->planned)
		clocks->late = restore->release - clocks->planned;
	if (sees_all_time(restore) && restore->image.clocks.monotonic)
		clocks->passed = since_checkpoint(restore) + (int64_t)(restore->release - now);
}

int64_t restore_span(const struct restore *restore, uint64_t remaining)
{
	uint64_t now = (uint64_t)host_ns(CLOCK_MONOTONIC);
	/* being late only makes waits as much longer */
	int64_t delay = restore->release > now ? (int64_t)(restore->release - now) : 0;
	int64_t left = remaining < INT64_MAX / 2 ? (int64_t)remaining : INT64_MAX / 2;

	return left + delay - restore->clocks.passed;
}

uint64_t restore_left(const struct restore *restore, uint64_t remaining)
{
	int64_t span = restore_span(restore, remaining);

	return span > 0 ? (uint64_t)span : 0;
}

uint64_t restore_left_then(const struct restore *restore, uint64_t remaining)
{
	uint64_t passed = (uint64_t)restore->clocks.passed;

	return remaining > passed ? remaining - passed : 0;
}

int64_t clocks_now(const struct restore *restore, clockid_t clock)
{
	switch (clock) {
	case CLOCK_MONOTONIC: return host_ns(clock) + restore->clocks.monotonic_offset;
	case CLOCK_BOOTTIME:
	case CLOCK_BOOTTIME_ALARM: return host_ns(clock) + restore->clocks.boottime_offset;
	default: return host_ns(clock);
	}
}

/* ---- the namespace ---- */

static struct cr_error *explain(struct cr_error *error)
{
	return error_remedy(
		error_wrap(error, "Failed to give the container clocks of its own"),
		"That needs time namespaces, and CAP_SYS_TIME; with --time wall the container sees "
		"the clocks of this host instead");
}

static int print_offset(char *text, size_t size, const char *clock, int64_t ns)
{
	int64_t seconds = ns / SECOND, rest = ns % SECOND;

	if (rest < 0) {
		seconds--;
		rest += SECOND;
	}
	return snprintf(text, size, "%s %ld %ld\n", clock, (long)seconds, (long)rest);
}

/* Of the namespace that task @pid has made for its children. */
static struct cr_error *write_offsets(const struct restore *restore, int proc)
{
	char text[128];
	_cleanup_close_ int file = openat(proc, "timens_offsets", O_WRONLY | O_CLOEXEC);
	int len = print_offset(text, sizeof(text), "monotonic", restore->clocks.monotonic_offset);

	if (file < 0)
		return error_sys("Failed to open timens_offsets");
	len += print_offset(text + len, sizeof(text) - (size_t)len, "boottime",
			    restore->clocks.boottime_offset);
	if (write(file, text, (size_t)len) != len)
		return error_sys("Failed to set the clocks");
	return NULL;
}

/* ---- when the release will be ---- */

/* What the smallest program of a task takes on this machine, when nothing comes between. */
static struct cr_error *measure(struct restore *restore)
{
	enum { SAMPLES = 16 };
	int64_t least = INT64_MAX;

	for (int i = 0; i < SAMPLES; i++) {
		int64_t begin = host_ns(CLOCK_MONOTONIC), took;

		program_begin(restore->program, restore->init);
		program_call(restore->program, "measure the time of a call", SYS_getpid);
		TRY(program_run(restore->program));
		took = host_ns(CLOCK_MONOTONIC) - begin;
		least = took < least ? took : least;
	}
	restore->clocks.program = least;
	return NULL;
}

/* From when all processes stand to the release: so many times the smallest program, at most. */
static int64_t estimate_rest(const struct restore *restore, int64_t program)
{
	enum { BASE = 5000000, OF_PROCESS = 20, OF_THREAD = 8, OF_OBJECT = 1 };
	const struct image *image = &restore->image;
	int64_t programs = OF_PROCESS * (int64_t)image->processes.count +
			   OF_THREAD * (int64_t)image->threads +
			   OF_OBJECT * (int64_t)image->objects.count;

	return BASE + programs * program + (int64_t)leases_prepare_ns(restore);
}

/*
 * From when only threads are missing to the release, in programs. How much slower a busy machine is
 * shows in what has just been done for all processes; it is not waited for more than twice the time,
 * for it may be idle again by then.
 */
static int64_t estimate_end(const struct restore *restore)
{
	enum { BASE = 500000, OF_PROCESS = 8, OF_THREAD = 11, DONE = 25, LEAST = 100, MOST = 200 };
	const struct image *image = &restore->image;
	int64_t processes = (int64_t)image->processes.count, program = restore->clocks.program;
	int64_t load = 100 * restore->clocks.took / (DONE * program * processes);
	int64_t rest = program * (OF_PROCESS * processes + OF_THREAD * (int64_t)image->threads) +
		       (int64_t)clocks_arming_ns(restore);

	load = load < LEAST ? LEAST : load > MOST ? MOST : load;
	return BASE + rest * load / 100;
}

uint64_t clocks_arming_ns(const struct restore *restore)
{
	enum { BASE = 500000, OF_PROCESS = 16, OF_THREAD = 2, EACH_WAITER = 200000 };
	const struct image *image = &restore->image;
	uint64_t programs = OF_PROCESS * image->processes.count + OF_THREAD * image->threads;

	return BASE + programs * (uint64_t)restore->clocks.program +
	       EACH_WAITER * (lock_waiters_count(restore) + socket_waits_count(restore)) +
	       leases_prepare_ns(restore);
}

/* From the hook to the release; mostly copying of memory. */
static int64_t estimate_all(const struct restore *restore)
{
	enum { BASE = 100000000, EACH_PAGE = 400, PROGRAM = 60000 };

	return BASE + EACH_PAGE * (int64_t)restore->image.pages.count +
	       estimate_rest(restore, PROGRAM);
}

/* ---- early: by execve(2), or alone ---- */

static bool shares_memory(const struct image *image)
{
	/* threads with tables of their own are made early */
	if (image->tables.count > image->processes.count)
		return true;
	for_each (struct process *, process, &image->processes) {
		if (!sharing_is_first(process, SHARE_MEMORY))
			return true;
	}
	return false;
}

static struct cr_error *read_inode(int proc, const char *name, ino_t *ret)
{
	struct stat stat;

	if (fstatat(proc, name, &stat, 0) < 0)
		return error_sys("Failed to look at %s of the container's init", name);
	*ret = stat.st_ino;
	return NULL;
}

/* A system call instruction in the vdso of a process that is not ours yet. */
static struct cr_error *find_instruction(struct restore *restore, int proc, uint64_t *ret)
{
	const uint8_t *vdso = (const uint8_t *)getauxval(AT_SYSINFO_EHDR);
	struct list maps = {0};

	TRY(proc_maps(proc, restore->image.pool, &maps));
	for (size_t i = 0; vdso && i < maps.count; i++) {
		const struct proc_map *map = (struct proc_map *)maps.items + i;
		long offset = -1;

		if (map->name.len && !strcmp((char *)map->name.data, "[vdso]"))
			offset = arch_find_syscall(vdso, map->end - map->start);
		if (offset < 0)
			continue;
		*ret = map->start + (uint64_t)offset;
		return NULL;
	}
	return error_new(CR_HOST, "There is no vdso, or it holds no system call");
}

/* The call that it stands in goes on afterwards as if nothing had been. */
static struct cr_error *unshare_in(struct restore *restore, pid_t pid, int proc)
{
	const uint64_t args[6] = {CLONE_NEWTIME};
	struct arch_regs regs;
	struct stop stop;
	uint64_t insn = 0;
	int64_t result;

	TRY(find_instruction(restore, proc, &insn));
	TRY(task_interrupt(pid));
	TRY(task_wait(pid, &stop));
	if (!stop_is_trap(&stop))
		return error_new(CR_INTERNAL, "Process %d stopped in another way", pid);
	TRY(task_get_regs(pid, &regs));
	TRY(task_syscall(pid, insn, SYS_unshare, args, &result));
	TRY(task_settle(pid));
	TRY(task_set_regs(pid, &regs));
	if (result < 0)
		return error_errno((int)result, "Failed to make a time namespace");
	return NULL;
}

struct cr_error *clocks_prepare(struct restore *restore, pid_t pid)
{
	struct container_clocks *clocks = &restore->clocks;
	struct proc_status status;
	_cleanup_close_ int proc = -1;

	clocks->program = 15000; /* until it is measured, if ever */
	TRY(read_boot(restore));
	clocks->own = needs_own(restore);
	if (!clocks->own)
		return NULL;
	TRY(proc_open(pid, pid, &proc));
	TRY(proc_status(proc, restore->image.pool, &status));
	/* later, init has what the bounding set lets it have */
	clocks->late_entry =
		!shares_memory(&restore->image) && status.cap_bounding & (1ull << CAP_SYS_ADMIN);
	/* a pidfd may stand for any thread, or need the number of a process that has ended free */
	clocks->last_entry = clocks->late_entry && !image_holds(&restore->image, &pidfd_kind);
	if (clocks->late_entry)
		return NULL;
	TRY(explain(unshare_in(restore, pid, proc)));
	choose_offsets(restore, estimate_all(restore));
	TRY(explain(write_offsets(restore, proc)));
	TRY(read_inode(proc, "ns/time_for_children", &clocks->namespace));
	return task_continue(pid, 0);
}

/* ---- late: everybody by itself ---- */

static void append_close(struct restore *restore)
{
	program_call(restore->program, "close the channel", SYS_close,
		     (uint64_t)restore->channel.theirs);
}

static struct cr_error *enter(struct restore *restore, pid_t tid, int namespace, bool and_close)
{
	struct program *p = restore->program;
	uint64_t received;

	program_begin(p, tid);
	TRY(channel_send(&restore->channel, &namespace, 1));
	received = channel_receive(&restore->channel, p, 1);
	program_call(p, "enter the time namespace", SYS_setns, received, CLONE_NEWTIME);
	program_indirect(p, 0);
	program_call(p, "close the time namespace", SYS_close, received);
	program_indirect(p, 0);
	if (and_close)
		append_close(restore);
	return program_run(p);
}

/* The namespace that init has made for its children; with @set its clocks are set first. */
static struct cr_error *open_made(const struct restore *restore, bool set, int *ret)
{
	_cleanup_close_ int proc = -1;

	TRY(proc_open(restore->init, restore->init, &proc));
	if (set)
		TRY(explain(write_offsets(restore, proc)));
	*ret = openat(proc, "ns/time_for_children", O_RDONLY | O_CLOEXEC);
	return *ret < 0 ? error_sys("Failed to open the container's time namespace") : NULL;
}

/* A runtime may execute init in another thread than that which was to take the namespace along. */
static struct cr_error *check_made(struct restore *restore, int proc)
{
	ino_t made = 0;

	TRY(read_inode(proc, "ns/time_for_children", &made));
	return made == restore->clocks.namespace
		       ? NULL
		       : error_new(CR_HOST,
				   "Init is not in the time namespace that was made for it");
}

struct cr_error *clocks_enter_early(struct restore *restore)
{
	_cleanup_close_ int proc = -1, namespace = -1;
	ino_t entered = 0;

	if (!restore->clocks.own || restore->clocks.late_entry)
		return NULL;
	TRY(proc_open(restore->init, restore->init, &proc));
	TRY(explain(check_made(restore, proc)));
	TRY(read_inode(proc, "ns/time", &entered));
	if (entered == restore->clocks.namespace)
		return NULL;
	/* before Linux 6.3 execve(2) changes it for nobody: init does that while it is alone */
	TRY(open_made(restore, false, &namespace));
	return explain(enter(restore, restore->init, namespace, false));
}

/* Of tables that several share, when the last of them has got the namespace by it. */
static struct cr_error *close_shared_channels(struct restore *restore)
{
	for_each (struct process *, process, &restore->image.processes) {
		if (!sharing_is_first(process, SHARE_FILES))
			continue;
		restore_begin(restore, process);
		append_close(restore);
		TRY(program_run(restore->program));
	}
	return NULL;
}

static bool share_files(const struct image *image)
{
	for_each (struct process *, process, &image->processes) {
		if (!sharing_is_first(process, SHARE_FILES))
			return true;
	}
	return false;
}

struct cr_error *clocks_enter(struct restore *restore)
{
	_cleanup_close_ int namespace = -1;
	bool last = restore->clocks.last_entry, shared = share_files(&restore->image);

	if (!restore->clocks.own || !restore->clocks.late_entry)
		return NULL;
	program_begin(restore->program, restore->init);
	program_call(restore->program, "make a time namespace", SYS_unshare, CLONE_NEWTIME);
	TRY(explain(program_run(restore->program)));
	TRY(measure(restore));
	choose_offsets(restore, last ? estimate_end(restore)
				     : estimate_rest(restore, restore->clocks.program));
	TRY(open_made(restore, true, &namespace));
	for_each (struct process *, process, &restore->image.processes)
		TRY(error_task(explain(enter(restore, process_leader(process)->host_tid, namespace,
					     last && !shared)),
			       process->pid, ""));
	return last && shared ? close_shared_channels(restore) : NULL;
}
