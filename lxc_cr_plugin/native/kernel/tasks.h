/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What only the kernel knows about a task, read from outside by a BPF iterator (iter/task) whose
 * few instructions are assembled at run time from the kernel's own BTF: no compiler, no libbpf, no
 * vmlinux.h. Nothing enters the target. Needs /sys/kernel/btf/vmlinux, CAP_BPF and CAP_PERFMON (or
 * CAP_SYS_ADMIN).
 */
#ifndef CR_KERNEL_TASKS_H
#define CR_KERNEL_TASKS_H

#include <stdint.h>
#include <sys/types.h>

#include "../error.h"
#include "../pool.h"
#include "btf.h"

enum { KERNEL_SIGNALS = 64 };

/* SIGNAL_... of the kernel */
enum kernel_signal_flags {
	KERNEL_STOPPED = 1,
	KERNEL_CONTINUED = 2,
	KERNEL_GROUP_EXIT = 4,
};

enum { KERNEL_STOP_SIGNAL = 0xffff }; /* of jobctl */

/* struct k_sigaction as x86-64 lays it out: what rt_sigaction(2) takes. */
struct kernel_sigaction {
	uint64_t handler;
	uint64_t flags;
	uint64_t restorer;
	uint64_t mask;
};

/* One of a task's ids: struct pid, seen at the depth of pid namespaces where the task lives. */
struct kernel_id {
	int32_t number;
	uint32_t depth;	    /* of the id itself; of less than the task's: nothing else is valid */
	uint64_t namespace; /* struct pid_namespace that the number belongs to */
};

struct kernel_limit {
	uint64_t soft, hard;
};

enum { KERNEL_LIMITS = 16 };

struct kernel_task {
	int32_t pid; /* thread id in the initial pid namespace */
	int32_t tgid;
	int32_t ppid;		  /* its parent's, in the initial pid namespace */
	uint32_t exit_state;	  /* 0: alive, else zombie or dead */
	uint32_t flags;		  /* PF_... */
	uint32_t signal_flags;	  /* signal->flags: enum kernel_signal_flags */
	int32_t exit_code;	  /* as wait(2) gives it; of one thread */
	int32_t group_exit_code;  /* of the process, when signal_flags say so */
	int32_t group_stop_count; /* threads that have still to stop */
	uint64_t vfork_done;	  /* not 0: the parent waits in vfork(2) */
	uint64_t jobctl;	  /* the lowest 16 bits: the last signal that stopped it */
	uint64_t switches;	  /* how often it went to sleep */
	uint64_t blocked;	  /* signals; ppoll(2) and the like: the mask of the call */
	/* sigaltstack(2) */
	uint64_t sas_ss_sp;
	uint64_t sas_ss_size;
	uint32_t sas_ss_flags;
	uint32_t pdeath_signal;
	uint32_t personality;
	uint32_t reserved_personality;
	/* prctl(2) PR_SET_SYSCALL_USER_DISPATCH; zeros: off */
	uint64_t dispatch_selector, dispatch_offset, dispatch_len;
	uint64_t clear_child_tid; /* address, set_tid_address(2) */
	uint64_t set_child_tid;
	uint64_t robust_list; /* address, set_robust_list(2) */
	uint32_t securebits;
	uint32_t subreaper; /* signal->is_child_subreaper, 0 or 1 */
	/* task->restart_block; expires and time are CLOCK_MONOTONIC ns of the initial time
	 * namespace */
	struct {
		int32_t clockid;
		int32_t type;
		uint64_t rmtp;
		uint64_t expires;
	} nanosleep;
	struct {
		uint64_t uaddr;
		uint32_t val;
		uint32_t flags;
		uint32_t bitset;
		uint32_t reserved;
		uint64_t time;
	} futex;
	struct {
		uint64_t ufds;
		int32_t nfds;
		int32_t has_timeout;
		uint64_t tv_sec;
		uint64_t tv_nsec;
	} poll;
	/* interval timers; real: hrtimer expiry in CLOCK_MONOTONIC ns (the last one when it is not
	 * armed) and interval in ns; virtual and prof: CPU time, ns */
	uint32_t it_real_armed;
	uint32_t reserved_timer;
	uint64_t it_real_expires;
	uint64_t it_real_incr;
	uint64_t it_virt_expires, it_virt_incr;
	uint64_t it_prof_expires, it_prof_incr;
	uint32_t protection_keys; /* mm->context: a bit for each that is allocated */
	int32_t parent_thread;	  /* which of its parent's threads has it; initial pid namespace */
	uint32_t reserved_parent;
	int32_t execute_only_key; /* the one the kernel takes by itself, 16 bits; not 1 .. 15: none */
	uint64_t numa_policy;	  /* struct mempolicy, numa.h; 0: none */
	uint64_t thread_flags;	  /* TIF_ flags, which every kernel numbers anew */
	uint64_t undo_list;	  /* struct sem_undo_list, semaphore_undo.h; 0: none */
	uint64_t posix_timers;	  /* where their list begins, timers.h; 0: none */
	uint64_t brk;		  /* mm->brk, 0 for a kernel thread */
	uint64_t def_flags;	  /* mm->def_flags: VM_ flags of every new mapping, mlockall(2) */
	uint64_t mm_flags;	  /* mm->flags; the lowest two bits: prctl(2) PR_GET_DUMPABLE */
	uint32_t membarrier;	  /* mm->membarrier_state */
	uint32_t requested_keys; /* KEY_REQKEY_DEFL_... */
	/* Identities of what tasks share: kernel addresses, to be compared and nothing else. */
	uint64_t mm, files, fs, sighand, seccomp_filter, cgroups, nsproxy, user_ns, group_info;
	char comm[16];
	int32_t tracer;		      /* thread that would be its tracer, initial pid namespace */
	uint32_t ptrace;	      /* 0: nobody traces it */
	uint64_t timer_slack;	      /* ns */
	uint64_t default_timer_slack; /* ns: what prctl(2) PR_SET_TIMERSLACK 0 sets it to */
	uint64_t core_cookie;	      /* identity of whom it may share a core with; 0: anybody */
	uint64_t futex_hash;	      /* mm->futex_phash, futex_hash.h; 0: none */
	uint64_t segments;	      /* mm->context.ldt: modify_ldt(2); 0: none */
	uint64_t security;	      /* what security modules keep: probe.h; 0: nothing */
	/* struct key, keys.h; 0: none */
	uint64_t session_keyring, process_keyring, thread_keyring;
	uint64_t signals_pending, signals_shared_pending;
	uint32_t uid, euid, suid, fsuid;
	uint32_t gid, egid, sgid, fsgid;
	uint64_t cap_inheritable, cap_permitted, cap_effective, cap_bounding, cap_ambient;
	uint64_t atomic_flags; /* bit 0: PR_SET_NO_NEW_PRIVS; kinds/task_settings.c */
	uint32_t loginuid;     /* of the host */
	int32_t autogroup_nice;
	uint32_t seccomp, seccomp_filters;
	uint32_t umask;
	uint32_t oom_score_adj;			   /* 16 bits, signed */
	struct kernel_limit limits[KERNEL_LIMITS]; /* by RLIMIT_ number */
	uint32_t depth;				   /* of pid namespaces */
	uint32_t groups;			   /* how many supplementary groups */
	struct kernel_id id, process_id, group_id, session_id;
	int64_t syscall;				 /* the one it is in, or was last */
	struct kernel_sigaction actions[KERNEL_SIGNALS]; /* [signal - 1] */
};

struct kernel_reader; /* the loaded iterator: a few descriptors */

/* Parses BTF, assembles, loads and links. Takes tens of milliseconds: not inside the stop.
 * CR_HOST with a remedy when this kernel has no BTF or refuses BPF iterators.
 * @meant: the id of a task: only its pid namespace is read, those within, and who is traced; NULL:
 * all. */
struct cr_error *kernel_reader_open(const struct btf *btf, const struct kernel_id *meant,
				    struct kernel_reader **ret);
void kernel_reader_close(struct kernel_reader *reader); /* NULL is fine */

/* All tasks (of the namespace) that pass @wanted (NULL: all), zombies too.
 * *ret: list of struct kernel_task in @pool. Well below 1 ms for a hundred tasks. */
struct cr_error *kernel_reader_tasks(struct kernel_reader *reader, struct pool *pool,
				     bool (*wanted)(void *context, const struct kernel_task *task),
				     void *context, struct list *ret);

typedef struct cr_error *(*kernel_keyring_note)(void *context, uint64_t session_keyring);

/* The session keyrings of all others, where the reader has a namespace. */
struct cr_error *kernel_reader_strangers(struct kernel_reader *reader, kernel_keyring_note note,
					 void *context);

static inline void cleanup_kernel_reader(struct kernel_reader **reader)
{
	kernel_reader_close(*reader);
}

#define _cleanup_kernel_reader_ __attribute__((cleanup(cleanup_kernel_reader)))

#endif
