/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Small settings of a process that prctl(2) and files of /proc give. */
#include <fcntl.h>
#include <linux/membarrier.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "../cleanup.h"
#include "../dump.h"
#include "../restore.h"
#include "../sharing.h"
#include "prctl.h"

#ifndef PR_SET_MDWE
#define PR_SET_MDWE		 65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif
#ifndef PR_FUTEX_HASH
#define PR_FUTEX_HASH		78 /* Linux 6.16 */
#define PR_FUTEX_HASH_SET_SLOTS 1
#endif
#ifndef PR_MDWE_NO_INHERIT
#define PR_MDWE_NO_INHERIT 2
#endif

struct process_settings {
	uint32_t dumpable;
	uint32_t subreaper;
	uint32_t thp_disable;
	uint64_t coredump_filter;
	int32_t oom_score_adj;
	uint32_t membarrier;
	uint32_t mdwe;
	int32_t autogroup_nice;
	uint32_t futex_hash, futex_slots;
	int32_t ptracer;
};

static const struct field prctl_fields[] = {
	FIELD_UINT(struct process_settings, dumpable, 0, 2, "PR_SET_DUMPABLE"),
	FIELD_UINT(struct process_settings, subreaper, 0, 1, "PR_SET_CHILD_SUBREAPER"),
	FIELD_UINT(struct process_settings, thp_disable, 0, 2,
		   "PR_SET_THP_DISABLE; 2: except where it was advised"),
	FIELD_UINT(struct process_settings, coredump_filter, 0, UINT32_MAX,
		   "/proc/PID/coredump_filter"),
	FIELD_INT(struct process_settings, oom_score_adj, -1000, 1000, "/proc/PID/oom_score_adj"),
	FIELD_UINT(struct process_settings, membarrier, 0, UINT32_MAX,
		   "membarrier(2), MEMBARRIER_CMD_REGISTER_..."),
	FIELD_UINT(struct process_settings, mdwe, 0, 3, "PR_SET_MDWE"),
	FIELD_INT(struct process_settings, autogroup_nice, -20, 19,
		  "nice value of its session, /proc/PID/autogroup", .optional = true),
	FIELD_UINT(struct process_settings, futex_hash, 0, 1, "it has used PR_FUTEX_HASH_SET_SLOTS",
		   .optional = true),
	FIELD_UINT(struct process_settings, futex_slots, 0, 1u << 31,
		   "how many it asked for; 0: the table that all processes share",
		   .optional = true),
	FIELD_INT(struct process_settings, ptracer, PTRACER_ANYBODY, MAX_TASKS,
		  "PR_SET_PTRACER: thread in the container, -1: anybody", .optional = true),
	FIELD_END,
};

/* Where mm->flags has it, the kernel's include/linux/sched/coredump.h; unchanged since 4.5. */
enum { DUMP_FILTER_SHIFT = 2, DUMP_FILTER_MASK = 0x1ff };

/* What the kernel's membarrier_state says of a registration that is complete: sched/mm.h. */
static const struct {
	uint32_t ready, command;
} registrations[] = {
	{1 << 0, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED},
	{1 << 2, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED},
	{1 << 4, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE},
	{1 << 6, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ},
};

enum { REGISTRATIONS = sizeof(registrations) / sizeof(registrations[0]) };

static uint32_t membarrier_commands(uint32_t state)
{
	uint32_t commands = 0;

	for (int i = 0; i < REGISTRATIONS; i++)
		commands |= state & registrations[i].ready ? registrations[i].command : 0;
	return commands;
}

/* The kernel's MMF_HAS_MDWE and MMF_HAS_MDWE_NO_INHERIT; unchanged since 6.7. */
static uint32_t mdwe_flags(uint64_t mm_flags)
{
	if (!(mm_flags & (1 << 28)))
		return 0;
	return PR_MDWE_REFUSE_EXEC_GAIN | (mm_flags & (1 << 29) ? PR_MDWE_NO_INHERIT : 0);
}

/* What the kernel has chosen by itself, it chooses again. */
static struct cr_error *dump_futex_hash(struct dump *dump, const struct kernel_task *kernel,
					struct process_settings *settings)
{
	struct kernel_futex_hash hash;

	TRY(kernel_futex_read(&dump->futex_layout, dump->peek, kernel->futex_hash, &hash));
	settings->futex_hash = hash.custom;
	settings->futex_slots = hash.custom ? hash.slots : 0;
	return NULL;
}

/* Who sets one that is not there any more has set none. */
static int32_t find_ptracer(struct dump *dump, const struct process *process)
{
	const struct kernel_ptracer *known = dump->ptracers.items;
	const struct kernel_task *tracer;

	for (size_t i = 0; i < dump->ptracers.count; i++) {
		if (known[i].tracee != process->host_tgid)
			continue;
		if (known[i].tracer == PTRACER_ANYBODY)
			return PTRACER_ANYBODY;
		tracer = dump_kernel_task(dump, known[i].tracer);
		return tracer ? tracer->id.number : 0;
	}
	return 0;
}

static struct cr_error *prctl_dump(struct dump *dump, struct process *process, void *state)
{
	struct process_settings *settings = state;
	const struct kernel_task *kernel = process_leader(process)->kernel;

	TRY(dump_futex_hash(dump, kernel, settings));
	settings->dumpable = kernel->mm_flags & 3;
	settings->subreaper = kernel->subreaper;
	settings->membarrier = membarrier_commands(kernel->membarrier);
	settings->mdwe = mdwe_flags(kernel->mm_flags);
	settings->thp_disable = process_leader(process)->status.thp_disabled;
	if (kernel->mm_flags & dump->bits.thp_advised)
		settings->thp_disable = 2;
	settings->autogroup_nice = kernel->autogroup_nice;
	settings->ptracer = find_ptracer(dump, process);
	settings->coredump_filter = kernel->mm_flags >> DUMP_FILTER_SHIFT & DUMP_FILTER_MASK;
	settings->oom_score_adj = (int16_t)kernel->oom_score_adj;
	return NULL;
}

static struct cr_error *write_setting(pid_t pid, const char *name, long value)
{
	_cleanup_close_ int proc = -1, fd = -1;
	char text[32];
	int len = snprintf(text, sizeof(text), "%ld", value);

	TRY(proc_open(pid, pid, &proc));
	fd = openat(proc, name, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, (size_t)len) != len)
		return error_sys("Failed to set /proc/PID/%s to %s", name, text);
	return NULL;
}

static struct cr_error *set_oom_score(pid_t pid, long wanted)
{
	struct cr_error *error = write_setting(pid, "oom_score_adj", wanted);

	return error_remedy(error,
			    "Only a process with CAP_SYS_RESOURCE may lower it: run lxc-cr with "
			    "that capability");
}

/* 2 cannot be asked for: a change of ids makes it what fs.suid_dumpable says. */
static void be_suid_dumpable(struct program *p)
{
	program_call(p, "change the file system user id", SYS_setfsuid, 1);
	program_call(p, "change it back", SYS_setfsuid, 0);
}

/* Where that has come to nothing, 0 protects as much. */
static struct cr_error *set_dumpable(struct restore *restore, uint32_t wanted)
{
	struct program *p = restore->program;
	int call;

	if (wanted == 2) {
		call = program_call(p, "look whether it is dumpable", SYS_prctl, PR_GET_DUMPABLE);
		TRY(program_run(p));
		if (program_result(p, call) == 2)
			return NULL;
	}
	program_call(p, "set dumpable", SYS_prctl, PR_SET_DUMPABLE, wanted == 1);
	return NULL;
}

/* With other threads the kernel waits for all processors: not at the release. */
static struct cr_error *prctl_restore_early(struct restore *restore, struct process *process,
					    const void *state)
{
	const struct process_settings *settings = state;

	if (settings->autogroup_nice)
		TRY(write_setting(process_leader(process)->host_tid, "autogroup",
				  settings->autogroup_nice));
	if (settings->dumpable == 2)
		be_suid_dumpable(restore->program);
	if (settings->futex_hash && sharing_is_first(process, SHARE_MEMORY))
		program_call(restore->program, "set the size of the futex hash table", SYS_prctl,
			     PR_FUTEX_HASH, PR_FUTEX_HASH_SET_SLOTS, settings->futex_slots, 0, 0);
	for (int i = 0; i < REGISTRATIONS; i++) {
		if (settings->membarrier & registrations[i].command)
			program_call(restore->program, "register for membarrier", SYS_membarrier,
				     registrations[i].command, 0, 0);
	}
	return NULL;
}

static struct cr_error *prctl_restore(struct restore *restore, struct process *process,
				      const void *state)
{
	const struct process_settings *settings = state;
	struct program *p = restore->program;
	pid_t pid = process_leader(process)->host_tid;

	/* it may have been one until now, to adopt whom it had adopted: tree.c */
	program_call(p, "be a subreaper or not", SYS_prctl, PR_SET_CHILD_SUBREAPER,
		     settings->subreaper, 0, 0, 0);
	/* until now there were none, for the sake of memory_fresh.c */
	program_call(p, "disable huge pages or not", SYS_prctl, PR_SET_THP_DISABLE,
		     settings->thp_disable != 0,
		     settings->thp_disable == PR_THP_DISABLE_EXCEPT_ADVISED
			     ? PR_THP_DISABLE_EXCEPT_ADVISED
			     : 0,
		     0, 0);
	if (settings->mdwe)
		program_call(p, "refuse to gain PROT_EXEC", SYS_prctl, PR_SET_MDWE, settings->mdwe,
			     0, 0, 0);
	if (settings->ptracer) {
		program_call(p, "let somebody trace it", SYS_prctl, PR_SET_PTRACER,
			     (uint64_t)(int64_t)settings->ptracer, 0, 0, 0);
		/* without Yama everybody may who could */
		program_may_fail(p);
	}
	TRY(set_dumpable(restore, settings->dumpable));
	TRY(write_setting(pid, "coredump_filter", (long)settings->coredump_filter));
	return set_oom_score(pid, settings->oom_score_adj);
}

const struct kind prctl_kind = {
	.name = "prctl",
	.doc = "Dumpable, subreaper, huge pages, core dump filter, OOM score, membarrier(2), MDWE, "
	       "futex hash",
	.scope = SCOPE_PROCESS,
	.size = sizeof(struct process_settings),
	.fields = prctl_fields,
	.dump_process = prctl_dump,
	.restore_process = prctl_restore_early,
	.restore_at_release = prctl_restore,
};

uint32_t prctl_thp_disable(const struct process *process)
{
	const struct process_settings *settings = process_state(process, &prctl_kind);

	return settings ? settings->thp_disable : 0;
}
