/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* State of one restart, as the restore functions of the kinds see it. */
#ifndef CR_RESTORE_H
#define CR_RESTORE_H

#include <sched.h>

#include "log.h"
#include "model.h"
#include "target/channel.h"
#include "target/program.h"

/* What the programs see: clocks.c */
struct container_clocks {
	bool same_boot;	  /* this host has been up since before T0 */
	bool own;	  /* they are in a time namespace of their own, */
	bool late_entry;  /* which is entered when all processes stand, */
	bool last_entry;  /* before their threads do, with all that is of processes in place */
	ino_t namespace;  /* else: that which init has entered by its execve */
	int64_t took;	  /* by what is of processes, ns */
	int64_t program;  /* what the smallest program of a task takes, ns */
	uint64_t planned; /* R that the namespace was made for, ns; 0: any will do */
	uint64_t late;	  /* by which R has come after that */
	int64_t passed;	  /* since T0, that everything which is armed has lost */
	int64_t monotonic_offset, boottime_offset; /* to the clocks of the host */
};

struct restore {
	const struct cr_restart_options *options;
	struct log log;
	struct image image;
	struct program *program;

	pid_t init;	     /* host pid of the init that was taken over */
	int root;	     /* its root directory, O_PATH */
	uint64_t area;	     /* address of the program area, the same in every task */
	struct list special; /* struct vma: where the kernel's mappings lie in init now */
	uint64_t insn;	     /* offset of a system call instruction in that with code */
	struct channel channel;
	struct key_maker *key_maker;   /* keys.c */
	struct list core_firsts;       /* pid_t, the first of each group: kinds/core_group.c */
	struct list helpers;	       /* struct helper: groups.c */
	struct hash helped_groups;     /* those which helpers keep, by number: groups.c */
	struct delivery *delivery;     /* of orphans, NULL: none: clone.c */
	pid_t spare_pid;	       /* no task of the image has it */
	void *pipes;		       /* tsearch(3) tree of struct standing_pipe: kinds/pipe.c */
	struct hash senders;	       /* struct helper, by pid: kinds/unix_queue.c */
	struct list dead_senders;      /* struct helper *, the same */
	struct list departed;	       /* struct departed *: kinds/pidfd.c */
	struct hash departed_by_inode; /* the same */
	bool names_lost;	       /* this kernel does not name memory: kinds/memory_names.c */
	bool seccomp_suspended;	       /* filters are not in force while we build */
	struct list leases;	       /* struct object *: kinds/lease.c */
	struct list leases_by_pid;     /* the same, of one process after the other */
	struct hash breaking;	    /* leases that are being broken, by their file: kinds/lease.c */
	struct hash lease_choices;  /* what the user wants, by the lease's file */
	struct list leases_outside; /* struct shown_lock: kinds/lease_outside.c */
	uint64_t leases_outside_since; /* when they were read, CLOCK_MONOTONIC ns; 0: never */
	struct lease_break_time *lease_break_time; /* NULL: nothing is being broken */
	cpu_set_t processors, of_init; /* the engine's own, and those of init from the runtime */
	cpu_set_t shared_processor;    /* that to which both are pinned: pin.c */
	bool pinned;
	uint64_t release; /* R, CLOCK_MONOTONIC ns: every remaining time counts from here */
	struct container_clocks clocks;
};

/* pid of the leader on this host: who runs programs for the process. */
static inline void restore_begin(struct restore *restore, const struct process *process)
{
	program_begin(restore->program, process_leader(process)->host_tid);
}

/* Our own copy of a descriptor of task @tid, which is closed there. */
struct cr_error *restore_fetch(struct restore *restore, pid_t tid, int remote_fd, int *ret);

/* The other way round: the program's task has @fd under *number, which it must close. Not once its
 * descriptors are in place, for then it has no channel. */
struct cr_error *restore_lend(struct restore *restore, int fd, int *number);

/* Append a call that opens @path, O_NONBLOCK so that nothing can hold us up; returns its index. */
int restore_append_open(struct restore *restore, const struct bytes *path, uint64_t flags);
/* Open @path in the program's task, O_NONBLOCK so that nothing can hold us up, and fetch it. */
struct cr_error *restore_open(struct restore *restore, const struct bytes *path, uint64_t flags,
			      int *ret);

/* What the thread has from the runtime, in thread->status: read once, when first asked for. */
struct cr_error *restore_status(struct restore *restore, struct thread *thread);

/*
 * For what is armed now: from now to the end of something of which @remaining ns were left at T0.
 * restore_span() is below 0 when it has come to its end while the container was away and this is
 * to be seen (--time wall), restore_left() then is 0. clocks.c
 */
int64_t restore_span(const struct restore *restore, uint64_t remaining);
uint64_t restore_left(const struct restore *restore, uint64_t remaining);
/* The same for what begins to count at the release. */
uint64_t restore_left_then(const struct restore *restore, uint64_t remaining);

#endif
