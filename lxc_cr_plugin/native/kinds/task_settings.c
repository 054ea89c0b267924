/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rare settings of a thread that prctl(2) and arch_prctl(2) make. */
#include <asm/prctl.h>
#include <linux/prctl.h>
#include <string.h>
#include <sys/syscall.h>

#include "core_group.h"

#ifndef ARCH_SET_CPUID
#define ARCH_SET_CPUID 0x1012
#endif

#ifndef PR_SPEC_DISABLE_NOEXEC
#define PR_SPEC_DISABLE_NOEXEC 16
#endif

struct task_settings {
	uint32_t store_bypass, indirect_branch; /* PR_SPEC_..., 0: as the kernel has it */
	uint32_t no_cpuid, io_flusher;
	uint32_t core_group;
};

static const struct field task_settings_fields[] = {
	FIELD_UINT(struct task_settings, store_bypass, 0, PR_SPEC_DISABLE_NOEXEC,
		   "PR_SET_SPECULATION_CTRL of PR_SPEC_STORE_BYPASS, 0: never set"),
	FIELD_UINT(struct task_settings, indirect_branch, 0, PR_SPEC_FORCE_DISABLE,
		   "the same of PR_SPEC_INDIRECT_BRANCH"),
	FIELD_UINT(struct task_settings, no_cpuid, 0, 1,
		   "the CPUID instruction ends in SIGSEGV: ARCH_SET_CPUID"),
	FIELD_UINT(struct task_settings, io_flusher, 0, 1, "PR_SET_IO_FLUSHER"),
	FIELD_UINT(struct task_settings, core_group, 0, UINT32_MAX,
		   "who has the same number shares a PR_SCHED_CORE cookie; 0: what init has",
		   .optional = true),
	FIELD_END,
};

/* The kernel's include/linux/sched.h: of atomic_flags, unchanged since 5.1; of flags, since 5.8. */
enum {
	SSB_DISABLE = 1 << 3,
	SSB_FORCE_DISABLE = 1 << 4,
	IB_DISABLE = 1 << 5,
	IB_FORCE_DISABLE = 1 << 6,
	SSB_NOEXEC = 1 << 7,
	PF_MEMALLOC_NOIO = 0x00080000,
	PF_LOCAL_THROTTLE = 0x00100000,
	PF_IO_FLUSHER = PF_MEMALLOC_NOIO | PF_LOCAL_THROTTLE,
};

static uint32_t store_bypass(uint64_t flags)
{
	if (flags & SSB_FORCE_DISABLE)
		return PR_SPEC_FORCE_DISABLE;
	if (flags & SSB_NOEXEC)
		return PR_SPEC_DISABLE_NOEXEC;
	return flags & SSB_DISABLE ? PR_SPEC_DISABLE : 0;
}

static uint32_t indirect_branch(uint64_t flags)
{
	if (flags & IB_FORCE_DISABLE)
		return PR_SPEC_FORCE_DISABLE;
	return flags & IB_DISABLE ? PR_SPEC_DISABLE : 0;
}

static struct cr_error *task_settings_dump(struct dump *dump, struct thread *thread, void *state)
{
	const struct kernel_task *kernel = thread->kernel;
	struct task_settings *settings = state;

	settings->store_bypass = store_bypass(kernel->atomic_flags);
	settings->indirect_branch = indirect_branch(kernel->atomic_flags);
	settings->no_cpuid = !!(kernel->thread_flags & dump->bits.no_cpuid);
	settings->io_flusher = (kernel->flags & PF_IO_FLUSHER) == PF_IO_FLUSHER;
	return core_group_dump(dump, thread, &settings->core_group);
}

static struct cr_error *task_settings_restore(struct restore *restore, struct thread *thread,
					      const void *state)
{
	const struct task_settings *settings = state;
	struct program *p = restore->program;

	TRY(core_group_restore(restore, thread, settings->core_group));
	TRY(program_reserve(p, 4, 0));
	if (settings->store_bypass)
		program_call(p, "forbid speculation over stores", SYS_prctl,
			     PR_SET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, settings->store_bypass,
			     0, 0);
	if (settings->indirect_branch)
		program_call(p, "forbid speculation over branches", SYS_prctl,
			     PR_SET_SPECULATION_CTRL, PR_SPEC_INDIRECT_BRANCH,
			     settings->indirect_branch, 0, 0);
	if (settings->no_cpuid)
		program_call(p, "hide the processor's features", SYS_arch_prctl, ARCH_SET_CPUID, 0);
	if (settings->io_flusher)
		program_call(p, "become an I/O flusher", SYS_prctl, PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	return NULL;
}

const struct kind task_settings_kind = {
	.name = "task_settings",
	.doc = "Speculation control, CPUID hidden, I/O flusher, core scheduling",
	.scope = SCOPE_THREAD,
	.size = sizeof(struct task_settings),
	.fields = task_settings_fields,
	.dump_thread = task_settings_dump,
	.restore_thread = task_settings_restore,
};
